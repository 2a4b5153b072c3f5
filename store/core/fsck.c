/*
 * fsck: is the namespace whole in itself?  It looks at the index, which holds
 * what whole groups left, not at the levels, where a change may be half told:
 * so it runs beside others that change names.
 */
#include "store/core/fsck_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "store/util/endian.h"
#include "store/util/error.h"
#include "store/util/log.h"

#define PROGRESS_KEYS 1024u
#define OPEN_TRIES    100

static int tell(struct cfs_fsck *f)
{
	const struct cfs_job_control *c = f->control;

	if (f->keys++ % PROGRESS_KEYS || !c || !c->progress)
		return 0;
	return c->progress(c->arg, f->keys, 0, f->what) ? 0 : -ECANCELED;
}

int cfs_fsck_next(struct cfs_fsck *f, char class, struct cfs_slice *key,
		  struct cfs_slice *val)
{
	size_t i = (size_t)(strchr(CFS_FSCK_CLASSES, class) - CFS_FSCK_CLASSES);
	int r = tell(f);

	return r < 0 ? r : f->iters[i]->ops->next(f->iters[i], key, val);
}

struct cfs_fsck_inode *cfs_fsck_inode(struct cfs_fsck *f, uint64_t ino)
{
	size_t lo = 0, hi = f->n_inodes;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (f->inodes[mid].ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < f->n_inodes && f->inodes[lo].ino == ino)
		return &f->inodes[lo];
	return NULL;
}

/* ---- one moment ---- */

static void close_all(struct cfs_fsck *f)
{
	for (size_t i = 0; i < CFS_FSCK_N; i++) {
		cfs_index_iter_freep(&f->iters[i]);
		f->iters[i] = NULL;
	}
}

static int get_applied(struct cfs_index *index, struct cfs_buf *out)
{
	struct cfs_key key;
	int r;

	cfs_key_applied(&key);
	cfs_buf_reset(out);
	r = index->ops->get(index, cfs_key_slice(&key), out);
	return r == -ENOENT ? 0 : r;
}

static bool same(const struct cfs_buf *a, const struct cfs_buf *b)
{
	return a->len == b->len &&
	       (!a->len || !memcmp(a->data, b->data, a->len));
}

/* Every group changes `t`: where it stands still, iterators are of one
 * moment.  -EAGAIN: it did not. */
static int try_open(struct cfs_fsck *f)
{
	_cleanup_(cfs_buf_free) struct cfs_buf before = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf after = CFS_BUF_INIT;
	struct cfs_index *index = f->store->index;
	int r = get_applied(index, &before);

	for (size_t i = 0; r == 0 && i < CFS_FSCK_N; i++) {
		struct cfs_key key;

		cfs_key_prefix(&key, CFS_FSCK_CLASSES[i], 0);
		r = index->ops->iter_new(index, cfs_key_slice(&key),
					 (struct cfs_slice){NULL, 0},
					 &f->iters[i]);
	}
	if (r == 0)
		r = get_applied(index, &after);
	if (r == 0 && !same(&before, &after))
		r = -EAGAIN;
	if (r < 0)
		close_all(f);
	return r;
}

static int open_all(struct cfs_fsck *f)
{
	int r = -EAGAIN;

	for (int i = 0; r == -EAGAIN && i < OPEN_TRIES; i++)
		r = try_open(f);
	return r;
}

/* ---- inodes and what hangs on them ---- */

static bool mode_ok(const struct cfs_inode_record *rec)
{
	switch (rec->mode & S_IFMT) {
	case S_IFREG:
		return true;
	case S_IFLNK:
		return rec->content != CFS_CONTENT_NONE;
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return rec->content == CFS_CONTENT_NONE;
	default:
		return false;
	}
}

