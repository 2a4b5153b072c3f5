/* The records of a group, and the value of `t` (store/FORMAT.md, "Groups"). */
#include "store/core/store_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "store/util/endian.h"

#define PAYLOAD_MAX (1u << 20)
#define MUST_KNOW   0x80u /* flag of the record's head */

struct group_bytes { /* store/FORMAT.md, "Groups" */
	uint8_t number[8], prev[32], synced[8], n_batches[4], flags[1],
		time_ns[8], batches[32];
};
static_assert(sizeof(struct group_bytes) == CFS_GROUP_BYTES, "on-disk size");

struct applied_bytes { /* store/FORMAT.md, "Keys" */
	uint8_t group[8], pack[4], off[4], digest[32];
};
static_assert(sizeof(struct applied_bytes) == CFS_APPLIED_BYTES,
	      "on-disk size");

void cfs_group_encode(const struct cfs_group_record *g,
		      uint8_t out[CFS_GROUP_BYTES])
{
	struct group_bytes b;

	cfs_put_le64(b.number, g->number);
	memcpy(b.prev, g->prev.bytes, sizeof(b.prev));
	cfs_put_le64(b.synced, g->synced);
	cfs_put_le32(b.n_batches, g->n_batches);
	b.flags[0] = g->flags;
	cfs_put_le64(b.time_ns, g->time_ns);
	memcpy(b.batches, g->batches.bytes, sizeof(b.batches));
	memcpy(out, &b, sizeof(b));
}

int cfs_group_decode(const void *data, size_t len, struct cfs_group_record *out)
{
	struct group_bytes b;

	if (len != sizeof(b))
		return -EBADMSG;
	memcpy(&b, data, sizeof(b));
	out->number = cfs_get_le64(b.number);
	memcpy(out->prev.bytes, b.prev, sizeof(b.prev));
	out->synced = cfs_get_le64(b.synced);
	out->n_batches = cfs_get_le32(b.n_batches);
	out->flags = b.flags[0];
	out->time_ns = cfs_get_le64(b.time_ns);
	memcpy(out->batches.bytes, b.batches, sizeof(b.batches));
	return out->number && out->synced < out->number ? 0 : -EBADMSG;
}

void cfs_applied_encode(const struct cfs_applied *a,
			uint8_t out[CFS_APPLIED_BYTES])
{
	struct applied_bytes b;

	cfs_put_le64(b.group, a->group);
	cfs_put_le32(b.pack, a->from.pack);
	cfs_put_le32(b.off, a->from.off);
	memcpy(b.digest, a->digest.bytes, sizeof(b.digest));
	memcpy(out, &b, sizeof(b));
}

int cfs_applied_decode(const void *data, size_t len, struct cfs_applied *out)
{
	struct applied_bytes b;

	if (len != sizeof(b))
		return -EBADMSG;
	memcpy(&b, data, sizeof(b));
	out->group = cfs_get_le64(b.group);
	out->from.pack = cfs_get_le32(b.pack);
	out->from.off = cfs_get_le32(b.off);
	memcpy(out->digest.bytes, b.digest, sizeof(b.digest));
	return out->group ? 0 : -EBADMSG;
}

void cfs_applied_put(struct cfs_batch *batch, const struct cfs_applied *a)
{
	uint8_t value[CFS_APPLIED_BYTES];
	struct cfs_key key;

	cfs_applied_encode(a, value);
	cfs_key_applied(&key);
	cfs_batch_put(batch, cfs_key_slice(&key),
		      (struct cfs_slice){value, sizeof(value)});
}

int cfs_batcher_init(struct cfs_batcher *b, struct cfs_store *store,
		     unsigned flags)
{
	uint64_t last =
		atomic_load_explicit(&store->group, memory_order_relaxed);

	*b = (struct cfs_batcher){
		.store = store,
		.group = {.number = last + 1,
			  .prev = store->group_digest,
			  .synced = last,
			  .flags = (uint8_t)flags},
		.digester = cfs_digester_new(),
		.batch = CFS_BATCH_INIT,
	};
	return b->digester ? 0 : -ENOMEM;
}

void cfs_batcher_fini(struct cfs_batcher *b)
{
	cfs_digester_free(b->digester);
	cfs_batch_fini(&b->batch);
}

static int append(struct cfs_batcher *b, enum cfs_record_type type,
		  const void *data, size_t len)
{
	static const struct cfs_digest none;
	struct cfs_position at;
	int r;

	r = cfs_append_record(b->store, type, MUST_KNOW, &none, 0, data, len,
			      false, NULL, &at);
	if (r == 0 && !b->first.pack)
		b->first = at;
	return r;
}

static int flush(struct cfs_batcher *b)
{
	_cleanup_(cfs_buf_free) struct cfs_buf payload = CFS_BUF_INIT;
	int r;

	if (b->batch.bytes.failed)
		return -ENOMEM;
	if (!b->batch.count)
		return 0;
	cfs_buf_put_le64(&payload, b->group.number);
	cfs_buf_put(&payload, b->batch.bytes.data, b->batch.bytes.len);
	if (payload.failed)
		return -ENOMEM;
	r = append(b, CFS_RECORD_BATCH, payload.data, payload.len);
	if (r < 0)
		return r;
	cfs_digester_add(b->digester, payload.data, payload.len);
	b->group.n_batches++;
	b->bytes += payload.len;
	cfs_buf_reset(&b->batch.bytes);
	b->batch.count = 0;
	return 0;
}

int cfs_batcher_add(void *arg, struct cfs_slice key,
		    const struct cfs_slice *val)
{
	struct cfs_batcher *b = arg;
	size_t entry = 1 + 2 + key.len + (val ? 4 + val->len : 0);
	int r;

	if (!cfs_key_is_logged(key))
		return 0;
	if (8 + b->batch.bytes.len + entry > PAYLOAD_MAX) {
		r = flush(b);
		if (r < 0)
			return r;
	}
	if (val)
		cfs_batch_put(&b->batch, key, *val);
	else
		cfs_batch_del(&b->batch, key);
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int cfs_batcher_end(struct cfs_batcher *b, struct cfs_digest *group_digest_out)
{
	uint8_t payload[CFS_GROUP_BYTES];
	int r = flush(b);

	if (r < 0)
		return r;
	cfs_digester_end(b->digester, &b->group.batches);
	b->group.time_ns = now_ns();
	cfs_group_encode(&b->group, payload);
	r = append(b, CFS_RECORD_GROUP, payload, sizeof(payload));
	if (r < 0)
		return r;
	cfs_digest_of(payload, sizeof(payload), group_digest_out);
	return 0;
}
