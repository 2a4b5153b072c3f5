/* copy_file_range: the pieces are copied, not the bytes. */
#include "store/ns/ns_internal.h"

#include <errno.h>

#include "store/util/checked.h"

/* The pieces of [@off, +@len), moved to @to. */
static int take(const struct cfs_pieces *all, uint64_t off, uint64_t len,
		uint64_t to, struct cfs_pieces **out)
{
	_cleanup_(cfs_pieces_unrefp) struct cfs_pieces *some = NULL;

	some = cfs_pieces_new();
	if (!some)
		return -ENOMEM;
	for (size_t i = cfs_pieces_find(all, off);
	     i < all->n && all->v[i].off < off + len; i++) {
		struct cfs_piece e = all->v[i];
		uint64_t from = CFS_MAX(e.off, off);
		uint64_t end = CFS_MIN(e.off + e.len, off + len);
		int r;

		e.chunk_off += (uint32_t)(from - e.off);
		e.off = to + (from - off);
		e.len = end - from;
		r = cfs_pieces_push(some, &e);
		if (r < 0)
			return r;
	}
	*out = cfs_steal(some);
	return 0;
}

/* Inside: gc under way keeps what is referred to once more. */
static int touch(struct cfs_ns *ns, const struct cfs_pieces *pieces)
{
	for (size_t i = 0; i < pieces->n; i++) {
		const struct cfs_piece *e = &pieces->v[i];
		struct cfs_digest digest = e->digest;
		int r;

		if (i && !e->blob && !e[-1].blob &&
		    !cfs_digest_cmp(&e->digest, &e[-1].digest))
			continue;
		if (e->blob && !cfs_blob_poll(e->blob, &digest))
			continue; /* on its way: ingest tells gc */
		r = cfs_store_touch_chunk(ns->store, &digest);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Inside, lock held: [@off, +@len) of @ino becomes @pieces. */
static int paste(struct cfs_ino *ino, const struct cfs_pieces *pieces,
		 uint64_t off, uint64_t len)
{
	uint64_t lo;
	int r = cfs_pieces_own(&ino->cur.pieces, pieces->n + 2);

	if (r < 0)
		return r;
	lo = cfs_pieces_lo(ino->cur.pieces, CFS_MIN(off, ino->cur.size));
	cfs_pieces_punch(ino->cur.pieces, off, len);
	for (size_t i = 0; i < pieces->n; i++)
		cfs_pieces_splice(ino->cur.pieces, &pieces->v[i]);
	ino->cur.size = CFS_MAX(ino->cur.size, off + len);
	cfs_ino_changed(ino, lo);
	return 0;
}

/* The bytes of @pin at @off, @len of them, to @to of @ino. */
static int copy(struct cfs_ino *ino, const struct cfs_pin *pin, uint64_t off,
		uint64_t len, uint64_t to)
{
	_cleanup_(cfs_pieces_unrefp) struct cfs_pieces *pieces = NULL;
	struct cfs_store *store = ino->ns->store;
	int r = take(pin->pieces, off, len, to, &pieces);

	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&ino->io);
	r = cfs_ino_load(ino);
	if (r == 0) {
		cfs_store_enter(store);
		r = touch(ino->ns, pieces);
		(void)pthread_mutex_lock(&ino->lock);
		if (r == 0)
			r = paste(ino, pieces, to, len);
		(void)pthread_mutex_unlock(&ino->lock);
		cfs_store_leave(store);
	}
	(void)pthread_mutex_unlock(&ino->io);
	return r;
}

ssize_t cfs_ns_copy_range(struct cfs_ns_file *in, uint64_t in_off,
			  struct cfs_ns_file *out, uint64_t out_off, size_t len)
{
	struct cfs_ns *ns = out->ino->ns;
	struct cfs_pin pin = {0};
	uint64_t n = 0, end;
	struct stat st;
	int r;

	if (!cfs_add_u64(out_off, len, &end) || end > CFS_FILE_BYTES_MAX)
		return -EFBIG;
	if (in->ino == out->ino && in_off < end && out_off < in_off + len)
		return -EINVAL;
	r = cfs_ns_room(ns);
	if (r == 0)
		r = cfs_ino_pin(in->ino, &pin, &st);
	if (r)
		return r;
	if (in_off < (uint64_t)st.st_size)
		n = CFS_MIN((uint64_t)len, (uint64_t)st.st_size - in_off);
	if (n) {
		atomic_store_explicit(&out->wrote, true, memory_order_release);
		r = copy(out->ino, &pin, in_off, n, out_off);
	}
	cfs_ino_unpin(ns, &pin);

	return r < 0 ? r : (ssize_t)n;
}