static int add_inode(struct cfs_fsck *f, uint64_t ino,
		     const struct cfs_inode_record *rec)
{
	if (f->n_inodes == f->inodes_cap) {
		size_t cap = CFS_MAX(f->inodes_cap * 2, (size_t)1024);
		void *v = realloc(f->inodes, cap * sizeof(*f->inodes));

		if (!v)
			return -ENOMEM;
		f->inodes = v;
		f->inodes_cap = cap;
	}
	f->inodes[f->n_inodes++] = (struct cfs_fsck_inode){
		.ino = ino,
		.parent = rec->parent,
		.mode = rec->mode,
		.nlink = rec->nlink,
		.content = rec->content,
	};
	if (!mode_ok(rec))
		cfs_fsck_problem(f, "inode %llu: mode %o with content %d",
				 (unsigned long long)ino, rec->mode,
				 (int)rec->content);
	return rec->content == CFS_CONTENT_SEALED
		       ? cfs_fsck_map(f, ino, &rec->map)
		       : 0;
}

static int check_inodes(struct cfs_fsck *f)
{
	struct cfs_inode_record rec;
	struct cfs_slice key, val;
	uint64_t ino;
	int r;

	f->what = "inodes";
	while ((r = cfs_fsck_next(f, 'i', &key, &val)) > 0) {
		f->result.inodes++;
		if (cfs_key_parse_ino(key, &ino) < 0) {
			cfs_fsck_problem(f, "a key of an inode is damaged");
			continue;
		}
		r = cfs_inode_decode(val.data, val.len, &rec);
		if (r < 0) {
			cfs_fsck_problem(f, "inode %llu: %s",
					 (unsigned long long)ino, strerror(-r));
			continue;
		}
		r = add_inode(f, ino, &rec);
		if (r < 0)
			return r;
	}
	return r;
}

/* @last: the extent before, of whatever inode. */
static void check_extent(struct cfs_fsck *f, struct cfs_slice key,
			 struct cfs_slice val, uint64_t *last_ino,
			 uint64_t *last_end)
{
	const struct cfs_fsck_inode *inode;
	struct cfs_extent e;
	uint64_t ino, off;

	if (cfs_key_parse_u64(key, &ino, &off) < 0) {
		cfs_fsck_problem(f, "a key of an extent is damaged");
		return;
	}
	if (cfs_extent_decode(off, val.data, val.len, &e) < 0) {
		cfs_fsck_problem(f, "inode %llu: extent at %llu is damaged",
				 (unsigned long long)ino,
				 (unsigned long long)off);
		return;
	}
	inode = cfs_fsck_inode(f, ino);
	if (!inode || inode->content != CFS_CONTENT_EXTENTS)
		cfs_fsck_problem(f, "inode %llu %s, but has an extent at %llu",
				 (unsigned long long)ino,
				 inode ? "has other content" : "is missing",
				 (unsigned long long)off);
	if (ino == *last_ino && off < *last_end)
		cfs_fsck_problem(f, "inode %llu: extents overlap at %llu",
				 (unsigned long long)ino,
				 (unsigned long long)off);
	*last_ino = ino;
	*last_end = off + e.len;
	if (!cfs_fsck_extent(f, ino, &e))
		cfs_fsck_affected(f, ino);
}

static int check_extents(struct cfs_fsck *f)
{
	uint64_t last_ino = 0, last_end = 0;
	struct cfs_slice key, val;
	int r;

	f->what = "extents";
	while ((r = cfs_fsck_next(f, 'e', &key, &val)) > 0)
		check_extent(f, key, val, &last_ino, &last_end);
	return r;
}

static int check_orphans(struct cfs_fsck *f)
{
	struct cfs_slice key, val;
	uint64_t ino;
	int r;

	f->what = "orphans";
	while ((r = cfs_fsck_next(f, 'o', &key, &val)) > 0) {
		struct cfs_fsck_inode *inode;

		if (cfs_key_parse_ino(key, &ino) < 0) {
			cfs_fsck_problem(f, "a key of an orphan is damaged");
			continue;
		}
		inode = cfs_fsck_inode(f, ino);
		if (inode)
			inode->orphan = true;
		else
			cfs_fsck_problem(f, "orphan %llu: no such inode",
					 (unsigned long long)ino);
	}
	return r;
}

