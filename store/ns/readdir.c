/* Listing a directory in the order of cookies. */
#include "store/ns/ns_internal.h"

#include <dirent.h>
#include <errno.h>

enum {
	COOKIE_DOT = 1,
	COOKIE_DOTDOT = 2
};

struct listing {
	struct cfs_ns *ns;
	uint64_t dir;
	bool full;
	cfs_ns_dirent_fn *fn;
	void *arg;
};

/* What a name leads to, all of it: 1 and a reference, 0 if it is gone. */
static int look(const struct listing *l, const char *name, uint64_t ino,
		struct stat *st, struct cfs_ino **out)
{
	int r = cfs_ino_get(l->ns, ino, out);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	(void)pthread_mutex_lock(&(*out)->lock);
	cfs_ino_stat(*out, st);
	cfs_ino_found(*out, name); /* no lookup need follow */
	(void)pthread_mutex_unlock(&(*out)->lock);
	return 1;
}

/* 0 to go on, 1 to stop. */
static int emit(const struct listing *l, const char *name, uint64_t cookie)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	struct cfs_dirent_value v;
	struct stat st;
	int r = cfs_dirent_get(l->ns, l->dir, name, &v);

	if (r == -ENOENT || (r == 0 && v.cookie != cookie))
		return 0; /* gone, or comes under its new cookie */
	if (r < 0)
		return r;
	memset(&st, 0, sizeof(st));
	st.st_ino = v.ino;
	st.st_mode = DTTOIF(v.type);
	if (l->full) {
		r = look(l, name, v.ino, &st, &i);
		if (r <= 0)
			return r;
		/* before fn: the kernel may forget it while that returns */
		cfs_ino_looked_up(i);
	}
	r = l->fn(l->arg, name, &st, cookie);
	if (r && l->full)
		cfs_ns_forget(l->ns, v.ino, 1);
	return r ? 1 : 0;
}

static int emit_dots(const struct listing *l, const struct cfs_ino *d,
		     uint64_t cookie)
{
	struct stat st;

	memset(&st, 0, sizeof(st));
	st.st_mode = S_IFDIR;
	st.st_ino = d->ino;
	if (cookie < COOKIE_DOT && l->fn(l->arg, ".", &st, COOKIE_DOT))
		return 1;
	st.st_ino = d->parent;
	if (cookie < COOKIE_DOTDOT && l->fn(l->arg, "..", &st, COOKIE_DOTDOT))
		return 1;
	return 0;
}

static int emit_names(const struct listing *l, uint64_t cookie)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_key prefix, from;
	struct cfs_slice k, v;
	int r;

	cfs_key_prefix(&prefix, 'D', l->dir);
	cfs_key_cookie(&from, l->dir, CFS_MAX(cookie + 1, (uint64_t)3));
	r = cfs_levels_iter(l->ns->levels, cfs_key_slice(&prefix),
			    cfs_key_slice(&from), &iter);
	while (r == 0) {
		char name[CFS_NAME_MAX + 1];
		uint64_t dir, at;

		r = iter->ops->next(iter, &k, &v);
		if (r <= 0)
			return r;
		r = cfs_key_parse_u64(k, &dir, &at);
		if (r < 0)
			return r;
		if (v.len > CFS_NAME_MAX)
			return -EBADMSG;
		memcpy(name, v.data, v.len);
		name[v.len] = '\0';
		r = emit(l, name, at);
	}
	return r < 0 ? r : 0;
}

int cfs_ns_readdir(struct cfs_ns *ns, uint64_t dir, uint64_t cookie, bool full,
		   cfs_ns_dirent_fn *fn, void *arg)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *d = NULL;
	struct listing l = {ns, dir, full, fn, arg};
	int r = cfs_ino_get(ns, dir, &d);

	if (r < 0)
		return r;
	if (!S_ISDIR(d->type))
		return -ENOTDIR;
	if (emit_dots(&l, d, cookie))
		return 0;
	return emit_names(&l, cookie);
}
