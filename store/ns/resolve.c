/* Writing down what a cut took: digests first, then keys. */
#include "store/ns/ns_internal.h"

#include <errno.h>

#include "store/util/log.h"

/* The bytes of a tail as they are now, as a chunk of their own: it goes on
 * growing, and a later group names what it has become. */
static int send_copy(struct cfs_ns *ns, const struct cfs_piece *e,
		     struct cfs_pending **out)
{
	uint8_t *bytes = malloc((size_t)e->len);
	int r;

	if (!bytes)
		return -ENOMEM;
	r = cfs_blob_read(e->blob, e->chunk_off, bytes, (size_t)e->len);
	if (r == 0)
		r = cfs_store_reserve(ns->store, e->len, true);
	if (r < 0) {
		free(bytes);
		return r;
	}
	*out = cfs_store_ingest(ns->store, bytes, (size_t)e->len, 0);
	if (*out)
		return 0;
	free(bytes);
	cfs_store_unreserve(ns->store, e->len);
	return -ENOMEM;
}

/* Nothing waits for digests before all is on its way. */
static int send_all(struct cfs_ns *ns, const struct cfs_pieces *pieces,
		    size_t n, struct cfs_pending **copies)
{
	for (size_t i = 0; i < n; i++) {
		const struct cfs_piece *e = &pieces->v[i];
		int r;

		if (!e->blob)
			continue;
		r = cfs_blob_send(e->blob, 0);
		if (r == -EAGAIN)
			r = send_copy(ns, e, &copies[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int digest_of(const struct cfs_piece *e, struct cfs_pending *copy,
		     struct cfs_extent *out)
{
	*out = (struct cfs_extent){.off = e->off,
				   .len = e->len,
				   .digest = e->digest,
				   .chunk_off = e->chunk_off,
				   .chunk_len = e->chunk_len};
	if (copy) {
		out->chunk_off = 0;
		out->chunk_len = (uint32_t)e->len;
		return cfs_pending_wait(copy, &out->digest);
	}
	if (!e->blob)
		return 0;
	out->chunk_len = (uint32_t)cfs_blob_len(e->blob);
	return cfs_blob_digest(e->blob, &out->digest);
}

int cfs_resolve_pieces(struct cfs_ns *ns, const struct cfs_pieces *pieces,
		       size_t n, struct cfs_extent **extents_out)
{
	_cleanup_(cfs_freep) struct cfs_pending **copies = NULL;
	_cleanup_(cfs_freep) struct cfs_extent *v = NULL;
	int r;

	copies = calloc(n + 1, sizeof(struct cfs_pending *));
	v = calloc(n + 1, sizeof(*v));
	if (!copies || !v)
		return -ENOMEM;
	r = send_all(ns, pieces, n, copies);
	for (size_t i = 0; i < n && r == 0; i++)
		r = digest_of(&pieces->v[i], copies[i], &v[i]);
	for (size_t i = 0; i < n; i++)
		cfs_pending_unref(copies[i]);
	if (r == 0)
		*extents_out = cfs_steal(v);
	return r;
}

/* One map of level 0 of @n extents; it begins at @base. */
static int put_leaf(struct cfs_ns *ns, const struct cfs_extent *extents,
		    size_t n, uint64_t base, uint64_t size,
		    struct cfs_digest *out)
{
	_cleanup_(cfs_freep) struct cfs_extent *v = calloc(n + 1, sizeof(*v));
	struct cfs_content_map map = {.size = size, .count = n};

	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		v[i] = extents[i];
		v[i].off -= base;
	}
	map.extents = v;
	return cfs_store_put_map(ns->store, &map, out);
}

int cfs_resolve_map(struct cfs_ns *ns, const struct cfs_extent *extents,
		    size_t n, uint64_t size, struct cfs_digest *out)
{
	_cleanup_(cfs_freep) struct cfs_map_child *children = NULL;
	struct cfs_content_map map = {.level = 1, .size = size};

	if (n <= CFS_MAP_FANOUT)
		return put_leaf(ns, extents, n, 0, size, out);
	map.count = (n + CFS_MAP_FANOUT - 1) / CFS_MAP_FANOUT;
	if (map.count > CFS_MAP_FANOUT)
		return -EFBIG;
	children = calloc(map.count, sizeof(*children));
	if (!children)
		return -ENOMEM;
	for (size_t i = 0; i < map.count; i++) {
		struct cfs_map_child *c = &children[i];
		size_t from = i * CFS_MAP_FANOUT;
		size_t to = CFS_MIN(from + CFS_MAP_FANOUT, n);
		uint64_t end = to < n ? extents[to].off : size;
		int r;

		c->off = i ? extents[from].off : 0;
		c->len = end - c->off;
		r = put_leaf(ns, extents + from, to - from, c->off, c->len,
			     &c->digest);
		if (r < 0)
			return r;
	}
	map.children = children;
	return cfs_store_put_map(ns->store, &map, out);
}

static int put_extent(struct cfs_ns *ns, uint64_t ino,
		      const struct cfs_extent *e)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;

	cfs_extent_encode(e, &val);
	if (val.failed)
		return -ENOMEM;
	cfs_key_extent(&key, ino, e->off);
	return cfs_levels_put_frozen(ns->levels, cfs_key_slice(&key),
				     (struct cfs_slice){val.data, val.len});
}

static bool has_extent_at(const struct cfs_extent *v, size_t n, uint64_t off)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (v[mid].off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && v[lo].off == off;
}

/* Keys from @s->lo on that no extent has any more. */
static int delete_stale(struct cfs_ns *ns, const struct cfs_snap *s,
			const struct cfs_extent *v, size_t n)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_key prefix, from;
	struct cfs_slice k, val;
	int r;

	cfs_key_prefix(&prefix, 'e', s->record.ino);
	cfs_key_extent(&from, s->record.ino, s->lo);
	r = cfs_levels_iter(ns->levels, cfs_key_slice(&prefix),
			    cfs_key_slice(&from), &iter);
	while (r == 0) {
		uint64_t ino, off;

		r = iter->ops->next(iter, &k, &val);
		if (r <= 0)
			return r;
		r = cfs_key_parse_u64(k, &ino, &off);
		if (r == 0 && !has_extent_at(v, n, off))
			r = cfs_levels_del_frozen(ns->levels, k);
	}
	return r;
}

static int write_keys(struct cfs_ns *ns, const struct cfs_snap *s,
		      const struct cfs_extent *v, size_t n)
{
	int r = 0;

	if (s->had_keys)
		r = delete_stale(ns, s, v, n);
	for (size_t i = 0; i < n && r == 0; i++)
		if (v[i].off >= s->lo || !s->had_keys)
			r = put_extent(ns, s->record.ino, &v[i]);
	return r;
}

/* What becomes of the content; the keys and objects it needs. */
static int write_content(struct cfs_ns *ns, struct cfs_snap *s)
{
	_cleanup_(cfs_freep) struct cfs_extent *v = NULL;
	const size_t n = s->n;
	int r = cfs_resolve_pieces(ns, s->pieces, n, &v);

	if (r)
		return r;
	s->record.content = CFS_CONTENT_NONE;
	if (n && s->seal) {
		r = cfs_resolve_map(ns, v, n, s->record.size, &s->record.map);
		if (r == 0)
			s->record.content = CFS_CONTENT_SEALED;
		else if (r == -EFBIG)
			r = 0; /* too many pieces for a map: keys do */
	}
	if (r == 0 && n && s->record.content == CFS_CONTENT_NONE) {
		s->record.content = CFS_CONTENT_EXTENTS;
		return write_keys(ns, s, v, n);
	}
	if (r == 0 && s->had_keys)
		r = cfs_ns_wipe(ns, 'e', s->record.ino, true);
	return r;
}

static int inline_content(struct cfs_ns *ns, struct cfs_snap *s,
			  struct cfs_buf *data)
{
	struct cfs_inode_record *rec = &s->record;
	uint8_t *p;
	int r;

	rec->content = CFS_CONTENT_NONE;
	if (s->n) {
		p = cfs_buf_grow(data, (size_t)rec->size);
		if (!p)
			return -ENOMEM;
		r = cfs_pieces_read(ns->store, s->pieces, p, (size_t)rec->size,
				    0);
		if (r < 0)
			return r;
		rec->content = CFS_CONTENT_INLINE;
	}
	return s->had_keys ? cfs_ns_wipe(ns, 'e', rec->ino, true) : 0;
}

static int write_snap(struct cfs_ns *ns, struct cfs_snap *s)
{
	_cleanup_(cfs_buf_free) struct cfs_buf data = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_inode_record *rec = &s->record;
	struct cfs_key key;
	int r = 0;

	if (s->content && rec->size <= CFS_INLINE_MAX)
		r = inline_content(ns, s, &data);
	else if (s->content)
		r = write_content(ns, s);
	else if (rec->content == CFS_CONTENT_INLINE)
		r = cfs_ino_inline(s->ino, &data);
	if (r < 0)
		return r;
	rec->inline_data = data.data;
	rec->inline_len = (uint32_t)data.len;
	cfs_inode_encode(rec, &val);
	rec->inline_data = NULL;
	if (val.failed)
		return -ENOMEM;
	cfs_key_inode(&key, rec->ino);
	return cfs_levels_put_frozen(ns->levels, cfs_key_slice(&key),
				     (struct cfs_slice){val.data, val.len});
}

static int write_dead(struct cfs_ns *ns, const struct cfs_ino *ino)
{
	struct cfs_key key;
	int r;

	cfs_key_inode(&key, ino->ino);
	r = cfs_levels_del_frozen(ns->levels, cfs_key_slice(&key));
	cfs_key_orphan(&key, ino->ino);
	if (r == 0)
		r = cfs_levels_del_frozen(ns->levels, cfs_key_slice(&key));
	if (r == 0 && ino->has_keys)
		r = cfs_ns_wipe(ns, 'e', ino->ino, true);
	if (r == 0 &&
	    atomic_load_explicit(&ns->has_xattrs, memory_order_relaxed))
		r = cfs_ns_wipe(ns, 'x', ino->ino, true);
	return r;
}

/* All files' chunks go on their way before the first is waited for. */
static int send_early(struct cfs_cut *cut)
{
	for (size_t k = 0; k < cut->n; k++) {
		const struct cfs_snap *s = &cut->snaps[k];

		if (!s->content || s->record.size <= CFS_INLINE_MAX)
			continue;
		for (size_t i = 0; i < s->n; i++) {
			struct cfs_blob *blob = s->pieces->v[i].blob;
			int r = blob ? cfs_blob_send(blob, 0) : 0;

			if (r < 0 && r != -EAGAIN)
				return r;
		}
	}
	return 0;
}

int cfs_resolve_cut(struct cfs_cut *cut)
{
	int r = send_early(cut);

	for (size_t i = 0; i < cut->n && r == 0; i++)
		r = write_snap(cut->ns, &cut->snaps[i]);
	for (struct cfs_ino *i = cut->dead; i && r == 0; i = i->list_next)
		r = write_dead(cut->ns, i);
	return r;
}
