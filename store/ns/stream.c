/*
 * Appending: bytes gather in a tail; where the chunker says so its front
 * becomes a chunk of its own and is handed to ingest.
 */
#include "store/ns/ns_internal.h"

#include <errno.h>

/* Appended at a time: what a cut leaves behind is at most about this long and
 * has to be copied. */
#define STEP_BYTES (128u << 10)
#define TAIL_FIRST (16u << 10)
#define TAIL_NEXT  (CFS_CHUNK_BYTES + CFS_CHUNK_BYTES / 2)

static size_t tail_len(const struct cfs_stream *s)
{
	return s->tail ? cfs_blob_len(s->tail) : 0;
}

bool cfs_stream_at(const struct cfs_ino *ino, uint64_t off)
{
	const struct cfs_stream *s = &ino->stream;

	return s->chunker && s->start + tail_len(s) == off;
}

static void end_sniff(struct cfs_ino *ino)
{
	struct cfs_stream *s = &ino->stream;

	if (s->sniff)
		ino->ns->sniffer->end(cfs_steal(s->sniff));
}

void cfs_stream_end(struct cfs_ino *ino)
{
	struct cfs_stream *s = &ino->stream;

	end_sniff(ino);
	cfs_chunker_free(cfs_steal(s->chunker));
	if (s->tail) {
		cfs_blob_set_tail(s->tail, false);
		ino->overlay_bytes += cfs_blob_len(s->tail);
		cfs_blob_unref(cfs_steal(s->tail));
	}
}

/* The chunk before @off if it may still grow: its bytes become the tail again
 * and the file's pieces the tail's. */
static int reopen(struct cfs_ino *ino, uint64_t off)
{
	_cleanup_(cfs_blob_unrefp) struct cfs_blob *tail = NULL;
	_cleanup_(cfs_freep) uint8_t *bytes = NULL;
	const struct cfs_pieces *p = ino->cur.pieces;
	const struct cfs_piece *last = p->n ? &p->v[p->n - 1] : NULL;
	struct cfs_store *store = ino->ns->store;
	struct cfs_piece piece;
	size_t whole;
	uint64_t room;
	int r;

	if (!last || last->off + last->len != off || last->chunk_off)
		return 0;
	whole = last->blob ? cfs_blob_len(last->blob) : last->chunk_len;
	if (last->len != whole || whole >= CFS_CHUNK_BYTES)
		return 0;
	tail = cfs_blob_new(store, whole + TAIL_FIRST, ino->epoch);
	bytes = malloc(whole);
	if (!tail || !bytes)
		return -ENOMEM;
	r = cfs_piece_read(store, last, last->off, bytes, whole);
	if (r < 0)
		return r;
	room = whole;
	r = cfs_store_reserve(store, room, false);
	if (r < 0)
		return r;
	cfs_blob_append(tail, bytes, whole, &room);
	cfs_blob_set_tail(tail, true);
	piece = (struct cfs_piece){
		.off = last->off, .len = whole, .blob = tail};
	(void)pthread_mutex_lock(&ino->lock);
	r = cfs_pieces_own(&ino->cur.pieces, 2);
	if (r == 0) {
		cfs_pieces_splice(ino->cur.pieces, &piece);
		ino->cur.lo = CFS_MIN(ino->cur.lo, piece.off);
	}
	(void)pthread_mutex_unlock(&ino->lock);
	if (r < 0)
		return r;
	ino->stream.start = piece.off;
	ino->stream.tail = cfs_steal(tail);
	return 0;
}

int cfs_stream_begin(struct cfs_ino *ino, uint64_t off)
{
	struct cfs_stream *s = &ino->stream;
	int r;

	s->start = off;
	r = reopen(ino, off);
	if (r < 0 && r != -ENOSPC && r != -EDQUOT)
		return r;
	s->chunker = cfs_chunker_new(s->start);
	if (!s->chunker) {
		cfs_stream_end(ino);
		return -ENOMEM;
	}
	if (!off && ino->ns->sniffer && ino->name) {
		s->sniff = ino->ns->sniffer->begin(ino->name);
		s->sniff_want = 0;
	}
	return 0;
}

