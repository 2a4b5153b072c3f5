/* Renaming: over what is there, directories, exchanges. */
#include "store/ns/ns_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

struct rename { /* names held exclusively */
	struct cfs_ns *ns;
	const char *name, *new_name;
	struct cfs_ino *dir, *new_dir; /* may be the same */
	struct cfs_ino *ino, *old;     /* old: what has new_name; or NULL */
	struct cfs_dirent_value v, old_v;
};

/* Is @ino a directory that @dir lies in, or @dir itself? */
static int above(struct cfs_ns *ns, const struct cfs_ino *ino, uint64_t dir)
{
	while (dir != CFS_ROOT_INO) {
		struct cfs_ino *d;
		int r;

		if (dir == ino->ino)
			return -EINVAL;
		r = cfs_ino_get(ns, dir, &d);
		if (r < 0)
			return r;
		dir = d->parent; /* changes under names only */
		cfs_ino_put(d);
	}
	return ino->ino == CFS_ROOT_INO ? -EINVAL : 0;
}

static int find(struct rename *m, uint64_t dir, uint64_t new_dir)
{
	int r = cfs_dir_get(m->ns, dir, &m->dir);

	if (r == 0)
		r = cfs_dir_get(m->ns, new_dir, &m->new_dir);
	if (r == 0)
		r = cfs_dirent_get(m->ns, dir, m->name, &m->v);
	if (r == 0)
		r = cfs_ino_get(m->ns, m->v.ino, &m->ino);
	if (r)
		return r;
	r = cfs_dirent_get(m->ns, new_dir, m->new_name, &m->old_v);
	if (r == -ENOENT)
		return m->new_name[0] ? 0 : r;
	if (r == 0)
		r = cfs_ino_get(m->ns, m->old_v.ino, &m->old);
	return r;
}

static int check(const struct rename *m, unsigned flags)
{
	int r = 0;

	assert(m->ino && m->dir && m->new_dir); /* find() got them */
	if (flags & RENAME_EXCHANGE && !m->old)
		return -ENOENT;
	if (flags & RENAME_NOREPLACE && m->old)
		return -EEXIST;
	if (S_ISDIR(m->ino->type) && m->dir != m->new_dir)
		r = above(m->ns, m->ino, m->new_dir->ino);
	if (r == 0 && flags & RENAME_EXCHANGE && S_ISDIR(m->old->type))
		r = above(m->ns, m->old, m->dir->ino);
	if (r < 0 || !m->old || flags & RENAME_EXCHANGE)
		return r;
	if (S_ISDIR(m->old->type) && !S_ISDIR(m->ino->type))
		return -EISDIR;
	if (!S_ISDIR(m->old->type) && S_ISDIR(m->ino->type))
		return -ENOTDIR;
	return S_ISDIR(m->old->type) ? cfs_dir_empty(m->ns, m->old->ino) : 0;
}

/* @ino is at home in @parent under @name now; inside. */
static void moved(struct cfs_ino *ino, const struct cfs_ino *parent,
		  const char *name)
{
	(void)pthread_mutex_lock(&ino->lock);
	if (S_ISDIR(ino->type))
		ino->parent = parent->ino;
	else if (S_ISREG(ino->type))
		ino->marker = cfs_ns_is_marker(ino->ns, name);
	cfs_ino_unstage(ino); /* the name promises what is there now */
	ino->ctime = cfs_ino_now(ino);
	cfs_ino_save(ino);
	(void)pthread_mutex_unlock(&ino->lock);
}

