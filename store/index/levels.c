/*
 * The active level over the frozen one over the index.  A level is a tree
 * whose root is swapped under the lock; who iterates holds roots of his own.
 * The lock is never held across I/O: what settle() applies stays visible as
 * the frozen level until the index has it, so the order of looking (active,
 * frozen, index) never misses anything.
 */
#include <errno.h>
#include <pthread.h>

#include "store/index/index.h"
#include "store/index/merge.h"
#include "store/index/tree.h"

struct cfs_levels {
	struct cfs_index *under;
	pthread_rwlock_t lock;
	/* guarded by lock */
	struct cfs_memtree *active, *frozen;
	bool is_frozen; /* there is a frozen level, maybe empty */
};

struct cfs_levels *cfs_levels_new(struct cfs_index *base)
{
	struct cfs_levels *levels = calloc(1, sizeof(*levels));
	pthread_rwlockattr_t attr;

	if (!levels)
		return NULL;
	levels->under = base;
	(void)pthread_rwlockattr_init(&attr);
	/* many readers must not keep a writer waiting for ever */
	(void)pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	(void)pthread_rwlock_init(&levels->lock, &attr);
	(void)pthread_rwlockattr_destroy(&attr);
	return levels;
}

void cfs_levels_free(struct cfs_levels *levels)
{
	if (!levels)
		return;
	cfs_memtree_unref(levels->active);
	cfs_memtree_unref(levels->frozen);
	(void)pthread_rwlock_destroy(&levels->lock);
	free(levels);
}

int cfs_levels_get(struct cfs_levels *levels, struct cfs_slice key,
		   struct cfs_buf *val_out)
{
	const struct cfs_memtree_item *item;
	bool deleted = false;

	(void)pthread_rwlock_rdlock(&levels->lock);
	item = cfs_memtree_get(levels->active, key);
	if (!item)
		item = cfs_memtree_get(levels->frozen, key);
	if (item) {
		struct cfs_slice val = cfs_memtree_item_val(item);

		deleted = item->deleted;
		cfs_buf_put(val_out, val.data, val.len);
	}
	(void)pthread_rwlock_unlock(&levels->lock);
	if (!item)
		return levels->under->ops->get(levels->under, key, val_out);
	if (deleted)
		return -ENOENT;
	return val_out->failed ? -ENOMEM : 0;
}

static int change_active(struct cfs_levels *levels, struct cfs_slice key,
			 const struct cfs_slice *val)
{
	int r;

	(void)pthread_rwlock_wrlock(&levels->lock);
	r = cfs_memtree_put(&levels->active, key, val);
	(void)pthread_rwlock_unlock(&levels->lock);
	return r < 0 ? r : 0;
}

int cfs_levels_put(struct cfs_levels *levels, struct cfs_slice key,
		   struct cfs_slice val)
{
	return change_active(levels, key, &val);
}

int cfs_levels_del(struct cfs_levels *levels, struct cfs_slice key)
{
	return change_active(levels, key, NULL);
}

static int change_frozen(struct cfs_levels *levels, struct cfs_slice key,
			 const struct cfs_slice *val)
{
	int r = -EINVAL;

	(void)pthread_rwlock_wrlock(&levels->lock);
	if (levels->is_frozen)
		r = cfs_memtree_put(&levels->frozen, key, val);
	(void)pthread_rwlock_unlock(&levels->lock);
	return r < 0 ? r : 0;
}

int cfs_levels_put_frozen(struct cfs_levels *levels, struct cfs_slice key,
			  struct cfs_slice val)
{
	return change_frozen(levels, key, &val);
}

int cfs_levels_del_frozen(struct cfs_levels *levels, struct cfs_slice key)
{
	return change_frozen(levels, key, NULL);
}

int cfs_levels_iter(struct cfs_levels *levels, struct cfs_slice prefix,
		    struct cfs_slice from, struct cfs_index_iter **out)
{
	struct cfs_index *under = levels->under;
	struct cfs_index_iter *below = NULL;
	int r;

	/* all three at one moment; opening an iterator reads nothing yet */
	(void)pthread_rwlock_rdlock(&levels->lock);
	r = under->ops->iter_new(under, prefix, from, &below);
	if (!r) {
		struct cfs_memtree *const roots[CFS_MERGE_TREES] = {
			levels->active, levels->frozen};

		r = cfs_merge_new(roots, below, prefix, from, out);
	}
	(void)pthread_rwlock_unlock(&levels->lock);
	return r;
}

