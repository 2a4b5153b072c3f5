/* New inodes and their first names. */
#include "store/ns/ns_internal.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

/* Attributes of a new inode of @dir. */
static void dress(struct cfs_ino *i, const struct cfs_make *make,
		  struct cfs_ino *dir)
{
	mode_t mode = make->mode;

	(void)clock_gettime(CLOCK_REALTIME, &i->btime);
	i->atime = i->ctime = i->cur.mtime = i->btime;
	/* unlike numbers, which a crash may hand out once more */
	i->generation = (uint64_t)i->btime.tv_sec * 1000000000u +
			(uint64_t)i->btime.tv_nsec;
	i->uid = make->cred->uid;
	i->gid = make->cred->gid;
	(void)pthread_mutex_lock(&dir->lock);
	if (dir->mode & S_ISGID) {
		i->gid = dir->gid;
		if (S_ISDIR(mode))
			mode |= S_ISGID;
	}
	(void)pthread_mutex_unlock(&dir->lock);
	i->mode = mode;
	i->type = mode & S_IFMT;
	i->rdev = S_ISCHR(mode) || S_ISBLK(mode) ? (uint32_t)make->rdev : 0;
	i->nlink = S_ISDIR(mode) ? 2 : 1;
	i->parent = S_ISDIR(mode) ? make->dir : 0;
	if (S_ISREG(mode)) {
		i->marker = cfs_ns_is_marker(i->ns, make->name);
		if (i->ns->sniffer)
			i->name = strdup(make->name); /* only a hint */
	}
}

/* The record of a new inode goes to the levels with its name. */
static int put_record(struct cfs_ino *i, const char *target,
		      struct cfs_batch *batch)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_inode_record rec;
	struct cfs_key key;

	if (target) {
		i->kind = CFS_CONTENT_INLINE;
		i->cur.size = strlen(target);
	}
	cfs_ino_record(i, &i->cur, &rec);
	rec.inline_data = (const uint8_t *)target;
	rec.inline_len = (uint32_t)i->cur.size;
	cfs_inode_encode(&rec, &val);
	if (val.failed)
		return -ENOMEM;
	cfs_key_inode(&key, i->ino);
	cfs_batch_put(batch, cfs_key_slice(&key),
		      (struct cfs_slice){val.data, val.len});
	return 0;
}

/* Inside, names held. */
static int make_inside(struct cfs_ns *ns, const struct cfs_make *make,
		       struct cfs_ino *dir, struct cfs_ino **out)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch b = CFS_BATCH_INIT;
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	uint64_t number;
	int r = cfs_ns_new_ino(ns, &number);

	if (r < 0)
		return r;
	i = cfs_ino_new(ns, number);
	if (!i)
		return -ENOMEM;
	i->nlink = 1; /* should it fail below: just freed */
	dress(i, make, dir);
	r = put_record(i, make->target, &b);
	if (r == 0)
		r = cfs_dirent_add(ns, &b, make->dir, make->name, number,
				   make->mode);
	if (r == 0)
		r = cfs_levels_apply(ns->levels, &b);
	if (r < 0)
		return r;
	cfs_dir_changed(dir, S_ISDIR(make->mode) ? 1 : 0);
	if (i->marker || make->target)
		cfs_ns_points(ns);
	cfs_ino_looked_up(i);
	*out = cfs_steal(i);
	return 0;
}

int cfs_ns_make(struct cfs_ns *ns, const struct cfs_make *make,
		struct stat *st_out, struct cfs_ino **ino_out)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *dir = NULL;
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	struct cfs_dirent_value v;
	int r = cfs_ns_room(ns);

	if (r < 0)
		return r;
	(void)pthread_rwlock_wrlock(&ns->names);
	r = cfs_dir_get(ns, make->dir, &dir);
	if (r == 0) {
		r = cfs_absent_has(ns, make->dir, make->name)
			    ? -ENOENT
			    : cfs_dirent_get(ns, make->dir, make->name, &v);
		if (r == 0)
			r = -EEXIST;
	}
	if (r == -ENOENT && dir && make->name[0]) {
		cfs_store_enter(ns->store);
		r = make_inside(ns, make, dir, &i);
		cfs_store_leave(ns->store);
	}
	(void)pthread_rwlock_unlock(&ns->names);
	if (!i)
		return r;
	(void)pthread_mutex_lock(&i->lock);
	cfs_ino_stat(i, st_out);
	(void)pthread_mutex_unlock(&i->lock);
	if (ino_out)
		*ino_out = cfs_steal(i);
	return 0;
}

int cfs_ns_mknod(struct cfs_ns *ns, const struct cfs_ns_cred *cred,
		 uint64_t dir, const char *name, mode_t mode, dev_t rdev,
		 struct stat *st_out)
{
	struct cfs_make make = {.cred = cred,
				.dir = dir,
				.name = name,
				.mode = mode,
				.rdev = rdev};

	if (!(mode & S_IFMT))
		make.mode |= S_IFREG;
	else if (S_ISDIR(mode) || S_ISLNK(mode))
		return -EINVAL;
	return cfs_ns_make(ns, &make, st_out, NULL);
}

int cfs_ns_mkdir(struct cfs_ns *ns, const struct cfs_ns_cred *cred,
		 uint64_t dir, const char *name, mode_t mode,
		 struct stat *st_out)
{
	struct cfs_make make = {.cred = cred,
				.dir = dir,
				.name = name,
				.mode = (mode & 07777) | S_IFDIR};

	return cfs_ns_make(ns, &make, st_out, NULL);
}

int cfs_ns_symlink(struct cfs_ns *ns, const struct cfs_ns_cred *cred,
		   uint64_t dir, const char *name, const char *target,
		   struct stat *st_out)
{
	struct cfs_make make = {.cred = cred,
				.dir = dir,
				.name = name,
				.mode = S_IFLNK | 0777,
				.target = target};

	if (!*target)
		return -ENOENT;
	if (strlen(target) >= PATH_MAX)
		return -ENAMETOOLONG;
	return cfs_ns_make(ns, &make, st_out, NULL);
}
