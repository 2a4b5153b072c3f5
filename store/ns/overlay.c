/*
 * Writing where something is already: bytes gather in blobs beside the stream,
 * changed in place while no snapshot refers to them, and go to ingest when they
 * have become many.
 */
#include "store/ns/ns_internal.h"

#include <errno.h>

#define OVERLAY_MAX (8u << 20) /* of one file, in memory */

struct write {
	struct cfs_ino *ino;
	const uint8_t *data;
	size_t len;
	uint64_t off;
	uint64_t *room;
};

/* Can @blob be written to where it is? */
static bool mine(const struct cfs_ino *ino, struct cfs_blob *blob)
{
	return blob && cfs_blob_epoch(blob) == ino->epoch &&
	       cfs_blob_state(blob) == CFS_BLOB_BUF;
}

/* Over bytes in memory; the number done, 0: there are none at off. */
static size_t in_place(struct write *w)
{
	struct cfs_pieces *p = w->ino->cur.pieces;
	size_t i = cfs_pieces_find(p, w->off), n;
	const struct cfs_piece *e;

	if (i == p->n || p->v[i].off > w->off || !mine(w->ino, p->v[i].blob))
		return 0;
	e = &p->v[i];
	n = (size_t)CFS_MIN((uint64_t)w->len, e->off + e->len - w->off);
	cfs_blob_write(e->blob, (size_t)(e->chunk_off + (w->off - e->off)),
		       w->data, n);
	return n;
}

/* The blob that ends where this write begins, if it can grow; else at_out is
 * left alone. */
static struct cfs_blob *growing(const struct write *w, size_t *at_out)
{
	const struct cfs_pieces *p = w->ino->cur.pieces;
	size_t i = w->off ? cfs_pieces_find(p, w->off - 1) : p->n;
	const struct cfs_piece *e;
	size_t at;

	if (i == p->n || p->v[i].off + p->v[i].len != w->off)
		return NULL;
	e = &p->v[i];
	if (!mine(w->ino, e->blob) || e->blob == w->ino->stream.tail)
		return NULL;
	at = cfs_blob_len(e->blob);
	if (e->chunk_off + e->len != at || at >= CFS_CHUNK_BYTES)
		return NULL;
	*at_out = at;
	return e->blob;
}

/* Into a blob that grows, or a new one; the number done or -ENOMEM. */
static ssize_t beside(struct write *w)
{
	_cleanup_(cfs_blob_unrefp) struct cfs_blob *blob = NULL;
	struct cfs_ino *ino = w->ino;
	size_t at = 0, n;
	struct cfs_piece piece;
	int r = cfs_pieces_own(&ino->cur.pieces, 2);

	if (r < 0)
		return r;
	blob = growing(w, &at);
	n = CFS_MIN(w->len, CFS_CHUNK_BYTES - at);
	if (blob)
		(void)cfs_blob_ref(blob);
	else
		blob = cfs_blob_new(ino->ns->store, n, ino->epoch);
	if (!blob)
		return -ENOMEM;
	r = cfs_blob_room(blob, n);
	if (r < 0)
		return r;
	cfs_blob_append(blob, w->data, n, w->room);
	piece = (struct cfs_piece){.off = w->off,
				   .len = n,
				   .blob = blob,
				   .chunk_off = (uint32_t)at};
	cfs_pieces_splice(ino->cur.pieces, &piece);
	ino->overlay_bytes += n;
	return (ssize_t)n;
}

/* Inside, lock held. */
static ssize_t write_some(struct write *w)
{
	struct cfs_ino *ino = w->ino;
	uint64_t lo = cfs_pieces_lo(ino->cur.pieces, w->off);
	ssize_t n = (ssize_t)in_place(w);

	if (!n)
		n = beside(w);
	if (n < 0)
		return n;
	ino->cur.size = CFS_MAX(ino->cur.size, w->off + (uint64_t)n);
	cfs_ino_changed(ino, lo);
	return n;
}