static int exchange(struct rename *m)
{
	struct cfs_ns *ns = m->ns;
	_cleanup_(cfs_batch_fini) struct cfs_batch b = CFS_BATCH_INIT;
	bool a_dir = S_ISDIR(m->ino->type), b_dir = S_ISDIR(m->old->type);
	int r;

	r = cfs_dirent_del(&b, m->dir->ino, m->name, m->v.cookie);
	if (r == 0)
		r = cfs_dirent_del(&b, m->new_dir->ino, m->new_name,
				   m->old_v.cookie);
	if (r == 0)
		r = cfs_dirent_add(ns, &b, m->dir->ino, m->name, m->old->ino,
				   m->old->type);
	if (r == 0)
		r = cfs_dirent_add(ns, &b, m->new_dir->ino, m->new_name,
				   m->ino->ino, m->ino->type);
	if (r == 0)
		r = cfs_levels_apply(ns->levels, &b);
	if (r < 0)
		return r;
	moved(m->ino, m->new_dir, m->new_name);
	if (m->old != m->ino)
		moved(m->old, m->dir, m->name);
	if (m->dir == m->new_dir) {
		cfs_dir_changed(m->dir, 0);
	} else {
		cfs_dir_changed(m->dir, b_dir - a_dir);
		cfs_dir_changed(m->new_dir, a_dir - b_dir);
	}
	return 0;
}

static int replace(struct rename *m)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch b = CFS_BATCH_INIT;
	struct cfs_ns *ns = m->ns;
	bool is_dir = S_ISDIR(m->ino->type);
	bool over_dir = m->old && S_ISDIR(m->old->type);
	int r = cfs_dirent_del(&b, m->dir->ino, m->name, m->v.cookie);

	if (r == 0 && m->old) {
		r = cfs_dirent_del(&b, m->new_dir->ino, m->new_name,
				   m->old_v.cookie);
		cfs_ino_unlink(m->old, &b);
	}
	if (r == 0)
		r = cfs_dirent_add(ns, &b, m->new_dir->ino, m->new_name,
				   m->ino->ino, m->ino->type);
	if (r == 0)
		r = cfs_levels_apply(ns->levels, &b);
	if (r < 0)
		return r;
	if (m->old)
		cfs_ino_unlinked(m->old);
	moved(m->ino, m->new_dir, m->new_name);
	if (m->dir == m->new_dir) {
		cfs_dir_changed(m->dir, over_dir ? -1 : 0);
	} else {
		cfs_dir_changed(m->dir, is_dir ? -1 : 0);
		cfs_dir_changed(m->new_dir, is_dir - over_dir);
	}
	return 0;
}

/* 1: there was something to do. */
static int do_rename(struct rename *m, uint64_t dir, uint64_t new_dir,
		     unsigned flags)
{
	int r = find(m, dir, new_dir);

	if (r)
		return r;
	if (m->old == m->ino && !(flags & RENAME_NOREPLACE))
		return 0; /* two names of one file stay */
	r = check(m, flags);
	if (r < 0)
		return r;
	cfs_store_enter(m->ns->store);
	cfs_ns_points(m->ns);
	r = flags & RENAME_EXCHANGE ? exchange(m) : replace(m);
	cfs_store_leave(m->ns->store);
	return r < 0 ? r : 1;
}

static bool is_dots(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

int cfs_ns_rename(struct cfs_ns *ns, uint64_t dir, const char *name,
		  uint64_t new_dir, const char *new_name, unsigned flags)
{
	struct rename m = {.ns = ns, .name = name, .new_name = new_name};
	int r;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	if (is_dots(name) || is_dots(new_name))
		return -EBUSY;
	(void)pthread_rwlock_wrlock(&ns->names);
	r = do_rename(&m, dir, new_dir, flags);
	(void)pthread_rwlock_unlock(&ns->names);
	cfs_ino_put(m.old);
	cfs_ino_put(m.ino);
	cfs_ino_put(m.new_dir);
	cfs_ino_put(m.dir);
	if (r != 1)
		return r;
	if (cfs_ns_is_marker(ns, new_name) ||
	    (flags & RENAME_EXCHANGE && cfs_ns_is_marker(ns, name)))
		return cfs_ns_sync(ns);
	return 0;
}
