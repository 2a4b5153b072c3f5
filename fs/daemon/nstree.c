/* Trees of the namespace, by inode number. */
#include "fs/daemon/nstree.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "store/ns/ns.h"
#include "store/util/buf.h"

#define ROOT 1u
#define DEEP 4096u /* deeper trees are refused, not a stack overflow */

/* ---- listing ---- */

void cfs_nstree_names_free(struct cfs_nstree_names *names)
{
	size_t i;

	for (i = 0; i < names->n; i++)
		free(names->list[i].name);
	free(names->list);
	*names = (struct cfs_nstree_names){0};
}

static int add_name(struct cfs_nstree_names *names, const char *name,
		    const struct stat *st)
{
	struct cfs_nstree_name *item;

	if (names->n == names->cap) {
		size_t cap = names->cap ? 2 * names->cap : 16;

		item = reallocarray(names->list, cap, sizeof(*item));
		if (!item)
			return -ENOMEM;
		names->list = item;
		names->cap = cap;
	}
	item = &names->list[names->n];
	item->name = strdup(name);
	item->ino = st->st_ino;
	item->type = st->st_mode & S_IFMT;
	if (!item->name)
		return -ENOMEM;
	names->n++;
	return 0;
}

struct listing {
	struct cfs_nstree_names *names;
	bool root;
	int r;
};

static int on_name(void *arg, const char *name, const struct stat *st,
		   uint64_t cookie)
{
	struct listing *l = arg;

	(void)cookie;
	if (!strcmp(name, ".") || !strcmp(name, "..") ||
	    (l->root && !strcmp(name, CFS_NSTREE_TRASH)))
		return 0;
	l->r = add_name(l->names, name, st);
	return l->r;
}