int cfs_overlay_write(struct cfs_ino *ino, const void *data, size_t len,
		      uint64_t off, uint64_t *room)
{
	struct write w = {ino, data, len, off, room};

	while (w.len) {
		ssize_t n;

		cfs_store_enter(ino->ns->store);
		(void)pthread_mutex_lock(&ino->lock);
		n = write_some(&w);
		(void)pthread_mutex_unlock(&ino->lock);
		cfs_store_leave(ino->ns->store);
		if (n < 0)
			return (int)n;
		w.data += n;
		w.len -= (size_t)n;
		w.off += (uint64_t)n;
	}
	return ino->overlay_bytes > OVERLAY_MAX ? cfs_overlay_flush(ino) : 0;
}

static bool loose(const struct cfs_ino *ino, const struct cfs_piece *e)
{
	return e->blob && e->blob != ino->stream.tail &&
	       cfs_blob_state(e->blob) == CFS_BLOB_BUF;
}

/* Pieces from @i on that lie side by side, are in memory and fit one chunk. */
static size_t run_of(const struct cfs_ino *ino, size_t i, size_t *len_out)
{
	const struct cfs_pieces *p = ino->cur.pieces;
	uint64_t len = 0;
	size_t j;

	for (j = i; j < p->n && loose(ino, &p->v[j]); j++) {
		if (j > i && p->v[j].off != p->v[j - 1].off + p->v[j - 1].len)
			break;
		if (j > i && len + p->v[j].len > CFS_CHUNK_BYTES)
			break;
		len += p->v[j].len;
	}
	*len_out = (size_t)len;
	return j - i;
}

/* One blob for @n pieces; io held, so that the pieces stay. */
static int gather(struct cfs_ino *ino, size_t i, size_t n, size_t len,
		  struct cfs_blob **out)
{
	_cleanup_(cfs_blob_unrefp) struct cfs_blob *blob = NULL;
	const struct cfs_piece *e = &ino->cur.pieces->v[i];
	struct cfs_piece piece = {.off = e->off, .len = len};
	uint64_t room = len;
	int r;

	blob = cfs_blob_new(ino->ns->store, len, ino->epoch);
	if (!blob)
		return -ENOMEM;
	r = cfs_store_reserve(ino->ns->store, room, true);
	for (size_t k = 0; k < n && r == 0; k++) {
		_cleanup_(cfs_blob_unrefp) struct cfs_blob *part = NULL;

		r = cfs_blob_copy(e[k].blob, e[k].chunk_off, (size_t)e[k].len,
				  0, &part);
		if (r == 0)
			cfs_blob_append(blob, cfs_blob_data(part),
					(size_t)e[k].len, &room);
	}
	if (room)
		cfs_store_unreserve(ino->ns->store, room);
	if (r < 0)
		return r;
	piece.blob = blob;
	(void)pthread_mutex_lock(&ino->lock);
	r = cfs_pieces_own(&ino->cur.pieces, 2);
	if (r == 0) {
		/* pieces may become one with those before */
		ino->cur.lo = CFS_MIN(
			ino->cur.lo, cfs_pieces_lo(ino->cur.pieces, piece.off));
		cfs_pieces_splice(ino->cur.pieces, &piece);
	}
	(void)pthread_mutex_unlock(&ino->lock);
	if (r == 0)
		*out = cfs_steal(blob);
	return r;
}

int cfs_overlay_flush(struct cfs_ino *ino)
{
	for (size_t i = 0; i < ino->cur.pieces->n; i++) {
		_cleanup_(cfs_blob_unrefp) struct cfs_blob *blob = NULL;
		const struct cfs_piece *e = &ino->cur.pieces->v[i];
		size_t len, n = run_of(ino, i, &len);
		int r = 0;

		if (!n)
			continue;
		if (n == 1 && e->len == cfs_blob_len(e->blob))
			blob = cfs_blob_ref(e->blob);
		else
			r = gather(ino, i, n, len, &blob);
		if (r == 0)
			r = cfs_blob_send(blob, 0);
		if (r < 0 && r != -EAGAIN)
			return r; /* another file's tail: EAGAIN, it waits */
	}
	ino->overlay_bytes = 0;
	return 0;
}
