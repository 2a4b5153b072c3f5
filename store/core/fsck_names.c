/* Names lead to inodes, cookies to names, counts agree, all hangs on the root.
 */
#include "store/core/fsck_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "store/util/hash.h"

typedef unsigned long long ull;

/* ---- one directory at a time: its names against its cookies ---- */

struct entry {
	uint64_t cookie, name_hash;
};

struct directory {
	uint64_t ino; /* 0: none yet */
	struct entry *v;
	size_t n, cap;
};

struct cookies { /* where the other walk stands */
	struct cfs_slice key, val;
	uint64_t dir, cookie;
	bool valid;
};

static int next_cookie(struct cfs_fsck *f, struct cookies *c)
{
	int r;

	while ((r = cfs_fsck_next(f, 'D', &c->key, &c->val)) > 0) {
		if (!cfs_key_parse_u64(c->key, &c->dir, &c->cookie))
			break;
		cfs_fsck_problem(f, "a key of a cookie is damaged");
	}
	c->valid = r > 0;
	if (c->valid)
		f->cookie_max = CFS_MAX(f->cookie_max, c->cookie);
	return r < 0 ? r : 0;
}

static int by_cookie(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return (x->cookie > y->cookie) - (x->cookie < y->cookie);
}

/* Cookies of directory @dir: @dir's entries, sorted, must be the same.  Those
 * of directories before it have no names at all. */
static int match_cookies(struct cfs_fsck *f, const struct directory *d,
			 struct cookies *c)
{
	size_t i = 0;
	int r = 0;

	while (r == 0 && c->valid && c->dir <= d->ino) {
		uint64_t hash = cfs_hash64(c->val.data, c->val.len, 0);
		bool here = c->dir == d->ino;

		for (; here && i < d->n && d->v[i].cookie < c->cookie; i++)
			cfs_fsck_problem(f,
					 "directory %llu: the name of cookie "
					 "%llu is not listed",
					 (ull)d->ino, (ull)d->v[i].cookie);
		if (here && i < d->n && d->v[i].cookie == c->cookie &&
		    d->v[i].name_hash == hash)
			i++;
		else
			cfs_fsck_problem(f,
					 "directory %llu: cookie %llu lists "
					 "%.*s, which is not there",
					 (ull)c->dir, (ull)c->cookie,
					 (int)CFS_MIN(c->val.len, CFS_NAME_MAX),
					 (const char *)c->val.data);
		r = next_cookie(f, c);
	}
	for (; r == 0 && i < d->n; i++)
		cfs_fsck_problem(
			f,
			"directory %llu: the name of cookie %llu is not listed",
			(ull)d->ino, (ull)d->v[i].cookie);
	return r;
}

/* All names of @d are known. */
static int end_directory(struct cfs_fsck *f, struct directory *d,
			 struct cookies *c)
{
	int r = 0;

	if (d->n)
		qsort(d->v, d->n, sizeof(*d->v), by_cookie);
	if (d->ino)
		r = match_cookies(f, d, c);
	d->n = 0;
	return r;
}

static int add_entry(struct directory *d, uint64_t cookie, const char *name,
		     size_t len)
{
	if (d->n == d->cap) {
		size_t cap = CFS_MAX(d->cap * 2, (size_t)64);
		void *v = realloc(d->v, cap * sizeof(*d->v));

		if (!v)
			return -ENOMEM;
		d->v = v;
		d->cap = cap;
	}
	d->v[d->n++] = (struct entry){cookie, cfs_hash64(name, len, 0)};
	return 0;
}

/* ---- one name ---- */

static int check_target(struct cfs_fsck *f, uint64_t dir, const char *name,
			size_t len, const struct cfs_dirent_value *v)
{
	struct cfs_fsck_inode *inode = cfs_fsck_inode(f, v->ino);
	struct cfs_fsck_inode *parent = cfs_fsck_inode(f, dir);
	bool is_dir = inode && S_ISDIR(inode->mode);

	if (!parent || !S_ISDIR(parent->mode))
		cfs_fsck_problem(f, "%.*s is in %llu, which is no directory",
				 (int)len, name, (ull)dir);
	if (!inode) {
		cfs_fsck_problem(f,
				 "directory %llu: %.*s leads to inode %llu, "
				 "which is missing",
				 (ull)dir, (int)len, name, (ull)v->ino);
		return 0;
	}
	inode->names++;
	if (is_dir && parent)
		parent->subdirs++;
	if (v->type != (inode->mode & S_IFMT) >> 12)
		cfs_fsck_problem(f,
				 "directory %llu: %.*s has another type than "
				 "inode %llu",
				 (ull)dir, (int)len, name, (ull)v->ino);
	if (is_dir && inode->parent != dir)
		cfs_fsck_problem(f,
				 "directory %llu is %.*s in %llu, but says it "
				 "is in %llu",
				 (ull)v->ino, (int)len, name, (ull)dir,
				 (ull)inode->parent);
	return inode->affected ? cfs_fsck_file(f, dir, name, len) : 0;
}

