/* pwrite: room first, then the stream or the overlay takes the bytes. */
#include "store/ns/ns_internal.h"

#include <errno.h>

#include "store/util/checked.h"

/* A write that leaves a gap begins a stream of its own if it is worth one. */
#define STREAM_LEAST (64u << 10)

/* Shall the stream take a write at @off?  Begins one. */
static int stream_takes(struct cfs_ino *ino, uint64_t off, size_t len)
{
	int r;

	if (cfs_stream_at(ino, off))
		return 1;
	if (cfs_pieces_end(ino->cur.pieces) > off)
		return 0;
	if (ino->stream.chunker) {
		if (len < STREAM_LEAST)
			return 0;
		r = cfs_stream_finish(ino);
		if (r < 0)
			return r;
	}
	r = cfs_stream_begin(ino, off);
	return r < 0 ? r : 1;
}

static int take(struct cfs_ino *ino, const void *buf, size_t len, uint64_t off,
		uint64_t *room)
{
	int r = cfs_ino_load(ino);

	if (r == 0)
		r = stream_takes(ino, off, len);
	if (r < 0)
		return r;
	if (r)
		return cfs_stream_append(ino, buf, len, room);
	return cfs_overlay_write(ino, buf, len, off, room);
}

ssize_t cfs_ns_pwrite(struct cfs_ns_file *file, const void *buf, size_t len,
		      uint64_t off)
{
	struct cfs_ino *ino = file->ino;
	uint64_t end, room = len;
	int r;

	if (!len)
		return 0;
	if (!cfs_add_u64(off, len, &end) || end > CFS_FILE_BYTES_MAX)
		return -EFBIG;
	r = cfs_store_reserve(ino->ns->store, room, false);
	if (r < 0)
		return r;
	/* release: flush sees the bytes of the writes it counts */
	atomic_store_explicit(&file->wrote, true, memory_order_release);
	(void)pthread_mutex_lock(&ino->io);
	r = take(ino, buf, len, off, &room);
	(void)pthread_mutex_unlock(&ino->io);
	if (room)
		cfs_store_unreserve(ino->ns->store, room);
	return r < 0 ? r : (ssize_t)len;
}

int cfs_ns_hint(struct cfs_ns_file *file, const struct cfs_region *region)
{
	struct cfs_ino *ino = file->ino;
	int r;

	(void)pthread_mutex_lock(&ino->io);
	r = cfs_ino_load(ino);
	if (r == 0)
		r = cfs_stream_hint(ino, region);
	(void)pthread_mutex_unlock(&ino->io);
	return r;
}
