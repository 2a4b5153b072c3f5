/*
 * A snapshot: a group whose batches are the whole namespace, made from the
 * index right after a group settled, so it is exactly that group's state.
 */
#include "store/core/store_internal.h"

#include <errno.h>

#include "store/util/log.h"

/* One cursor over the index, whose frozen level is empty. */
static int add_all(struct cfs_store *s, struct cfs_batcher *b)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *it = NULL;
	static const struct cfs_slice all = {"", 0};
	struct cfs_slice key, val;
	int r;

	r = s->index->ops->iter_new(s->index, all, all, &it);
	if (r < 0)
		return r;
	while ((r = it->ops->next(it, &key, &val)) > 0) {
		r = cfs_batcher_add(b, key, &val);
		if (r < 0)
			return r;
	}
	return r;
}

static int append_and_sync(struct cfs_store *s, struct cfs_batcher *b,
			   struct cfs_digest *digest)
{
	int r = add_all(s, b);

	if (r == 0)
		r = cfs_batcher_end(b, digest);
	if (r < 0)
		return r;
	r = cfs_packs_sync(s->packs);
	if (r < 0)
		s->sync_failed = true;
	return r;
}

int cfs_snapshot_write(struct cfs_store *store, struct cfs_position from)
{
	_cleanup_(cfs_batcher_fini) struct cfs_batcher b;
	struct cfs_batch t = CFS_BATCH_INIT;
	struct cfs_applied a = {.from = from};
	struct cfs_digest digest;
	int r;

	r = cfs_batcher_init(&b, store, CFS_GROUP_SNAPSHOT);
	if (r == 0)
		r = append_and_sync(store, &b, &digest);
	if (r < 0)
		return cfs_log_err(r, "store %s: no snapshot of the namespace",
				   store->path);
	store->group_digest = digest;
	store->last_clean = false;
	store->batch_bytes = 0;
	store->snapshot_bytes = b.bytes;
	a.group = atomic_fetch_add_explicit(&store->group, 1,
					    memory_order_relaxed) +
		  1;
	a.digest = digest;
	cfs_applied_put(&t, &a);
	/* An index that does not hear of it is one group behind. */
	if (!t.bytes.failed)
		(void)(store->index->ops->commit(store->index, &t) < 0);
	cfs_batch_fini(&t);
	cfs_packs_set_snapshot(store->packs, b.first);
	store->snapshot_at = b.first;
	return 0;
}

int cfs_gc_snapshot(struct cfs_store *store, struct cfs_position *at_out)
{
	int r = cfs_group_commit(store, CFS_WISH_SNAPSHOT);

	if (r == 0)
		r = store->snapshot_result;
	if (r == 0)
		r = cfs_packs_roll(store->packs);
	/* Something must follow, or no pack's head names the snapshot. */
	if (r == 0)
		r = cfs_group_commit(store, CFS_WISH_GROUP);
	if (r == 0)
		*at_out = store->snapshot_at;
	return r;
}
