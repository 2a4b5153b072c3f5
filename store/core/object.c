/* Objects: where a chunk or a map is, and its stored bytes. */
#include "store/core/store_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/checked.h"
#include "store/util/hash.h"
#include "store/util/log.h"

/* A place that gc empties while it is read is looked up again. */
#define TRIES 8

int cfs_object_locate(struct cfs_store *store, bool is_map,
		      const struct cfs_digest *digest,
		      struct cfs_object_value *out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_key key;
	int r;

	if (is_map)
		cfs_key_map(&key, digest);
	else
		cfs_key_chunk(&key, digest);
	r = cfs_levels_get(store->levels, cfs_key_slice(&key), &buf);
	if (r < 0)
		return r;
	return cfs_object_decode(buf.data, buf.len, out);
}

struct cfs_place cfs_object_place(const struct cfs_object_value *v)
{
	return (struct cfs_place){
		.pack = {.lane = v->lane, .number = v->pack},
		.off = v->off,
		.len = v->stored_len,
	};
}

struct cfs_object_value cfs_object_value_of(struct cfs_place place,
					    uint32_t raw_len)
{
	return (struct cfs_object_value){
		.lane = place.pack.lane,
		.pack = place.pack.number,
		.off = place.off,
		.stored_len = place.len,
		.raw_len = raw_len,
	};
}

bool cfs_object_value_eq(const struct cfs_object_value *a,
			 const struct cfs_object_value *b)
{
	return a->lane == b->lane && a->pack == b->pack && a->off == b->off &&
	       a->stored_len == b->stored_len;
}

/* The record's head, which must be that of the object; -EBADMSG. */
static int check_record(struct cfs_store *store, bool is_map,
			const struct cfs_digest *digest,
			const struct cfs_object_value *v,
			struct cfs_record *record)
{
	int r = cfs_packs_record(store->packs, cfs_object_place(v), record);

	if (r < 0)
		return r;
	if (record->type != (is_map ? CFS_RECORD_MAP : CFS_RECORD_CHUNK) ||
	    record->payload_len != v->stored_len ||
	    cfs_digest_cmp(&record->digest, digest) != 0)
		return -EBADMSG;
	return 0;
}

/* 12 bytes of head, 12 a frame, 40 a part (store/FORMAT.md, "Chunk"). */
bool cfs_object_may_be_derived(const struct cfs_object_value *v)
{
	uint64_t head = 12 + 12 * cfs_div_up(v->raw_len, CFS_FRAME_BYTES);

	return v->stored_len > head && (v->stored_len - head) % 40 == 0;
}

static int head_at(struct cfs_store *store, const struct cfs_digest *digest,
		   const struct cfs_object_value *v,
		   struct cfs_chunk_head **head_out);

/*
 * A record that was dead and is found again, by a rebuild, may have outlived
 * its parts.  object_lock is held.
 */
static int claim_parts(struct cfs_store *store, const struct cfs_digest *digest,
		       const struct cfs_object_value *v)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	struct cfs_object_value part;
	struct cfs_record record;
	uint32_t i;
	int r;

	if (!cfs_object_may_be_derived(v))
		return 0;
	r = head_at(store, digest, v, &head);
	for (i = 0; r == 0 && i < head->n_parts; i++) {
		const struct cfs_digest *of = &head->parts[i].digest;

		r = cfs_object_locate(store, false, of, &part);
		if (r == 0)
			r = check_record(store, false, of, &part, &record);
		if (r == 0 && store->touch)
			store->touch(store->touch_arg, false, of);
	}
	return r;
}

int cfs_object_claim(struct cfs_store *store, bool is_map,
		     const struct cfs_digest *digest)
{
	struct cfs_object_value v;
	struct cfs_record record;
	int r;

	if (cfs_doubt_has(store, is_map, digest))
		return -ENOENT;
	/* gc deletes keys, and then packs, with the lock held exclusively. */
	pthread_rwlock_rdlock(&store->object_lock);
	r = cfs_object_locate(store, is_map, digest, &v);
	/* An index that is behind can name a pack that gc removed. */
	if (r == 0)
		r = check_record(store, is_map, digest, &v, &record);
	if (r == 0 && !is_map)
		r = claim_parts(store, digest, &v);
	if (r == -EBADMSG)
		r = -ENOENT;
	if (r == 0 && store->touch)
		store->touch(store->touch_arg, is_map, digest);
	pthread_rwlock_unlock(&store->object_lock);
	return r;
}

