/* A chunk kept as a cast of others, if that gives its very bytes. */
#include "store/core/store_internal.h"

#include <errno.h>
#include <string.h>

#include "store/map/dtype.h"
#include "store/util/checked.h"

/* How it is kept; elements of @elem bytes, or it is not fit: -EINVAL. */
static int get_head(struct cfs_store *store, const struct cfs_digest *digest,
		    uint32_t elem, struct cfs_chunk_head **head_out,
		    struct cfs_object_value *where)
{
	int r = cfs_object_chunk_head(store, digest, where, head_out);

	return r < 0 ? r : (*head_out)->elem_size == elem ? 0 : -EINVAL;
}

/*
 * Parts must be there, not derived themselves, and stay as long as this.  Nor
 * may a part be derived later: it is not, since its elements are wider than
 * those of anything that can be.
 */
static int check_part(struct cfs_store *store, const struct cfs_chunk_part *p,
		      uint32_t elem)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	struct cfs_object_value where;
	int r;

	if (p->len % elem || p->off % elem)
		return -EINVAL;
	r = cfs_object_claim(store, false, &p->digest);
	if (r < 0)
		return r;
	r = get_head(store, &p->digest, elem, &head, &where);
	if (r < 0)
		return r;
	if (head->codec == CFS_CODEC_DERIVED ||
	    !cfs_range_ok(p->off, p->len, head->raw_len))
		return -EINVAL;
	return 0;
}

static int read_parts(struct cfs_store *store,
		      const struct cfs_chunk_part *parts, uint32_t n_parts,
		      uint32_t elem, struct cfs_buf *out)
{
	uint64_t total = 0;
	uint8_t *to;
	uint32_t i;
	int r;

	for (i = 0; i < n_parts; i++) {
		r = check_part(store, &parts[i], elem);
		if (r < 0)
			return r;
		total += parts[i].len;
		if (total > 8 * (uint64_t)CFS_CHUNK_BYTES_MAX)
			return -EINVAL;
	}
	to = cfs_buf_grow(out, total);
	if (!to)
		return -ENOMEM;
	for (i = 0; i < n_parts; i++) {
		r = cfs_store_read_chunk(store, &parts[i].digest, parts[i].off,
					 to, parts[i].len);
		if (r < 0)
			return r;
		to += parts[i].len;
	}
	return 0;
}

static int matches(const struct cfs_buf *raw, enum cfs_dtype from,
		   const struct cfs_buf *is, enum cfs_dtype to)
{
	_cleanup_(cfs_buf_free) struct cfs_buf cast = CFS_BUF_INIT;
	size_t n = raw->len / cfs_dtype_size(from);
	uint8_t *p;

	if (n * cfs_dtype_size(to) != is->len)
		return -EINVAL;
	p = cfs_buf_grow(&cast, is->len);
	if (!p)
		return -ENOMEM;
	cfs_dtype_cast(from, raw->data, to, p, n);
	return memcmp(p, is->data, is->len) == 0 ? 0 : -EILSEQ;
}

/* In room of its own: what is kept for deletions is not for this. */
static int replace(struct cfs_store *store, const struct cfs_digest *digest,
		   uint32_t raw_len, const struct cfs_buf *stored)
{
	const uint64_t room = stored->len + CFS_RECORD_HEAD_BYTES;
	int r = cfs_store_reserve(store, room, false);

	if (r < 0)
		return r;
	r = cfs_append_object(store, false, digest, raw_len, stored->data,
			      stored->len, true);
	cfs_store_unreserve(store, room);
	if (r == 0)
		cfs_framecache_drop(store->cache, digest, CFS_CACHE_HEAD);
	return r;
}

static int derive(struct cfs_store *store, const struct cfs_digest *digest,
		  enum cfs_dtype from, enum cfs_dtype to,
		  const struct cfs_chunk_part *parts, uint32_t n_parts)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf is = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf stored = CFS_BUF_INIT;
	struct cfs_object_value where;
	int r;

	r = get_head(store, digest, cfs_dtype_size(to), &head, &where);
	if (head && head->codec == CFS_CODEC_DERIVED)
		return 0; /* as it is kept already */
	if (r == 0)
		r = cfs_object_chunk_bytes(store, digest, &is);
	if (r == 0)
		r = read_parts(store, parts, n_parts, cfs_dtype_size(from),
			       &raw);
	if (r == 0)
		r = matches(&raw, from, &is, to);
	if (r == 0)
		r = cfs_chunk_encode_derived(is.data, is.len, from, to, parts,
					     n_parts, &stored);
	/* A record more is only worth it if the old one is larger. */
	if (r == 0 && stored.len + CFS_RECORD_HEAD_BYTES >= where.stored_len)
		return 0;
	return r == 0 ? replace(store, digest, head->raw_len, &stored) : r;
}

int cfs_store_derive(struct cfs_store *store, const struct cfs_digest *digest,
		     int from_dtype, int to_dtype,
		     const struct cfs_chunk_part *parts, uint32_t n_parts)
{
	enum cfs_dtype from = (enum cfs_dtype)from_dtype;
	enum cfs_dtype to = (enum cfs_dtype)to_dtype;
	int r;

	if (!cfs_dtype_is_float(from) || !cfs_dtype_is_float(to) ||
	    cfs_dtype_size(from) <= cfs_dtype_size(to))
		return -EINVAL;
	pthread_rwlock_rdlock(&store->derive_lock);
	r = derive(store, digest, from, to, parts, n_parts);
	pthread_rwlock_unlock(&store->derive_lock);
	return r;
}