static int check_name(struct cfs_fsck *f, struct cfs_slice key,
		      struct cfs_slice val, struct directory *d,
		      struct cookies *c)
{
	struct cfs_dirent_value v;
	const char *name;
	uint64_t dir;
	size_t len;
	int r;

	f->result.dirents++;
	if (cfs_key_parse_name(key, &dir, &name, &len) < 0) {
		cfs_fsck_problem(f, "a key of a name is damaged");
		return 0;
	}
	if (dir != d->ino) {
		r = end_directory(f, d, c);
		if (r < 0)
			return r;
		d->ino = dir;
	}
	if (cfs_dirent_decode(val.data, val.len, &v) < 0) {
		cfs_fsck_problem(f, "directory %llu: %.*s is damaged", (ull)dir,
				 (int)len, name);
		return 0;
	}
	r = check_target(f, dir, name, len, &v);
	return r < 0 ? r : add_entry(d, v.cookie, name, len);
}

int cfs_fsck_names(struct cfs_fsck *f)
{
	struct directory d = {0};
	struct cookies c = {0};
	struct cfs_slice key, val;
	int r, more = 0;

	f->what = "names";
	r = next_cookie(f, &c);
	while (r == 0 && (more = cfs_fsck_next(f, 'd', &key, &val)) > 0)
		r = check_name(f, key, val, &d, &c);
	if (more < 0)
		r = more;
	if (r == 0)
		r = end_directory(f, &d, &c);
	d.ino = UINT64_MAX; /* cookies that are left have no names */
	if (r == 0)
		r = end_directory(f, &d, &c);
	free(d.v);
	return r;
}

/* ---- counts, and the way to the root ---- */

static void check_links(struct cfs_fsck *f, const struct cfs_fsck_inode *i)
{
	uint32_t want = S_ISDIR(i->mode) ? 2 + i->subdirs : i->names;
	uint32_t names = i->ino == CFS_ROOT_INO ? 0 : 1;

	if (i->orphan) {
		if (i->names || i->nlink)
			cfs_fsck_problem(f, "inode %llu: an orphan with names",
					 (ull)i->ino);
		return;
	}
	if (!i->names && names)
		cfs_fsck_problem(f, "inode %llu has no name", (ull)i->ino);
	else if (i->nlink != want)
		cfs_fsck_problem(f, "inode %llu: %u links instead of %u",
				 (ull)i->ino, i->nlink, want);
	if (S_ISDIR(i->mode) && i->names > names)
		cfs_fsck_problem(f, "directory %llu has %u names", (ull)i->ino,
				 i->names);
}

enum { /* cfs_fsck_inode.reached */
	UNKNOWN,
	UNDER_WAY,
	GOOD,
	TOLD /* not reached, and said so */
};

/* Upwards until something known; then the same way again, to note it. */
static void check_way(struct cfs_fsck *f, struct cfs_fsck_inode *i)
{
	struct cfs_fsck_inode *at = i;
	uint8_t answer;

	while (at && at->reached == UNKNOWN && at->ino != CFS_ROOT_INO) {
		at->reached = UNDER_WAY;
		at = cfs_fsck_inode(f, at->parent);
	}
	answer = at && (at->ino == CFS_ROOT_INO || at->reached == GOOD) ? GOOD
									: TOLD;
	if (at && at->reached == UNDER_WAY)
		cfs_fsck_problem(f, "directory %llu is below itself",
				 (ull)at->ino);
	for (at = i; at && at->reached == UNDER_WAY;
	     at = cfs_fsck_inode(f, at->parent))
		at->reached = answer;
}

void cfs_fsck_links(struct cfs_fsck *f)
{
	const struct cfs_fsck_inode *root = cfs_fsck_inode(f, CFS_ROOT_INO);

	if (f->n_inodes && (!root || !S_ISDIR(root->mode)))
		cfs_fsck_problem(f, "there is no root directory");
	for (size_t n = 0; n < f->n_inodes; n++) {
		struct cfs_fsck_inode *i = &f->inodes[n];

		check_links(f, i);
		/* a directory whose parent is missing was told as such */
		if (S_ISDIR(i->mode) && !i->orphan)
			check_way(f, i);
	}
}
