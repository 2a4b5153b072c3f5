/*
 * An ordered key-value table that holds what replaying the log yields.  Two
 * backends: index_mem, index_rocksdb; one test suite runs over both.
 */
#ifndef CFS_INDEX_INDEX_H
#define CFS_INDEX_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"
#include "store/util/buf.h"

struct cfs_error;
struct cfs_index;
struct cfs_index_iter;

struct cfs_slice {
	const void *data;
	size_t len;
};

/*
 * Puts and deletes in order (store/FORMAT.md, "Batch"): what BATCH records hold
 * and what an index applies at once.
 */
struct cfs_batch {
	struct cfs_buf bytes;
	size_t count;
};
#define CFS_BATCH_INIT                                                         \
	{                                                                      \
		CFS_BUF_INIT, 0                                                \
	}
void cfs_batch_fini(struct cfs_batch *batch); /* for _cleanup_ too */
/* A failed allocation is remembered in @bytes.failed. */
void cfs_batch_put(struct cfs_batch *batch, struct cfs_slice key,
		   struct cfs_slice val);
void cfs_batch_del(struct cfs_batch *batch, struct cfs_slice key);
/* @val NULL: a delete.  Non-zero stops and is returned; -EBADMSG for bytes
 * that are no batch (trusts nothing). */
typedef int cfs_batch_fn(void *arg, struct cfs_slice key,
			 const struct cfs_slice *val);
CFS_MUST_CHECK int cfs_batch_each(const void *data, size_t len,
				  cfs_batch_fn *fn, void *arg);

struct cfs_index_ops {
	/* Any thread.  Appends the value to @val_out; -ENOENT, -EIO. */
	int (*get)(struct cfs_index *index, struct cfs_slice key,
		   struct cfs_buf *val_out);
	/* Atomic; durable only as the log is replayed.  One caller at a time.
	 * -EIO, -ENOSPC: nothing was applied and a later call may succeed. */
	int (*commit)(struct cfs_index *index, const struct cfs_batch *batch);
	/* Keys that begin with @prefix, ascending from @from (within it; empty:
	 * the first), as they are at this moment.  Any thread. */
	int (*iter_new)(struct cfs_index *index, struct cfs_slice prefix,
			struct cfs_slice from, struct cfs_index_iter **out);
	/* Frees index as well; never called with NULL. */
	void (*close)(struct cfs_index *index);
};
struct cfs_index {
	const struct cfs_index_ops *ops;
};

struct cfs_index_iter_ops {
	/* 1 and the next pair (valid until the next call), 0 at the end, or
	 * -EIO. */
	int (*next)(struct cfs_index_iter *iter, struct cfs_slice *key_out,
		    struct cfs_slice *val_out);
	void (*free)(struct cfs_index_iter *iter);
};
struct cfs_index_iter {
	const struct cfs_index_iter_ops *ops;
};
void cfs_index_iter_freep(struct cfs_index_iter **iter);
void cfs_index_close(struct cfs_index *index);

struct cfs_index *cfs_index_mem_new(void); /* NULL: no memory */
/* Creates it where it is not.  -EBADMSG: damaged, to be deleted and rebuilt;
 * its own log is off, so after a crash it is somewhere behind. */
CFS_MUST_CHECK int cfs_index_rocksdb_open(const char *path,
					  struct cfs_index **index_out,
					  struct cfs_error *err);

/* ---- levels: changes not yet in the log, over an index ---- */

/*
 * Changes go to the active level and are seen at once.  freeze() makes the
 * active level the frozen one, which is what a group writes; settle() applies
 * it to the index, thaw() puts it back under the active level.  Any thread.
 */
struct cfs_levels;
struct cfs_levels *cfs_levels_new(struct cfs_index *base); /* borrows */
void cfs_levels_free(struct cfs_levels *levels);
CFS_MUST_CHECK int cfs_levels_get(struct cfs_levels *levels,
				  struct cfs_slice key,
				  struct cfs_buf *val_out);
CFS_MUST_CHECK int cfs_levels_put(struct cfs_levels *levels,
				  struct cfs_slice key, struct cfs_slice val);
CFS_MUST_CHECK int cfs_levels_del(struct cfs_levels *levels,
				  struct cfs_slice key);
/* All of @batch or, on failure, nothing of it. */
CFS_MUST_CHECK int cfs_levels_apply(struct cfs_levels *levels,
				    const struct cfs_batch *batch);
/* As iter_new; sees changes made while it runs or not, never a mixture of two
 * values, never a key twice. */
CFS_MUST_CHECK int cfs_levels_iter(struct cfs_levels *levels,
				   struct cfs_slice prefix,
				   struct cfs_slice from,
				   struct cfs_index_iter **out);
bool cfs_levels_dirty(struct cfs_levels *levels); /* active or frozen */
/* -EBUSY when a frozen level is there already. */
CFS_MUST_CHECK int cfs_levels_freeze(struct cfs_levels *levels);
/* Into the frozen level. */
CFS_MUST_CHECK int cfs_levels_put_frozen(struct cfs_levels *levels,
					 struct cfs_slice key,
					 struct cfs_slice val);
CFS_MUST_CHECK int cfs_levels_del_frozen(struct cfs_levels *levels,
					 struct cfs_slice key);
/* The frozen changes in key order; nobody changes them meanwhile. */
CFS_MUST_CHECK int cfs_levels_each_frozen(struct cfs_levels *levels,
					  cfs_batch_fn *fn, void *arg);
/* Applies the frozen level and @extra (NULL: none) at once to the index. */
CFS_MUST_CHECK int cfs_levels_settle(struct cfs_levels *levels,
				     const struct cfs_batch *extra);
/* What the active level does not say anew is active again. */
CFS_MUST_CHECK int cfs_levels_thaw(struct cfs_levels *levels);

#endif
