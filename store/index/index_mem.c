/* The twin in memory: one tree, a commit swaps its root. */
#include <errno.h>
#include <pthread.h>

#include "store/index/index.h"
#include "store/index/merge.h"
#include "store/index/tree.h"

struct mem {
	struct cfs_index base;
	pthread_mutex_t lock;
	struct cfs_memtree *root; /* guarded by lock */
};

static struct mem *mem_of(struct cfs_index *index)
{
	return container_of(index, struct mem, base);
}

static struct cfs_memtree *snapshot(struct mem *m)
{
	struct cfs_memtree *root;

	(void)pthread_mutex_lock(&m->lock);
	root = cfs_memtree_ref(m->root);
	(void)pthread_mutex_unlock(&m->lock);
	return root;
}

static int mem_get(struct cfs_index *index, struct cfs_slice key,
		   struct cfs_buf *val_out)
{
	_cleanup_(cfs_memtree_unrefp) struct cfs_memtree *root =
		snapshot(mem_of(index));
	const struct cfs_memtree_item *item = cfs_memtree_get(root, key);
	struct cfs_slice val;

	if (!item)
		return -ENOENT;
	val = cfs_memtree_item_val(item);
	cfs_buf_put(val_out, val.data, val.len);
	return val_out->failed ? -ENOMEM : 0;
}

static int apply(void *arg, struct cfs_slice key, const struct cfs_slice *val)
{
	struct cfs_memtree **root = arg;
	int r = val ? cfs_memtree_put(root, key, val)
		    : cfs_memtree_remove(root, key);

	return r < 0 ? r : 0;
}

static int mem_commit(struct cfs_index *index, const struct cfs_batch *batch)
{
	struct mem *m = mem_of(index);
	_cleanup_(cfs_memtree_unrefp) struct cfs_memtree *root = snapshot(m);
	struct cfs_memtree *old;
	int r;

	if (batch->bytes.failed)
		return -ENOMEM;
	r = cfs_batch_each(batch->bytes.data, batch->bytes.len, apply, &root);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&m->lock);
	old = m->root;
	m->root = root;
	(void)pthread_mutex_unlock(&m->lock);
	root = old; /* dropped outside of the lock: it may be all of it */
	return 0;
}

static int mem_iter_new(struct cfs_index *index, struct cfs_slice prefix,
			struct cfs_slice from, struct cfs_index_iter **out)
{
	_cleanup_(cfs_memtree_unrefp) struct cfs_memtree *root =
		snapshot(mem_of(index));
	struct cfs_memtree *const roots[CFS_MERGE_TREES] = {root, NULL};

	return cfs_merge_new(roots, NULL, prefix, from, out);
}

static void mem_close(struct cfs_index *index)
{
	struct mem *m = mem_of(index);

	cfs_memtree_unref(m->root);
	(void)pthread_mutex_destroy(&m->lock);
	free(m);
}

struct cfs_index *cfs_index_mem_new(void)
{
	static const struct cfs_index_ops ops = {
		.get = mem_get,
		.commit = mem_commit,
		.iter_new = mem_iter_new,
		.close = mem_close,
	};
	struct mem *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->base.ops = &ops;
	(void)pthread_mutex_init(&m->lock, NULL);
	return &m->base;
}
