/*
 * Bytes of chunks.  Frames that are asked for whole are decoded into the
 * caller's buffer and not cached: whoever reads that much reads it once.  Parts
 * of frames go through the cache: their neighbours will be asked for next.
 */
#include "store/core/store_internal.h"

#include <errno.h>
#include <string.h>

#include "store/map/dtype.h"
#include "store/util/checked.h"
#include "store/util/log.h"
#include "store/util/spares.h"

#define TRIES 8
/* Parts of a derived chunk are not derived; more than this is damage. */
#define DEPTH_MAX 2

struct reading {
	struct cfs_store *store;
	const struct cfs_digest *digest;
	struct cfs_place place;
	const struct cfs_chunk_head *head;
	unsigned depth;
	bool quiet; /* nothing goes to the cache */
};

static int read_chunk(struct cfs_store *store, const struct cfs_digest *digest,
		      uint32_t off, uint8_t *buf, size_t len, unsigned depth,
		      bool quiet);

/* @n bytes at @off of what a derived chunk's parts are one after the other. */
static int read_parts(const struct reading *rd, uint64_t off, uint8_t *buf,
		      uint64_t n)
{
	const struct cfs_chunk_part *p = rd->head->parts;
	uint32_t i;
	int r;

	for (i = 0; n && i < rd->head->n_parts; i++, p++) {
		uint64_t take;

		if (off >= p->len) {
			off -= p->len;
			continue;
		}
		take = CFS_MIN(n, p->len - off);
		r = read_chunk(rd->store, &p->digest, p->off + (uint32_t)off,
			       buf, take, rd->depth + 1, rd->quiet);
		if (r < 0)
			return r == -ENOENT ? -EBADMSG : r;
		buf += take;
		n -= take;
		off = 0;
	}
	return n ? -EBADMSG : 0;
}

static int derive_frame(const struct reading *rd, uint32_t index, uint8_t *out)
{
	const struct cfs_chunk_head *h = rd->head;
	uint32_t from = cfs_dtype_size(h->from), to = cfs_dtype_size(h->to);
	uint32_t n = cfs_frame_raw_len(h, index);
	_cleanup_(cfs_freep) uint8_t *raw = NULL;
	int r;

	if (rd->depth >= DEPTH_MAX || !cfs_dtype_is_float(h->from) ||
	    !cfs_dtype_is_float(h->to) || n % to)
		return -EBADMSG;
	raw = malloc((size_t)(n / to) * from);
	if (!raw)
		return -ENOMEM;
	r = read_parts(rd, (uint64_t)index * (CFS_FRAME_BYTES / to) * from, raw,
		       (uint64_t)(n / to) * from);
	if (r < 0)
		return r;
	cfs_dtype_cast(h->from, raw, h->to, out, n / to);
	return cfs_frame_check(h, index, out);
}

static bool is_raw(const struct cfs_chunk_head *h, uint32_t index)
{
	return h->codec != CFS_CODEC_DERIVED &&
	       h->frames[index].len == cfs_frame_raw_len(h, index);
}

/* One frame, whole; @stored: room for what packs hold of it. */
static int whole_frame(const struct reading *rd, uint32_t index,
		       uint8_t *stored, uint8_t *out)
{
	const struct cfs_chunk_head *h = rd->head;
	const struct cfs_frame *f = &h->frames[index];
	bool raw = is_raw(h, index);
	int r;

	if (h->codec == CFS_CODEC_DERIVED)
		return derive_frame(rd, index, out);
	r = cfs_packs_read(rd->store->packs, rd->place, f->off,
			   raw ? out : stored, f->len);
	if (r < 0)
		return r;
	return raw ? cfs_frame_check(h, index, out)
		   : cfs_frame_decode(h, index, stored, out);
}

