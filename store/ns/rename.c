/* Renaming: over what is there, directories, exchanges, several as one. */
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
	unsigned flags;
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

static int plan_exchange(struct rename *m, struct cfs_batch *b)
{
	struct cfs_ns *ns = m->ns;
	int r = cfs_dirent_del(b, m->dir->ino, m->name, m->v.cookie);

	if (r == 0)
		r = cfs_dirent_del(b, m->new_dir->ino, m->new_name,
				   m->old_v.cookie);
	if (r == 0)
		r = cfs_dirent_add(ns, b, m->dir->ino, m->name, m->old->ino,
				   m->old->type);
	if (r == 0)
		r = cfs_dirent_add(ns, b, m->new_dir->ino, m->new_name,
				   m->ino->ino, m->ino->type);
	return r;
}

static void exchanged(struct rename *m)
{
	bool a_dir = S_ISDIR(m->ino->type), b_dir = S_ISDIR(m->old->type);

	moved(m->ino, m->new_dir, m->new_name);
	if (m->old != m->ino)
		moved(m->old, m->dir, m->name);
	if (m->dir == m->new_dir) {
		cfs_dir_changed(m->dir, 0);
	} else {
		cfs_dir_changed(m->dir, b_dir - a_dir);
		cfs_dir_changed(m->new_dir, a_dir - b_dir);
	}
}

static int plan_replace(struct rename *m, struct cfs_batch *b)
{
	int r = cfs_dirent_del(b, m->dir->ino, m->name, m->v.cookie);

	if (r == 0 && m->old) {
		r = cfs_dirent_del(b, m->new_dir->ino, m->new_name,
				   m->old_v.cookie);
		cfs_ino_unlink(m->old, b);
	}
	if (r == 0)
		r = cfs_dirent_add(m->ns, b, m->new_dir->ino, m->new_name,
				   m->ino->ino, m->ino->type);
	return r;
}

static void replaced(struct rename *m)
{
	bool is_dir = S_ISDIR(m->ino->type);
	bool over_dir = m->old && S_ISDIR(m->old->type);

	if (m->old)
		cfs_ino_unlinked(m->old);
	moved(m->ino, m->new_dir, m->new_name);
	if (m->dir == m->new_dir) {
		cfs_dir_changed(m->dir, over_dir ? -1 : 0);
	} else {
		cfs_dir_changed(m->dir, is_dir ? -1 : 0);
		cfs_dir_changed(m->new_dir, is_dir - over_dir);
	}
}

/* All of @m that are checked and have something to do, as one batch. */
static int apply(struct cfs_ns *ns, struct rename *m, size_t n)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch b = CFS_BATCH_INIT;
	int r = 0;

	cfs_store_enter(ns->store);
	cfs_ns_points(ns);
	for (size_t i = 0; i < n && r == 0; i++)
		r = m[i].flags & RENAME_EXCHANGE ? plan_exchange(&m[i], &b)
						 : plan_replace(&m[i], &b);
	if (r == 0)
		r = cfs_levels_apply(ns->levels, &b);
	for (size_t i = 0; i < n && r == 0; i++) {
		if (m[i].flags & RENAME_EXCHANGE)
			exchanged(&m[i]);
		else
			replaced(&m[i]);
	}
	cfs_store_leave(ns->store);
	return r;
}

/* Two names of one file: they stay. */
static bool is_same(const struct rename *m)
{
	return m->old && m->old == m->ino && !(m->flags & RENAME_NOREPLACE);
}