static int load_at(struct cfs_store *store, bool is_map,
		   const struct cfs_digest *digest,
		   const struct cfs_object_value *v, struct cfs_buf *out)
{
	struct cfs_record record;
	uint8_t *p;
	int r;

	r = check_record(store, is_map, digest, v, &record);
	if (r < 0)
		return r;
	cfs_buf_reset(out);
	p = cfs_buf_grow(out, v->stored_len);
	if (!p)
		return -ENOMEM;
	r = cfs_packs_read(store->packs, cfs_object_place(v), 0, p,
			   v->stored_len);
	if (r < 0)
		return r;
	return cfs_hash64(p, v->stored_len, 0) == record.payload_hash
		       ? 0
		       : -EBADMSG;
}

int cfs_object_load(struct cfs_store *store, bool is_map,
		    const struct cfs_digest *digest, struct cfs_buf *out,
		    struct cfs_object_value *where_out)
{
	struct cfs_object_value v;
	int r, tries;

	for (tries = 0; tries < TRIES; tries++) {
		r = cfs_object_locate(store, is_map, digest, &v);
		if (r < 0)
			return r;
		if (where_out)
			*where_out = v;
		r = load_at(store, is_map, digest, &v, out);
		if (r != -ENOENT)
			return r;
	}
	return r;
}

static int head_at(struct cfs_store *store, const struct cfs_digest *digest,
		   const struct cfs_object_value *v,
		   struct cfs_chunk_head **head_out)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	_cleanup_(cfs_freep) uint8_t *start = NULL;
	size_t len = CFS_MIN(v->stored_len, CFS_CHUNK_HEAD_MAX);
	struct cfs_record record;
	int r;

	start = malloc(len);
	if (!start)
		return -ENOMEM;
	r = check_record(store, false, digest, v, &record);
	if (r == 0)
		r = cfs_packs_read(store->packs, cfs_object_place(v), 0, start,
				   len);
	if (r == 0)
		r = cfs_chunk_head_parse(start, len, v->stored_len, &head);
	/* of a newer store, or is it only a byte that has changed? */
	if (r == -EPROTONOSUPPORT)
		r = cfs_packs_verify(store->packs, &record,
				     cfs_object_place(v)) == -EBADMSG
			    ? -EBADMSG
			    : r;
	if (r < 0 || !head)
		return r < 0 ? r : -EBADMSG;
	if (head->raw_len != record.raw_len)
		return -EBADMSG;
	*head_out = cfs_steal(head);
	return 0;
}

int cfs_object_chunk_head(struct cfs_store *store,
			  const struct cfs_digest *digest,
			  struct cfs_object_value *where_out,
			  struct cfs_chunk_head **head_out)
{
	int r, tries;

	for (tries = 0; tries < TRIES; tries++) {
		r = cfs_object_locate(store, false, digest, where_out);
		if (r < 0)
			return r;
		r = head_at(store, digest, where_out, head_out);
		if (r != -ENOENT)
			return r;
	}
	return r;
}

int cfs_store_touch_map(struct cfs_store *store,
			const struct cfs_digest *digest)
{
	return cfs_object_claim(store, true, digest);
}

int cfs_store_touch_chunk(struct cfs_store *store,
			  const struct cfs_digest *digest)
{
	return cfs_object_claim(store, false, digest);
}

int cfs_store_put_map(struct cfs_store *store,
		      const struct cfs_content_map *map,
		      struct cfs_digest *digest_out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_digest digest;
	int r;

	cfs_content_map_encode(map, &buf);
	if (buf.failed)
		return -ENOMEM;
	cfs_digest_of(buf.data, buf.len, &digest);
	r = cfs_object_claim(store, true, &digest);
	/* where the one that is there cannot be read, another is made */
	if (r == -ENOENT || r == -EIO)
		r = cfs_append_object(store, true, &digest, 0, buf.data,
				      buf.len, false);
	if (r < 0)
		return r;
	*digest_out = digest;
	return 0;
}

int cfs_store_get_map(struct cfs_store *store, const struct cfs_digest *digest,
		      struct cfs_content_map *map_out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_object_value v = {0};
	struct cfs_digest is;
	char hex[CFS_DIGEST_HEX];
	int r;

	r = cfs_object_load(store, true, digest, &buf, &v);
	if (r == 0) {
		cfs_digest_of(buf.data, buf.len, &is);
		if (cfs_digest_cmp(&is, digest) != 0)
			r = -EBADMSG;
	}
	if (r == 0)
		r = cfs_content_map_decode(buf.data, buf.len, map_out);
	if (r == -EBADMSG || r == -EIO)
		cfs_doubt_add(store, true, digest);
	if (r == -EBADMSG)
		cfs_log(CFS_LOG_ERR, "map %s in pack %08x at %u is damaged",
			cfs_digest_hex(digest, hex), v.pack, v.off);
	return r;
}