/* One at a time: what a frame takes stays in the processor's cache. */
static int whole_frames(const struct reading *rd, uint32_t first, uint32_t n,
			uint8_t *out)
{
	static struct cfs_spares spares = CFS_SPARES_INIT;
	uint8_t *stored = cfs_spares_take(&spares);
	int r = 0;

	if (!stored)
		stored = malloc(CFS_FRAME_BYTES);
	if (!stored)
		return -ENOMEM;
	for (; r == 0 && n--; first++, out += CFS_FRAME_BYTES)
		r = whole_frame(rd, first, stored, out);
	cfs_spares_put(&spares, stored);
	return r;
}

static int load_frame(const struct reading *rd, uint32_t index,
		      uint8_t **data_out)
{
	_cleanup_(cfs_freep) uint8_t *data =
		malloc(cfs_frame_raw_len(rd->head, index));
	int r;

	if (!data)
		return -ENOMEM;
	r = whole_frames(rd, index, 1, data);
	if (r < 0)
		return r;
	*data_out = cfs_steal(data);
	return 0;
}

/* Part of one frame.  Only who was asked from outside may wait for another
 * thread's frame: one that reads the parts of a derived chunk is waited for. */
static int part_of_frame(const struct reading *rd, uint32_t index, uint32_t off,
			 uint8_t *out, size_t len)
{
	_cleanup_(cfs_framecache_putp) struct cfs_cached *e = NULL;
	uint8_t *data = NULL;
	bool load = true;
	int r = 0;

	if (!rd->quiet && !rd->depth) {
		e = cfs_framecache_claim(rd->store->cache, rd->digest, index,
					 &load);
		if (!e)
			return -ENOMEM;
	}
	if (load)
		r = load_frame(rd, index, &data);
	if (e && load)
		cfs_framecache_loaded(rd->store->cache, e, data,
				      cfs_frame_raw_len(rd->head, index));
	else if (e)
		data = cfs_cached_data(e);
	if (r == 0)
		memcpy(out, data + off, len);
	if (e || r < 0)
		return r;
	/* Others may load it at the same time; whoever is last is kept. */
	if (rd->depth && !rd->quiet)
		cfs_framecache_put(cfs_framecache_replace(
			rd->store->cache, rd->digest, index, data,
			cfs_frame_raw_len(rd->head, index), NULL));
	else
		free(data);
	return 0;
}

static bool from_cache(const struct reading *rd, uint32_t index, uint32_t off,
		       uint8_t *out, size_t len)
{
	_cleanup_(cfs_framecache_putp) struct cfs_cached *e =
		cfs_framecache_get(rd->store->cache, rd->digest, index);
	const uint8_t *data;

	if (!e)
		return false;
	data = cfs_cached_data(e);
	memcpy(out, data + off, len);
	return true;
}

static void count(struct cfs_store *store, bool hit)
{
	atomic_fetch_add_explicit(hit ? &store->cache_hits
				      : &store->cache_misses,
				  1, memory_order_relaxed);
}

static int read_frames(const struct reading *rd, uint32_t off, uint8_t *buf,
		       size_t len)
{
	int r;

	while (len) {
		uint32_t index = off / CFS_FRAME_BYTES;
		uint32_t in = off % CFS_FRAME_BYTES;
		uint32_t frame = cfs_frame_raw_len(rd->head, index);
		size_t n = CFS_MIN(len, (size_t)(frame - in));
		uint32_t frames = 1;

		if (!rd->quiet && from_cache(rd, index, in, buf, n)) {
			count(rd->store, true);
		} else {
			count(rd->store, false);
			if (n < frame) {
				r = part_of_frame(rd, index, in, buf, n);
			} else {
				/* as many as follow whole */
				n = len;
				if (off + len < rd->head->raw_len)
					n -= len % CFS_FRAME_BYTES;
				frames = (uint32_t)cfs_div_up(n,
							      CFS_FRAME_BYTES);
				r = whole_frames(rd, index, frames, buf);
			}
			if (r < 0)
				return r;
		}
		off += (uint32_t)n;
		buf += n;
		len -= n;
	}
	return 0;
}