bool cfs_levels_dirty(struct cfs_levels *levels)
{
	bool dirty;

	(void)pthread_rwlock_rdlock(&levels->lock);
	dirty = levels->active || levels->frozen;
	(void)pthread_rwlock_unlock(&levels->lock);
	return dirty;
}

int cfs_levels_freeze(struct cfs_levels *levels)
{
	int r = -EBUSY;

	(void)pthread_rwlock_wrlock(&levels->lock);
	if (!levels->is_frozen) {
		levels->frozen = cfs_steal(levels->active);
		levels->is_frozen = true;
		r = 0;
	}
	(void)pthread_rwlock_unlock(&levels->lock);
	return r;
}

static int each(const struct cfs_memtree *root, cfs_batch_fn *fn, void *arg)
{
	const struct cfs_memtree_item *item =
		cfs_memtree_seek(root, (struct cfs_slice){NULL, 0}, false);

	for (; item;
	     item = cfs_memtree_seek(root, cfs_memtree_item_key(item), true)) {
		struct cfs_slice val = cfs_memtree_item_val(item);
		int r = fn(arg, cfs_memtree_item_key(item),
			   item->deleted ? NULL : &val);

		if (r)
			return r;
	}
	return 0;
}

static struct cfs_memtree *frozen_ref(struct cfs_levels *levels)
{
	struct cfs_memtree *root;

	(void)pthread_rwlock_rdlock(&levels->lock);
	root = cfs_memtree_ref(levels->frozen);
	(void)pthread_rwlock_unlock(&levels->lock);
	return root;
}

int cfs_levels_each_frozen(struct cfs_levels *levels, cfs_batch_fn *fn,
			   void *arg)
{
	_cleanup_(cfs_memtree_unrefp) struct cfs_memtree *root =
		frozen_ref(levels);

	return each(root, fn, arg);
}

static int add_to_batch(void *arg, struct cfs_slice key,
			const struct cfs_slice *val)
{
	struct cfs_batch *batch = arg;

	if (val)
		cfs_batch_put(batch, key, *val);
	else
		cfs_batch_del(batch, key);
	return batch->bytes.failed ? -ENOMEM : 0;
}

int cfs_levels_settle(struct cfs_levels *levels, const struct cfs_batch *extra)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch batch = CFS_BATCH_INIT;
	struct cfs_memtree *root;
	int r = cfs_levels_each_frozen(levels, add_to_batch, &batch);

	if (!r && extra && extra->bytes.failed)
		r = -ENOMEM;
	if (!r && extra)
		r = cfs_batch_each(extra->bytes.data, extra->bytes.len,
				   add_to_batch, &batch);
	if (!r)
		r = levels->under->ops->commit(levels->under, &batch);
	if (r < 0)
		return r;
	(void)pthread_rwlock_wrlock(&levels->lock);
	root = cfs_steal(levels->frozen);
	levels->is_frozen = false;
	(void)pthread_rwlock_unlock(&levels->lock);
	cfs_memtree_unref(root); /* outside of the lock: it may be large */
	return 0;
}

static int put_over(void *arg, struct cfs_slice key,
		    const struct cfs_slice *val)
{
	int r = cfs_memtree_put(arg, key, val);

	return r < 0 ? r : 0;
}

int cfs_levels_apply(struct cfs_levels *levels, const struct cfs_batch *batch)
{
	int r;

	if (batch->bytes.failed)
		return -ENOMEM;
	(void)pthread_rwlock_wrlock(&levels->lock);
	r = cfs_memtree_apply(&levels->active, batch);
	(void)pthread_rwlock_unlock(&levels->lock);
	return r < 0 ? r : 0;
}

/* A failure leaves both levels as they were, so that it can be called again. */
int cfs_levels_thaw(struct cfs_levels *levels)
{
	struct cfs_memtree *joined, *active = NULL, *frozen = NULL;
	int r;

	(void)pthread_rwlock_wrlock(&levels->lock);
	joined = cfs_memtree_ref(levels->frozen);
	r = each(levels->active, put_over, &joined);
	if (!r) {
		active = levels->active;
		frozen = cfs_steal(levels->frozen);
		levels->active = cfs_steal(joined);
		levels->is_frozen = false;
	}
	(void)pthread_rwlock_unlock(&levels->lock);
	cfs_memtree_unref(joined);
	cfs_memtree_unref(active);
	cfs_memtree_unref(frozen);
	return r;
}
