/* Where objects are, from the records themselves. */
#include "store/core/store_internal.h"

#include <errno.h>

#define KEYS_AT_ONCE 8192u

struct rebuild {
	struct cfs_store *store;
	struct cfs_batch batch;
	uint32_t pack;
	uint64_t packs_done, packs;
};

void cfs_rebuild_key(const struct cfs_record *record, struct cfs_place place,
		     struct cfs_key *key, struct cfs_object_value *value)
{
	if (record->type == CFS_RECORD_MAP)
		cfs_key_map(key, &record->digest);
	else
		cfs_key_chunk(key, &record->digest);
	*value = cfs_object_value_of(place, record->raw_len);
}

void cfs_rebuild_put(struct cfs_batch *batch, const struct cfs_record *record,
		     struct cfs_place place)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_object_value value;
	struct cfs_key key;

	cfs_rebuild_key(record, place, &key, &value);
	cfs_object_encode(&value, &buf);
	if (buf.failed)
		batch->bytes.failed = true;
	else
		cfs_batch_put(batch, cfs_key_slice(&key),
			      (struct cfs_slice){buf.data, buf.len});
}

static int flush(struct rebuild *rb)
{
	struct cfs_index *index = rb->store->index;
	int r;

	if (rb->batch.bytes.failed)
		return -ENOMEM;
	r = rb->batch.count ? index->ops->commit(index, &rb->batch) : 0;
	cfs_batch_fini(&rb->batch);
	rb->batch = (struct cfs_batch)CFS_BATCH_INIT;
	return r;
}

static void tell(struct rebuild *rb, uint32_t pack)
{
	const struct cfs_store_options *o = &rb->store->options;

	if (pack == rb->pack)
		return;
	rb->pack = pack;
	rb->packs_done++;
	if (o->progress)
		o->progress(o->progress_arg, rb->packs_done, rb->packs,
			    "rebuilding the index");
}

/* Of two records of one object the younger counts: it was made because the
 * older one was to go. */
static int on_object(void *arg, const struct cfs_record *record,
		     struct cfs_place place, struct cfs_position at)
{
	struct rebuild *rb = arg;

	(void)at;
	tell(rb, place.pack.number);
	cfs_rebuild_put(&rb->batch, record, place);
	return rb->batch.count < KEYS_AT_ONCE ? 0 : flush(rb);
}

static int count_pack(void *arg, struct cfs_pack_id id, uint64_t size)
{
	uint64_t *n = arg;

	(void)id;
	(void)size;
	++*n;
	return 0;
}

int cfs_rebuild_objects(struct cfs_store *store, struct cfs_position end,
			struct cfs_error *err)
{
	struct rebuild rb = {.store = store, .batch = CFS_BATCH_INIT};
	int r;

	if (!end.pack)
		return 0;
	r = cfs_packs_list(store->packs, count_pack, &rb.packs);
	if (r == 0)
		r = cfs_packs_scan_objects(store->packs, end, on_object, &rb,
					   err);
	if (r == 0)
		r = flush(&rb);
	cfs_batch_fini(&rb.batch);
	return r;
}
