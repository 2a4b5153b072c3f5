/*
 * The way out of a damaged log: the newest state that it proves, or that the
 * index has, becomes a snapshot in packs of their own.  What was there before
 * stays as it is, and holds objects only.
 *
 *   damaged ··· packs ··· │ PACK (no pack before it; the snapshot is in here),
 *   objects still count   │ BATCH …, GROUP, and the log goes on
 */
#include "store/core/store_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/log.h"

#define KEYS_AT_ONCE 4096u

static int flush(struct cfs_index *to, struct cfs_batch *batch)
{
	int r = batch->bytes.failed ? -ENOMEM : 0;

	if (r == 0 && batch->count)
		r = to->ops->commit(to, batch);
	cfs_batch_fini(batch);
	*batch = (struct cfs_batch)CFS_BATCH_INIT;
	return r;
}

/* What is in groups: where objects are is told by the packs there are. */
static int copy(struct cfs_index *from, struct cfs_index *to)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch batch = CFS_BATCH_INIT;
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *it = NULL;
	static const struct cfs_slice all = {"", 0};
	struct cfs_slice key, val;
	int r = cfs_openindex_empty(to);

	if (r == 0)
		r = from->ops->iter_new(from, all, all, &it);
	while (r == 0 && (r = it->ops->next(it, &key, &val)) > 0) {
		if (cfs_key_is_logged(key))
			cfs_batch_put(&batch, key, val);
		r = batch.count < KEYS_AT_ONCE ? 0 : flush(to, &batch);
	}
	return r < 0 ? r : flush(to, &batch);
}

/* From the newest snapshot, or, where that does not hold, from any. */
static int read_log(struct cfs_store *s, struct cfs_recovered *found)
{
	int r;

	s->salvage = CFS_SALVAGE_SOME;
	r = cfs_replay(s, true, found, NULL);
	if (r != -EBADMSG && (r < 0 || found->group))
		return r;
	s->salvage = CFS_SALVAGE_ALL;
	r = cfs_openindex_empty(s->index);
	if (r == 0)
		r = cfs_replay(s, true, found, NULL);
	return r == -EBADMSG ? 0 : r;
}

/* It has what was synced, so the log had it, too. */
static int take_index(struct cfs_store *s, struct cfs_index *before,
		      struct cfs_recovered *found)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_applied a = {0};
	struct cfs_key key;
	int r;

	cfs_key_applied(&key);
	r = before->ops->get(before, cfs_key_slice(&key), &buf);
	if (r == 0)
		r = cfs_applied_decode(buf.data, buf.len, &a);
	if (r == -ENOENT || r == -EBADMSG ||
	    (r == 0 && a.group <= found->group))
		return 0;
	if (r == 0)
		r = copy(before, s->index);
	if (r < 0)
		return r;
	found->group = a.group;
	found->digest = a.digest;
	found->from = a.from;
	found->known = CFS_MAX(found->known, a.group);
	found->time_ns = 0;
	found->from_index = true;
	return 0;
}

int cfs_salvage_fill(struct cfs_store *store, struct cfs_index *before,
		     struct cfs_recovered *found, struct cfs_error *err)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch batch = CFS_BATCH_INIT;
	const struct cfs_position all = {UINT32_MAX, 0};
	struct cfs_applied a;
	int r;

	memset(found, 0, sizeof(*found));
	r = read_log(store, found);
	if (r == 0 && before)
		r = take_index(store, before, found);
	if (r < 0)
		return r;
	if (!found->group)
		return cfs_fail(err, -EBADMSG,
				"no state of the log can be read, and there is "
				"no index that has one");
	r = cfs_rebuild_objects(store, all, err);
	if (r < 0)
		return r;
	a = (struct cfs_applied){found->group, found->from, found->digest};
	cfs_applied_put(&batch, &a);
	return flush(store->index, &batch);
}

int cfs_salvage_begin(struct cfs_store *store,
		      const struct cfs_recovered *found, struct cfs_error *err)
{
	struct cfs_position at = {0, 0};
	int r;

	store->unclean = true; /* pointers may lead to what is not there */
	store->salvaged = (struct cfs_salvaged){
		.group = found->group,
		.known = CFS_MAX(found->known, found->group),
		.time_ns = found->time_ns,
		.from_index = found->from_index,
		.passed = found->passed,
		.pack = found->passed_first.pack,
		.off = found->passed_first.off,
	};
	if (store->options.read_only)
		return 0;
	/* first: once there is a snapshot, nothing shows it any more */
	if (store->salvaged.known > found->group)
		cfs_loss_note(store, found, store->salvaged.known);
	/* above all numbers that records of before may have */
	atomic_store_explicit(&store->group, store->salvaged.known,
			      memory_order_relaxed);
	r = cfs_packs_start_anew(store->packs, &at, err);
	if (r < 0)
		return r;
	atomic_store_explicit(&store->started, true, memory_order_release);
	r = cfs_snapshot_write(store, at);
	if (r < 0) {
		(void)store->engine->ops->remove(
			store->engine, (struct cfs_pack_id){0, at.pack});
		return cfs_fail(err, r,
				"store %s: what can be had cannot be written: "
				"%s",
				store->path, strerror(-r));
	}
	return 0;
}

void cfs_store_salvaged(const struct cfs_store *store, struct cfs_salvaged *out)
{
	*out = store->salvaged;
}
