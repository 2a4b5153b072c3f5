/* Changing attributes. */
#include "store/ns/ns_internal.h"

#include <errno.h>

/* Who owns it; an executable for another owner must not keep its powers. */
static void set_owner(struct cfs_ino *i, const struct stat *st, unsigned set)
{
	if (set & CFS_SET_UID)
		i->uid = st->st_uid;
	if (set & CFS_SET_GID)
		i->gid = st->st_gid;
	if (set & CFS_SET_MODE || S_ISDIR(i->type) ||
	    !(set & (CFS_SET_UID | CFS_SET_GID)))
		return;
	i->mode &= ~(uint32_t)S_ISUID;
	if (i->mode & S_IXGRP)
		i->mode &= ~(uint32_t)S_ISGID;
}

/* Inside, lock held. */
static void apply(struct cfs_ino *i, const struct stat *st, unsigned set)
{
	struct timespec now = cfs_ino_now(i);

	if (set & CFS_SET_MODE)
		i->mode = i->type | (st->st_mode & 07777);
	set_owner(i, st, set);
	if (set & CFS_SET_ATIME_NOW)
		i->atime = now;
	else if (set & CFS_SET_ATIME)
		i->atime = st->st_atim;
	if (set & CFS_SET_MTIME_NOW)
		i->cur.mtime = now;
	else if (set & CFS_SET_MTIME)
		i->cur.mtime = st->st_mtim;
	/* the kernel's ctime is of its own clock; ours must not stand still */
	i->ctime = now;
	cfs_ino_save(i);
}

int cfs_ns_setattr(struct cfs_ns *ns, uint64_t ino, const struct stat *st,
		   unsigned set, struct stat *st_out)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	int r = cfs_ino_get(ns, ino, &i);

	if (r < 0)
		return r;
	if (set & CFS_SET_SIZE) {
		if (S_ISDIR(i->type))
			return -EISDIR;
		if (!S_ISREG(i->type))
			return -EINVAL;
		if (st->st_size < 0)
			return -EINVAL;
		r = cfs_ino_truncate(i, (uint64_t)st->st_size, false);
		if (r < 0)
			return r;
		set &= ~(unsigned)CFS_SET_SIZE;
	}
	cfs_store_enter(ns->store);
	(void)pthread_mutex_lock(&i->lock);
	if (set & ~(unsigned)CFS_SET_CTIME)
		apply(i, st, set);
	cfs_ino_stat(i, st_out);
	(void)pthread_mutex_unlock(&i->lock);
	cfs_store_leave(ns->store);
	return 0;
}