static void on_region(void *arg, const struct cfs_region *region)
{
	/* without the hint it is cut elsewhere, which is no error */
	if (cfs_chunker_hint(arg, region) < 0)
		return;
}

static void sniff(struct cfs_ino *ino, const uint8_t *data, size_t len,
		  uint64_t off)
{
	struct cfs_stream *s = &ino->stream;
	size_t skip;

	if (!s->sniff || s->sniff_want >= off + len)
		return;
	skip = s->sniff_want > off ? (size_t)(s->sniff_want - off) : 0;
	s->sniff_want =
		ino->ns->sniffer->feed(s->sniff, data + skip, len - skip,
				       off + skip, on_region, s->chunker);
	if (s->sniff_want == UINT64_MAX)
		end_sniff(ino);
}

/* Is @e of the tail, where it was appended?  Copies of it elsewhere in the
 * file keep the blob they have. */
static bool of_tail(const struct cfs_ino *ino, const struct cfs_piece *e)
{
	return e->blob == ino->stream.tail && e->off >= ino->stream.start &&
	       e->off - ino->stream.start == e->chunk_off;
}

/* Pieces of the tail [start, …) now are of @chunk up to @n, else of @rest. */
static void retarget(struct cfs_ino *ino, struct cfs_blob *tail,
		     struct cfs_blob *chunk, struct cfs_blob *rest, size_t n)
{
	struct cfs_pieces *p = ino->cur.pieces;
	size_t i = cfs_pieces_find(p, ino->stream.start + n);

	/* what was written over it has keys of its own: it stays whole */
	if (i < p->n && of_tail(ino, &p->v[i]))
		cfs_pieces_split(p, ino->stream.start + n);
	for (i = cfs_pieces_find(p, ino->stream.start); i < p->n; i++) {
		struct cfs_piece *e = &p->v[i];
		bool behind = e->chunk_off >= n;
		struct cfs_blob *to = behind ? rest : chunk;

		if (to == tail || !of_tail(ino, e))
			continue;
		e->blob = cfs_blob_ref(to);
		cfs_blob_unref(tail);
		if (behind)
			e->chunk_off -= (uint32_t)n;
	}
}

/* The first @n bytes of the tail become *@chunk_out; lock held. */
static int cut_front(struct cfs_ino *ino, size_t n, struct cfs_blob **chunk_out)
{
	_cleanup_(cfs_blob_unrefp) struct cfs_blob *chunk = NULL;
	struct cfs_stream *s = &ino->stream;
	struct cfs_blob *tail = s->tail, *rest = NULL;
	/* a snapshot may refer to any of its bytes: it gets to keep them */
	bool shared = cfs_blob_epoch(tail) != ino->epoch;
	int r = cfs_pieces_own(&ino->cur.pieces, 1);

	if (r < 0)
		return r;
	if (shared)
		r = cfs_blob_take(tail, n, ino->epoch, &chunk);
	else
		chunk = cfs_blob_ref(tail);
	if (r == 0)
		r = cfs_blob_split(tail, n, TAIL_NEXT, ino->epoch, shared,
				   &rest);
	if (r < 0)
		return r;
	if (rest)
		cfs_blob_set_tail(rest, true);
	retarget(ino, tail, chunk, rest, n);
	/* keys may tell of one piece where there are two now */
	ino->cur.lo = CFS_MIN(ino->cur.lo, s->start);
	cfs_blob_set_tail(tail, false);
	s->tail = rest;
	s->start += n;
	cfs_blob_unref(tail);
	*chunk_out = cfs_steal(chunk);
	return 0;
}