/* How and where a chunk is kept, remembered. */
static int get_head(struct cfs_store *store, const struct cfs_digest *digest,
		    struct cfs_cached **out)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	_cleanup_(cfs_freep) struct cfs_object_value *where = NULL;
	size_t bytes;
	int r;

	*out = cfs_framecache_get(store->cache, digest, CFS_CACHE_HEAD);
	if (*out)
		return 0;
	where = calloc(1, sizeof(*where));
	if (!where)
		return -ENOMEM;
	r = cfs_object_chunk_head(store, digest, where, &head);
	if (r < 0) {
		char hex[CFS_DIGEST_HEX];

		if (r == -EBADMSG)
			(void)cfs_log_err(
				r, "the head of chunk %s in pack %08x at %u",
				cfs_digest_hex(digest, hex), where->pack,
				where->off);
		return r;
	}
	bytes = sizeof(*head) + head->n_frames * sizeof(head->frames[0]) +
		head->n_parts * sizeof(*head->parts) + sizeof(*where);
	*out = cfs_framecache_replace(store->cache, digest, CFS_CACHE_HEAD,
				      cfs_steal(head), bytes, cfs_steal(where));
	return *out ? 0 : -ENOMEM;
}

static int read_once(struct cfs_store *store, const struct cfs_digest *digest,
		     uint32_t off, uint8_t *buf, size_t len, unsigned depth,
		     bool quiet)
{
	_cleanup_(cfs_framecache_putp) struct cfs_cached *e = NULL;
	struct reading rd = {
		.store = store,
		.digest = digest,
		.depth = depth,
		.quiet = quiet,
	};
	const struct cfs_object_value *where;
	char hex[CFS_DIGEST_HEX];
	int r;

	r = get_head(store, digest, &e);
	if (r < 0)
		return r;
	where = cfs_cached_extra(e);
	rd.head = cfs_cached_data(e);
	rd.place = cfs_object_place(where);
	if (!cfs_range_ok(off, len, rd.head->raw_len))
		return -EINVAL;
	r = read_frames(&rd, off, buf, len);
	if (r == -EBADMSG)
		cfs_log(CFS_LOG_ERR, "chunk %s in pack %08x at %u is damaged",
			cfs_digest_hex(digest, hex), where->pack, where->off);
	return r;
}

static int read_chunk(struct cfs_store *store, const struct cfs_digest *digest,
		      uint32_t off, uint8_t *buf, size_t len, unsigned depth,
		      bool quiet)
{
	int r, tries;

	for (tries = 0; tries < TRIES; tries++) {
		r = read_once(store, digest, off, buf, len, depth, quiet);
		if (r == 0)
			return 0;
		/* Elsewhere by now, or another form: never believe what is
		 * remembered of a chunk that could not be read. */
		cfs_framecache_drop(store->cache, digest, CFS_CACHE_HEAD);
		if (r == -EBADMSG || r == -EIO)
			cfs_doubt_add(store, false, digest);
		if (r != -ENOENT)
			return r;
	}
	return r;
}

int cfs_store_read_chunk(struct cfs_store *store,
			 const struct cfs_digest *digest, uint32_t off,
			 void *buf, size_t len)
{
	return read_chunk(store, digest, off, buf, len, 0, false);
}

int cfs_object_chunk_bytes(struct cfs_store *store,
			   const struct cfs_digest *digest, struct cfs_buf *out)
{
	struct cfs_object_value v;
	uint8_t *p;
	int r;

	r = cfs_object_locate(store, false, digest, &v);
	if (r < 0)
		return r;
	cfs_buf_reset(out);
	p = cfs_buf_grow(out, v.raw_len);
	if (!p)
		return -ENOMEM;
	/* As it is in the pack now, its head too. */
	cfs_framecache_drop(store->cache, digest, CFS_CACHE_HEAD);
	return read_chunk(store, digest, 0, p, v.raw_len, 0, true);
}

void cfs_store_advise_chunk(struct cfs_store *store,
			    const struct cfs_digest *digest)
{
	struct cfs_engine *engine = cfs_packs_engine(store->packs);
	struct cfs_object_value v;

	if (cfs_object_locate(store, false, digest, &v) < 0)
		return;
	engine->ops->advise(engine, (struct cfs_pack_id){v.lane, v.pack}, v.off,
			    v.stored_len);
}
