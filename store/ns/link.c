/* Hard links, and what symbolic ones say. */
#include "store/ns/ns_internal.h"

#include <errno.h>

/* names held. */
static int add_link(struct cfs_ns *ns, struct cfs_ino *i, struct cfs_ino *d,
		    const char *name)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch b = CFS_BATCH_INIT;
	struct cfs_dirent_value v;
	int r = cfs_dirent_get(ns, d->ino, name, &v);

	if (r == 0)
		return -EEXIST;
	if (r != -ENOENT || !*name)
		return r;
	cfs_store_enter(ns->store);
	cfs_ns_points(ns);
	r = cfs_dirent_add(ns, &b, d->ino, name, i->ino, i->type);
	if (r == 0)
		r = cfs_levels_apply(ns->levels, &b);
	if (r == 0) {
		(void)pthread_mutex_lock(&i->lock);
		i->nlink++;
		i->ctime = cfs_ino_now(i);
		if (S_ISREG(i->type) && cfs_ns_is_marker(ns, name))
			i->marker = true;
		cfs_ino_save(i);
		(void)pthread_mutex_unlock(&i->lock);
		cfs_dir_changed(d, 0);
	}
	cfs_store_leave(ns->store);
	return r;
}

int cfs_ns_link(struct cfs_ns *ns, uint64_t ino, uint64_t dir, const char *name,
		struct stat *st_out)
{
	struct cfs_ino *i = NULL, *d = NULL;
	int r = cfs_ns_room(ns);

	if (r < 0)
		return r;
	(void)pthread_rwlock_wrlock(&ns->names);
	r = cfs_ino_get(ns, ino, &i);
	if (r == 0 && S_ISDIR(i->type))
		r = -EPERM;
	if (r == 0 && !i->nlink)
		r = -ENOENT;
	if (r == 0)
		r = cfs_dir_get(ns, dir, &d);
	if (r == 0)
		r = add_link(ns, i, d, name);
	if (r == 0)
		cfs_ino_looked_up(i);
	(void)pthread_rwlock_unlock(&ns->names);
	if (r == 0) {
		(void)pthread_mutex_lock(&i->lock);
		cfs_ino_stat(i, st_out);
		(void)pthread_mutex_unlock(&i->lock);
	}
	cfs_ino_put(i);
	cfs_ino_put(d);
	if (r < 0 || !cfs_ns_is_marker(ns, name))
		return r;
	r = cfs_ns_sync(ns);
	if (r < 0)
		cfs_ns_forget(ns, ino, 1);
	return r;
}

int cfs_ns_readlink(struct cfs_ns *ns, uint64_t ino, struct cfs_buf *target_out)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	int r = cfs_ino_get(ns, ino, &i);

	if (r < 0)
		return r;
	if (!S_ISLNK(i->type))
		return -EINVAL;
	return cfs_ino_inline(i, target_out);
}