static bool is_dots(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

static int check_call(const char *name, const char *new_name, unsigned flags)
{
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	return is_dots(name) || is_dots(new_name) ? -EBUSY : 0;
}

static void rename_fini(struct rename *m)
{
	cfs_ino_put(m->old);
	cfs_ino_put(m->ino);
	cfs_ino_put(m->new_dir);
	cfs_ino_put(m->dir);
}

static bool is_marker(struct cfs_ns *ns, const char *name, const char *new_name,
		      unsigned flags)
{
	return cfs_ns_is_marker(ns, new_name) ||
	       (flags & RENAME_EXCHANGE && cfs_ns_is_marker(ns, name));
}

int cfs_ns_rename(struct cfs_ns *ns, uint64_t dir, const char *name,
		  uint64_t new_dir, const char *new_name, unsigned flags)
{
	struct rename m = {
		.ns = ns, .name = name, .new_name = new_name, .flags = flags};
	bool done = false;
	int r = check_call(name, new_name, flags);

	if (r < 0)
		return r;
	(void)pthread_rwlock_wrlock(&ns->names);
	r = find(&m, dir, new_dir);
	if (r == 0 && !is_same(&m)) {
		r = check(&m, flags);
		if (r == 0)
			r = apply(ns, &m, 1);
		done = r == 0;
	}
	(void)pthread_rwlock_unlock(&ns->names);
	rename_fini(&m);
	if (done && is_marker(ns, name, new_name, flags))
		return cfs_ns_sync(ns);
	return r;
}

/* ---- several as one ---- */

static bool same_name(uint64_t dir_a, const char *a, uint64_t dir_b,
		      const char *b)
{
	return dir_a == dir_b && !strcmp(a, b);
}

/* Each is checked against what is there before all of them: that holds when
 * none changes what another one looks at. */
static int check_apart(const struct cfs_ns_move *moves, size_t i)
{
	const struct cfs_ns_move *a = &moves[i];

	for (size_t k = 0; k < i; k++) {
		const struct cfs_ns_move *b = &moves[k];

		if (same_name(a->dir, a->name, b->dir, b->name) ||
		    same_name(a->dir, a->name, b->new_dir, b->new_name) ||
		    same_name(a->new_dir, a->new_name, b->dir, b->name) ||
		    same_name(a->new_dir, a->new_name, b->new_dir, b->new_name))
			return -EINVAL;
	}
	return 0;
}

/* names held. */
static int check_all(const struct cfs_ns_move *moves, struct rename *m,
		     size_t n, size_t *which_out)
{
	unsigned dirs = 0;
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		*which_out = i;
		r = check_apart(moves, i);
		if (r == 0)
			r = find(&m[i], moves[i].dir, moves[i].new_dir);
		if (r < 0)
			return r;
		if (m[i].old == m[i].ino)
			return -EINVAL;
		r = check(&m[i], m[i].flags);
		dirs += S_ISDIR(m[i].ino->type) ||
			(m[i].old && S_ISDIR(m[i].old->type));
		if (r == 0 && n > 1 &&
		    (dirs > 1 || (m[i].old && S_ISDIR(m[i].old->type) &&
				  !(m[i].flags & RENAME_EXCHANGE))))
			r = -EINVAL;
	}
	return r;
}

int cfs_ns_publish(struct cfs_ns *ns, const struct cfs_ns_move *moves, size_t n,
		   size_t *which_out)
{
	_cleanup_(cfs_freep) struct rename *m = calloc(n + 1, sizeof(*m));
	bool marker = false;
	size_t which = 0;
	int r = m ? 0 : -ENOMEM;

	for (size_t i = 0; i < n && r == 0; i++) {
		which = i;
		m[i] = (struct rename){.ns = ns,
				       .name = moves[i].name,
				       .new_name = moves[i].new_name,
				       .flags = moves[i].flags};
		r = check_call(m[i].name, m[i].new_name, m[i].flags);
		marker |= is_marker(ns, m[i].name, m[i].new_name, m[i].flags);
	}
	if (r == 0) {
		(void)pthread_rwlock_wrlock(&ns->names);
		r = check_all(moves, m, n, &which);
		if (r == 0)
			r = apply(ns, m, n);
		(void)pthread_rwlock_unlock(&ns->names);
		for (size_t i = 0; i < n; i++)
			rename_fini(&m[i]);
	}
	if (r == 0 && marker) {
		which = n;
		r = cfs_ns_sync(ns);
	}
	if (r < 0 && which_out)
		*which_out = which;
	return r;
}
