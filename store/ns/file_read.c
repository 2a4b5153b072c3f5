/* Reading: find the pieces, let go of all locks, read their chunks. */
#include "store/ns/ns_internal.h"

#include <errno.h>

#define PIECES_AT_ONCE 16u
#define AHEAD_BYTES    (8u << 20)

int cfs_piece_read(struct cfs_store *store, const struct cfs_piece *piece,
		   uint64_t off, void *buf, size_t len)
{
	uint32_t at = piece->chunk_off + (uint32_t)(off - piece->off);

	if (piece->blob)
		return cfs_blob_read(piece->blob, at, buf, len);
	return cfs_store_read_chunk(store, &piece->digest, at, buf, len);
}

/* Pieces in [@off, +@len), zeros between them. */
static int read_pieces(struct cfs_store *store, const struct cfs_piece *v,
		       size_t n, uint8_t *buf, size_t len, uint64_t off)
{
	uint64_t at = off, end = off + len;

	for (size_t i = 0; i < n && v[i].off < end; i++) {
		uint64_t from = CFS_MAX(v[i].off, off);
		uint64_t to = CFS_MIN(v[i].off + v[i].len, end);
		int r;

		memset(buf + (at - off), 0, (size_t)(from - at));
		r = cfs_piece_read(store, &v[i], from, buf + (from - off),
				   (size_t)(to - from));
		if (r < 0)
			return r;
		at = to;
	}
	memset(buf + (at - off), 0, (size_t)(end - at));
	return 0;
}

int cfs_pieces_read(struct cfs_store *store, const struct cfs_pieces *pieces,
		    void *buf, size_t len, uint64_t off)
{
	size_t i = cfs_pieces_find(pieces, off);

	return read_pieces(store, pieces->v ? pieces->v + i : NULL,
			   pieces->n - i, buf, len, off);
}

/* Takes down up to PIECES_AT_ONCE pieces of [@off, +*@len) and shortens *@len
 * to what they tell; lock held. */
static size_t take(const struct cfs_pieces *p, uint64_t off, size_t *len,
		   struct cfs_piece *v)
{
	size_t i = cfs_pieces_find(p, off), n = 0;

	while (i < p->n && p->v[i].off < off + *len) {
		if (n == PIECES_AT_ONCE) {
			*len = (size_t)(p->v[i].off - off);
			break;
		}
		v[n] = p->v[i++];
		if (v[n].blob)
			(void)cfs_blob_ref(v[n].blob);
		n++;
	}
	return n;
}

/* The first of [@off, +@len): the number read; 0 at the end. */
static ssize_t read_some(struct cfs_ino *ino, uint8_t *buf, size_t len,
			 uint64_t off)
{
	struct cfs_piece v[PIECES_AT_ONCE];
	size_t n = 0;
	int r;

	(void)pthread_mutex_lock(&ino->lock);
	if (off >= ino->cur.size)
		len = 0;
	else
		len = (size_t)CFS_MIN((uint64_t)len, ino->cur.size - off);
	if (len && !ino->cur.pieces) {
		(void)pthread_mutex_unlock(&ino->lock);
		return -EAGAIN;
	}
	if (len)
		n = take(ino->cur.pieces, off, &len, v);
	(void)pthread_mutex_unlock(&ino->lock);
	r = read_pieces(ino->ns->store, v, n, buf, len, off);
	for (size_t i = 0; i < n; i++)
		cfs_blob_unref(v[i].blob);
	return r < 0 ? r : (ssize_t)len;
}

ssize_t cfs_ino_pread(struct cfs_ino *ino, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;
	int tries = 0;

	while (done < len) {
		ssize_t n = read_some(ino, (uint8_t *)buf + done, len - done,
				      off + done);

		if (n == 0)
			break;
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		/* Not loaded; or cut shorter, or replaced and collected, after
		 * the look: look again. */
		if (n == -EAGAIN) {
			int r;

			(void)pthread_mutex_lock(&ino->io);
			r = cfs_ino_load(ino);
			(void)pthread_mutex_unlock(&ino->io);
			if (r < 0)
				return r;
		} else if ((n != -ESTALE && n != -ENOENT) || ++tries > 8) {
			return n == -ESTALE || n == -ENOENT ? -EIO : n;
		}
	}
	return (ssize_t)done;
}

void cfs_pieces_advise(struct cfs_store *store, const struct cfs_pieces *pieces,
		       uint64_t off, uint64_t len)
{
	for (size_t i = cfs_pieces_find(pieces, off);
	     i < pieces->n && pieces->v[i].off < off + len; i++)
		if (!pieces->v[i].blob)
			cfs_store_advise_chunk(store, &pieces->v[i].digest);
}

/* A reader that goes on where it stopped: tells what comes next, in steps. */
static void read_ahead(struct cfs_ns_file *file, uint64_t off, size_t len)
{
	uint64_t next = atomic_exchange_explicit(&file->next, off + len,
						 memory_order_relaxed);
	uint64_t from =
		atomic_load_explicit(&file->advised, memory_order_relaxed);
	struct cfs_digest v[PIECES_AT_ONCE];
	struct cfs_ino *ino = file->ino;
	uint64_t to = off + len + AHEAD_BYTES;
	size_t n = 0;

	if (next != off || !off)
		return;
	if (from < off + len || from > to)
		from = off + len;
	if (to - from < AHEAD_BYTES / 4)
		return;
	(void)pthread_mutex_lock(&ino->lock);
	if (ino->cur.pieces) {
		const struct cfs_pieces *p = ino->cur.pieces;

		for (size_t i = cfs_pieces_find(p, from);
		     i < p->n && p->v[i].off < to; i++) {
			if (n == PIECES_AT_ONCE) {
				to = p->v[i].off;
				break;
			}
			if (!p->v[i].blob)
				v[n++] = p->v[i].digest;
		}
	}
	(void)pthread_mutex_unlock(&ino->lock);
	atomic_store_explicit(&file->advised, to, memory_order_relaxed);
	for (size_t i = 0; i < n; i++)
		cfs_store_advise_chunk(ino->ns->store, &v[i]);
}

ssize_t cfs_ns_pread(struct cfs_ns_file *file, void *buf, size_t len,
		     uint64_t off)
{
	ssize_t n;

	n = cfs_ino_pread(file->ino, buf, len, off);
	if (n > 0)
		read_ahead(file, off, (size_t)n);
	else if (n < 0)
		cfs_ns_tell_damage(file->ino->ns, file->ino->ino, (int)n);
	return n;
}
