/* The content of an inode: from its record, map or keys into memory. */
#include "store/ns/ns_internal.h"

#include <assert.h>
#include <errno.h>

#include "store/util/log.h"

int cfs_ino_inline(struct cfs_ino *ino, struct cfs_buf *out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_inode_record rec;
	struct cfs_key key;
	int r;

	cfs_key_inode(&key, ino->ino);
	r = cfs_levels_get(ino->ns->levels, cfs_key_slice(&key), &val);
	if (r < 0)
		return r;
	r = cfs_inode_decode(val.data, val.len, &rec);
	if (r < 0)
		return r;
	if (rec.content == CFS_CONTENT_INLINE)
		cfs_buf_put(out, rec.inline_data, rec.inline_len);
	return out->failed ? -ENOMEM : 0;
}

static int load_inline(struct cfs_ino *ino, struct cfs_pieces *pieces)
{
	_cleanup_(cfs_buf_free) struct cfs_buf data = CFS_BUF_INIT;
	_cleanup_(cfs_blob_unrefp) struct cfs_blob *blob = NULL;
	int r = cfs_ino_inline(ino, &data);

	if (r < 0 || !data.len)
		return r;
	blob = cfs_blob_new(ino->ns->store, data.len, ino->epoch);
	if (!blob)
		return -ENOMEM;
	cfs_blob_append(blob, data.data, data.len, NULL);
	return cfs_pieces_push(
		pieces, &(struct cfs_piece){.len = data.len, .blob = blob});
}

static int push_extent(struct cfs_pieces *pieces, const struct cfs_extent *e,
		       uint64_t base)
{
	return cfs_pieces_push(pieces,
			       &(struct cfs_piece){.off = base + e->off,
						   .len = e->len,
						   .digest = e->digest,
						   .chunk_off = e->chunk_off,
						   .chunk_len = e->chunk_len});
}

/* Level 1 maps hold maps of level 0, no deeper. */
static int load_map(struct cfs_store *store, const struct cfs_digest *digest,
		    uint64_t base, unsigned level, struct cfs_pieces *pieces)
{
	_cleanup_(cfs_content_map_fini) struct cfs_content_map map = {0};
	int r = cfs_store_get_map(store, digest, &map);

	if (r < 0)
		return r == -ENOENT ? -EIO : r;
	if (map.level > level)
		return -EBADMSG;
	for (size_t i = 0; i < map.count && r == 0; i++) {
		if (map.level)
			r = load_map(store, &map.children[i].digest,
				     base + map.children[i].off, 0, pieces);
		else
			r = push_extent(pieces, &map.extents[i], base);
	}
	return r;
}

static int load_keys(struct cfs_ino *ino, struct cfs_pieces *pieces)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_slice k, v;
	struct cfs_key prefix;
	int r;

	cfs_key_prefix(&prefix, 'e', ino->ino);
	r = cfs_levels_iter(ino->ns->levels, cfs_key_slice(&prefix),
			    (struct cfs_slice){NULL, 0}, &iter);
	while (r == 0) {
		struct cfs_extent e;
		uint64_t number, off;

		r = iter->ops->next(iter, &k, &v);
		if (r <= 0)
			return r;
		r = cfs_key_parse_u64(k, &number, &off);
		if (r == 0)
			r = cfs_extent_decode(off, v.data, v.len, &e);
		if (r == 0)
			r = push_extent(pieces, &e, 0);
	}
	return r;
}

int cfs_ino_load(struct cfs_ino *ino)
{
	_cleanup_(cfs_pieces_unrefp) struct cfs_pieces *pieces = NULL;
	int r = 0;

	/* set and cleared by those who hold io */
	if (ino->cur.pieces)
		return 0;
	pieces = cfs_pieces_new();
	if (!pieces)
		return -ENOMEM;
	switch (ino->kind) {
	case CFS_CONTENT_NONE:
		break;
	case CFS_CONTENT_INLINE:
		r = load_inline(ino, pieces);
		break;
	case CFS_CONTENT_SEALED:
		r = load_map(ino->ns->store, &ino->map, 0, 1, pieces);
		break;
	case CFS_CONTENT_EXTENTS:
		r = load_keys(ino, pieces);
		break;
	}
	if (r < 0)
		return cfs_log_err(r, "content of inode %llu cannot be read",
				   (unsigned long long)ino->ino);
	if (!cfs_pieces_check(pieces))
		return cfs_log_err(-EBADMSG, "extents of inode %llu overlap",
				   (unsigned long long)ino->ino);
	(void)pthread_mutex_lock(&ino->lock);
	/* Content beyond size is none of the file's. */
	if (cfs_pieces_end(pieces) > ino->cur.size) {
		r = cfs_pieces_own(&pieces, 1);
		if (r == 0)
			cfs_pieces_punch(pieces, ino->cur.size, UINT64_MAX);
	}
	if (r == 0)
		ino->cur.pieces = cfs_steal(pieces);
	(void)pthread_mutex_unlock(&ino->lock);
	return r;
}

void cfs_ino_unload(struct cfs_ino *ino)
{
	if (ino->opens || ino->cur.dirty || ino->staged || ino->in_cut ||
	    ino->kind == CFS_CONTENT_EXTENTS || !ino->cur.pieces)
		return;
	cfs_stream_end(ino);
	cfs_pieces_unref(cfs_steal(ino->cur.pieces));
	ino->overlay_bytes = 0;
}

void cfs_ino_share(struct cfs_ino *ino)
{
	ino->epoch = ++ino->ns->epoch;
}

static void add_pin(struct cfs_ns *ns, struct cfs_pin *pin)
{
	(void)pthread_mutex_lock(&ns->table_lock);
	pin->next = ns->pins;
	if (pin->next)
		pin->next->prev = pin;
	ns->pins = pin;
	(void)pthread_mutex_unlock(&ns->table_lock);
}

/*
 * Inside: gc commits before it marks, so either it sees the pin, or what is
 * pinned is what that commit or a later one refers to.
 */
static void pin_inside(struct cfs_ino *ino, struct cfs_pin *pin,
		       struct stat *st)
{
	cfs_store_enter(ino->ns->store);
	(void)pthread_mutex_lock(&ino->lock);
	cfs_ino_share(ino);
	pin->pieces = cfs_pieces_ref(ino->cur.pieces);
	cfs_ino_stat(ino, st);
	(void)pthread_mutex_unlock(&ino->lock);
	add_pin(ino->ns, pin);
	cfs_store_leave(ino->ns->store);
}

int cfs_ino_pin(struct cfs_ino *ino, struct cfs_pin *pin, struct stat *st)
{
	int r;

	(void)pthread_mutex_lock(&ino->io);
	r = cfs_ino_load(ino);
	if (r == 0)
		pin_inside(ino, pin, st);
	(void)pthread_mutex_unlock(&ino->io);
	return r;
}

void cfs_ino_unpin(struct cfs_ns *ns, struct cfs_pin *pin)
{
	if (!pin->pieces)
		return;
	(void)pthread_mutex_lock(&ns->table_lock);
	if (pin->prev)
		pin->prev->next = pin->next;
	else
		ns->pins = pin->next;
	if (pin->next)
		pin->next->prev = pin->prev;
	(void)pthread_mutex_unlock(&ns->table_lock);
	cfs_pieces_unref(cfs_steal(pin->pieces));
}