static int check_xattrs(struct cfs_fsck *f)
{
	struct cfs_slice key, val;
	const char *name;
	uint64_t ino;
	size_t len;
	int r;

	f->what = "attributes";
	while ((r = cfs_fsck_next(f, 'x', &key, &val)) > 0) {
		if (cfs_key_parse_name(key, &ino, &name, &len) < 0)
			cfs_fsck_problem(f, "a key of an attribute is damaged");
		else if (!cfs_fsck_inode(f, ino))
			cfs_fsck_problem(
				f,
				"attribute %.*s of inode %llu: no such inode",
				(int)len, name, (unsigned long long)ino);
	}
	return r;
}

/* A counter must be beyond everything that was numbered by it. */
static void check_counter(struct cfs_fsck *f, struct cfs_slice key,
			  struct cfs_slice val, const char *name, uint64_t max)
{
	if (key.len != 1 + strlen(name) ||
	    memcmp((const char *)key.data + 1, name, key.len - 1) != 0)
		return;
	if (val.len != 8 || cfs_get_le64(val.data) <= max)
		cfs_fsck_problem(f, "setting %s is not above %llu", name,
				 (unsigned long long)max);
}

static int check_settings(struct cfs_fsck *f)
{
	uint64_t ino = f->n_inodes ? f->inodes[f->n_inodes - 1].ino : 0;
	struct cfs_slice key, val;
	int r;

	f->what = "settings";
	while ((r = cfs_fsck_next(f, 's', &key, &val)) > 0) {
		check_counter(f, key, val, "next_ino", ino);
		check_counter(f, key, val, "next_cookie", f->cookie_max);
	}
	return r;
}

static int check_all(struct cfs_fsck *f)
{
	static int (*const steps[])(struct cfs_fsck *) = {
		cfs_fsck_load_objects, check_inodes,   check_extents,
		check_orphans,	       cfs_fsck_names, check_xattrs,
		check_settings,
	};
	int r = open_all(f);

	for (size_t i = 0; r == 0 && i < CFS_ARRAY_SIZE(steps); i++)
		r = steps[i](f);
	if (r == 0)
		cfs_fsck_links(f);
	if (r == 0)
		cfs_fsck_files_end(f);
	return r;
}

static void fini(struct cfs_fsck *f)
{
	close_all(f);
	cfs_fsck_objects_fini(f);
	free(f->inodes);
}

int cfs_store_fsck(struct cfs_store *store,
		   const struct cfs_job_control *control,
		   struct cfs_fsck_result *result_out, struct cfs_error *err)
{
	struct cfs_fsck f = {.store = store, .control = control, .what = ""};
	int r = cfs_store_commit(store);

	if (r < 0) /* what was durable before can be checked all the same */
		(void)cfs_log_err(r, "fsck: the newest changes are not in it");
	f.result.problems = cfs_loss_tell(store, control);
	r = check_all(&f);
	fini(&f);
	if (r == -ECANCELED)
		return r;
	if (r < 0)
		return cfs_fail(err, r, "fsck, at %s: %s", f.what,
				strerror(-r));
	*result_out = f.result;
	return 0;
}

int cfs_fsck_content(struct cfs_store *store,
		     const struct cfs_job_control *control,
		     const struct cfs_fsck_bad *bad, uint64_t *missing_out,
		     uint64_t *files_out)
{
	struct cfs_fsck f = {.store = store,
			     .control = control,
			     .what = "",
			     .content_only = true};
	int r = cfs_store_commit(store);

	if (r < 0) /* what was durable before can be checked all the same */
		(void)cfs_log_err(r, "scrub: the newest changes are not in it");
	r = open_all(&f);
	if (r == 0)
		r = cfs_fsck_load_objects(&f);
	if (r == 0) {
		cfs_fsck_mark_bad(&f, bad);
		r = check_inodes(&f);
	}
	if (r == 0)
		r = check_extents(&f);
	if (r == 0 && f.affected)
		r = cfs_fsck_names(&f);
	if (r == 0) {
		cfs_fsck_files_end(&f);
		*missing_out = f.missing;
		*files_out = f.result.files;
	}
	fini(&f);
	return r;
}