static int by_name(const void *a, const void *b)
{
	const struct cfs_nstree_name *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int cfs_nstree_list(struct cfs_ns *ns, uint64_t dir,
		    struct cfs_nstree_names *out)
{
	struct listing l = {out, dir == ROOT, 0};
	int r;

	r = cfs_ns_readdir(ns, dir, 0, false, on_name, &l);
	if (r < 0 || l.r < 0) {
		cfs_nstree_names_free(out);
		return r < 0 ? r : l.r;
	}
	if (out->n)
		qsort(out->list, out->n, sizeof(*out->list), by_name);
	return 0;
}

/* ---- walking ---- */

struct walk {
	struct cfs_ns *ns;
	cfs_nstree_fn *fn;
	void *arg;
	struct cfs_buf path;
	unsigned depth;
};

static int walk_one(struct walk *w, uint64_t ino);

static int walk_children(struct walk *w, uint64_t dir)
{
	_cleanup_(cfs_nstree_names_free) struct cfs_nstree_names names = {0};
	size_t i, len = w->path.len;
	int r;

	r = cfs_nstree_list(w->ns, dir, &names);
	if (r == -ENOENT)
		return 0;
	for (i = 0; !r && i < names.n; i++) {
		if (len)
			cfs_buf_put_u8(&w->path, '/');
		cfs_buf_put_str(&w->path, names.list[i].name);
		r = w->path.failed ? -ENOMEM : walk_one(w, names.list[i].ino);
		w->path.len = len;
	}
	return r;
}

static int walk_one(struct walk *w, uint64_t ino)
{
	struct stat st;
	int r;

	r = cfs_ns_getattr(w->ns, ino, &st);
	if (r == -ENOENT || r == -ESTALE)
		return 0;
	if (!r)
		r = w->fn(w->arg, cfs_buf_str(&w->path), &st);
	if (r == CFS_NSTREE_SKIP)
		return 0;
	if (r || !S_ISDIR(st.st_mode))
		return r;
	if (w->depth == DEEP)
		return -ELOOP;
	w->depth++;
	r = walk_children(w, ino);
	w->depth--;
	return r;
}

int cfs_nstree_walk(struct cfs_ns *ns, uint64_t ino, const char *top,
		    cfs_nstree_fn *fn, void *arg)
{
	struct walk w = {ns, fn, arg, CFS_BUF_INIT, 0};
	int r;

	cfs_buf_put_str(&w.path, top);
	r = w.path.failed ? -ENOMEM : walk_one(&w, ino);
	cfs_buf_free(&w.path);
	return r;
}

/* ---- making ---- */

static int make_dir(struct cfs_ns *ns, const struct cfs_ns_cred *cred,
		    uint64_t dir, const char *name, mode_t mode,
		    struct stat *st)
{
	int r = cfs_ns_mkdir(ns, cred, dir, name, mode, st);

	if (r == -EEXIST)
		r = cfs_ns_lookup(ns, dir, name, st);
	if (r < 0)
		return r;
	cfs_ns_forget(ns, st->st_ino, 1);
	return S_ISDIR(st->st_mode) ? 0 : -ENOTDIR;
}

int cfs_nstree_mkdirs(struct cfs_ns *ns, const struct cfs_ns_cred *cred,
		      const char *path, uint64_t *ino_out)
{
	uint64_t dir = ROOT;

	while (*path) {
		size_t n = strcspn(path, "/");
		char name[256];
		struct stat st;
		int r;

		if (n >= sizeof(name))
			return -ENAMETOOLONG;
		memcpy(name, path, n);
		name[n] = '\0';
		r = make_dir(ns, cred, dir, name, 0755, &st);
		if (r < 0)
			return r;
		dir = st.st_ino;
		path += n + (path[n] == '/');
	}
	*ino_out = dir;
	return 0;
}

/* ---- removing ---- */

static int remove_at(struct cfs_ns *ns, uint64_t dir, const char *name,
		     uint64_t ino, bool is_dir, unsigned depth)
{
	_cleanup_(cfs_nstree_names_free) struct cfs_nstree_names names = {0};
	size_t i;
	int r = 0;

	if (!is_dir)
		return cfs_ns_unlink(ns, dir, name);
	if (depth > DEEP)
		return -ELOOP;
	r = cfs_nstree_list(ns, ino, &names);
	for (i = 0; !r && i < names.n; i++)
		r = remove_at(ns, ino, names.list[i].name, names.list[i].ino,
			      S_ISDIR(names.list[i].type), depth + 1);
	return r ? r : cfs_ns_rmdir(ns, dir, name);
}

int cfs_nstree_remove(struct cfs_ns *ns, uint64_t dir, const char *name)
{
	struct stat st;
	int r = cfs_ns_lookup(ns, dir, name, &st);

	if (r < 0)
		return r;
	cfs_ns_forget(ns, st.st_ino, 1);
	return remove_at(ns, dir, name, st.st_ino, S_ISDIR(st.st_mode), 0);
}

/* ---- on its way ---- */

/* Tells what this process put there from what is left over. */
static uint64_t own_token(void)
{
	static _Atomic uint64_t token;
	uint64_t t = atomic_load(&token), none = 0, fresh = 0;

	if (t)
		return t;
	if (getrandom(&fresh, sizeof(fresh), 0) != sizeof(fresh))
		fresh = (uint64_t)getpid();
	fresh |= 1;
	return atomic_compare_exchange_strong(&token, &none, fresh) ? fresh
								    : none;
}

int cfs_nstree_trash(struct cfs_ns *ns, uint64_t *dir_out, char name_out[64])
{
	static _Atomic unsigned serial;
	struct cfs_ns_cred cred = {geteuid(), getegid()};
	struct stat st;
	int r;

	r = make_dir(ns, &cred, ROOT, CFS_NSTREE_TRASH, 0700, &st);
	if (r < 0)
		return r;
	/* who could change it would decide what gets a name in the store */
	if ((st.st_uid != cred.uid && st.st_uid) || st.st_mode & 022)
		return -EPERM;
	*dir_out = st.st_ino;
	snprintf(name_out, 64, "%016llx-%u", (unsigned long long)own_token(),
		 atomic_fetch_add(&serial, 1));
	return 0;
}

int cfs_nstree_sweep(struct cfs_ns *ns)
{
	_cleanup_(cfs_nstree_names_free) struct cfs_nstree_names names = {0};
	char own[32];
	struct stat st;
	size_t i;
	int r;

	r = cfs_ns_walk(ns, CFS_NSTREE_TRASH, &st);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!S_ISDIR(st.st_mode))
		return 0; /* somebody's own */
	snprintf(own, sizeof(own), "%016llx-", (unsigned long long)own_token());
	r = cfs_nstree_list(ns, st.st_ino, &names);
	for (i = 0; !r && i < names.n; i++)
		if (strncmp(names.list[i].name, own, strlen(own)) != 0)
			r = remove_at(ns, st.st_ino, names.list[i].name,
				      names.list[i].ino,
				      S_ISDIR(names.list[i].type), 0);
	if (r)
		return r;
	r = cfs_ns_rmdir(ns, ROOT, CFS_NSTREE_TRASH);
	return r == -ENOTEMPTY || r == -ENOENT ? 0 : r;
}