/* Cuts what can be cut. */
static int cut(struct cfs_ino *ino, bool eof)
{
	struct cfs_stream *s = &ino->stream;

	while (s->tail) {
		_cleanup_(cfs_blob_unrefp) struct cfs_blob *chunk = NULL;
		uint32_t elem_size = 0;
		size_t n;
		int r;

		n = cfs_chunker_next(s->chunker, cfs_blob_data(s->tail),
				     tail_len(s), eof, &elem_size);
		if (!n)
			return 0;
		(void)pthread_mutex_lock(&ino->lock);
		r = cut_front(ino, n, &chunk);
		(void)pthread_mutex_unlock(&ino->lock);
		/* without memory it is cut somewhere else, at the next write */
		if (r == 0)
			r = cfs_blob_send(chunk, elem_size);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * At most STEP_BYTES; io held.  The caller's bytes are read once, by the copy
 * into the tail, and looked at there only: they may lie in memory that another
 * process still writes to, and what is stored must be what was looked at.
 */
static int step(struct cfs_ino *ino, const uint8_t *data, size_t len,
		uint64_t *room)
{
	struct cfs_stream *s = &ino->stream;
	struct cfs_store *store = ino->ns->store;
	size_t had = tail_len(s);
	struct cfs_piece piece = {
		.off = s->start + had, .len = len, .chunk_off = (uint32_t)had};
	int r = 0;

	if (!s->tail) {
		size_t cap =
			s->start || len == STEP_BYTES ? TAIL_NEXT : TAIL_FIRST;

		s->tail = cfs_blob_new(store, CFS_MAX(cap, len), ino->epoch);
		if (!s->tail)
			return -ENOMEM;
		cfs_blob_set_tail(s->tail, true);
	}
	r = cfs_blob_room(s->tail, len);
	if (r < 0)
		return r;
	piece.blob = s->tail;

	cfs_store_enter(store);
	(void)pthread_mutex_lock(&ino->lock);
	r = cfs_pieces_own(&ino->cur.pieces, 2);
	if (r == 0) {
		uint64_t lo = cfs_pieces_lo(ino->cur.pieces, piece.off);

		cfs_blob_append(s->tail, data, len, room);
		cfs_pieces_splice(ino->cur.pieces, &piece);
		ino->cur.size = CFS_MAX(ino->cur.size, piece.off + len);
		cfs_ino_changed(ino, lo);
	}
	(void)pthread_mutex_unlock(&ino->lock);
	cfs_store_leave(store);
	if (r < 0)
		return r;
	sniff(ino, cfs_blob_data(s->tail) + had, len, piece.off);
	return cut(ino, false);
}

int cfs_stream_hint(struct cfs_ino *ino, const struct cfs_region *region)
{
	int r = 0;

	if (!ino->stream.chunker)
		r = cfs_stream_begin(ino, cfs_pieces_end(ino->cur.pieces));
	end_sniff(ino); /* who writes it knows better */
	return r < 0 ? r : cfs_chunker_hint(ino->stream.chunker, region);
}

int cfs_stream_append(struct cfs_ino *ino, const void *data, size_t len,
		      uint64_t *room)
{
	const uint8_t *p = data;

	while (len) {
		size_t n, left = CFS_CHUNK_BYTES_MAX - tail_len(&ino->stream);
		int r;

		/* an earlier cut may have found no memory */
		if (!left) {
			r = cut(ino, false);
			if (r < 0)
				return r;
			left = CFS_CHUNK_BYTES_MAX - tail_len(&ino->stream);
		}
		/* a commit may take the tail as one chunk at any moment */
		n = CFS_MIN(CFS_MIN(len, left), (size_t)STEP_BYTES);
		r = step(ino, p, n, room);
		if (r < 0)
			return r;
		p += n;
		len -= n;
	}
	return 0;
}

int cfs_stream_finish(struct cfs_ino *ino)
{
	int r = ino->stream.chunker ? cut(ino, true) : 0;

	cfs_stream_end(ino);
	return r;
}
