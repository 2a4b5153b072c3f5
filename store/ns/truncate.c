/* Changing the size, taking bytes away, setting room aside. */
#include "store/ns/ns_internal.h"

#include <errno.h>
#include <linux/falloc.h>

#include "store/util/checked.h"

void cfs_ino_unstage(struct cfs_ino *ino)
{
	if (!ino->staged)
		return;
	cfs_pieces_unref(ino->staged->pieces);
	free(cfs_steal(ino->staged));
	if (ino->marker)
		cfs_ns_points(ino->ns);
	ino->cur.dirty = true;
	ino->cur.lo = 0;
	cfs_ino_mark(ino);
}

/* What is there stays what recovery shows; lock held. */
static void stage(struct cfs_ino *ino, struct cfs_content *copy)
{
	*copy = ino->cur;
	if (copy->pieces)
		(void)cfs_pieces_ref(copy->pieces);
	cfs_ino_share(ino);
	ino->staged = copy;
	ino->cur.dirty = false;
	ino->cur.lo = UINT64_MAX;
}

/* All of it goes: cheap however long the file was.  io held. */
static int empty(struct cfs_ino *ino, bool staging)
{
	struct cfs_pieces *fresh = cfs_pieces_new();
	struct cfs_content *copy = malloc(sizeof(*copy));

	if (!fresh || !copy) {
		cfs_pieces_unref(fresh);
		free(copy);
		return -ENOMEM;
	}
	cfs_stream_end(ino);
	cfs_store_enter(ino->ns->store);
	(void)pthread_mutex_lock(&ino->lock);
	if (staging && !ino->staged && ino->cur.size &&
	    ino->cur.size <= CFS_STAGED_MAX)
		stage(ino, cfs_steal(copy));
	cfs_pieces_unref(ino->cur.pieces);
	ino->cur.pieces = fresh;
	ino->cur.size = 0;
	ino->due = 0;
	cfs_ino_changed(ino, 0);
	(void)pthread_mutex_unlock(&ino->lock);
	cfs_store_leave(ino->ns->store);
	ino->overlay_bytes = 0;
	free(copy);
	return 0;
}

/* io held, loaded. */
static int resize(struct cfs_ino *ino, uint64_t size)
{
	int r;

	/* what follows the new end is not what the tail ends with */
	if (size < cfs_pieces_end(ino->cur.pieces))
		cfs_stream_end(ino);
	cfs_store_enter(ino->ns->store);
	(void)pthread_mutex_lock(&ino->lock);
	r = cfs_pieces_own(&ino->cur.pieces, 1);
	if (r == 0) {
		uint64_t lo = CFS_MIN(size, ino->cur.size);

		lo = cfs_pieces_lo(ino->cur.pieces, lo);
		cfs_pieces_punch(ino->cur.pieces, size, UINT64_MAX);
		ino->cur.size = size;
		cfs_ino_changed(ino, lo);
	}
	(void)pthread_mutex_unlock(&ino->lock);
	cfs_store_leave(ino->ns->store);
	return r;
}

int cfs_ino_truncate(struct cfs_ino *ino, uint64_t size, bool staging)
{
	int r;

	if (size > CFS_FILE_BYTES_MAX)
		return -EFBIG;
	(void)pthread_mutex_lock(&ino->io);
	if (!size) {
		r = empty(ino, staging);
	} else {
		r = cfs_ino_load(ino);
		if (r == 0)
			r = resize(ino, size);
	}
	if (r == 0) {
		(void)pthread_mutex_lock(&ino->lock);
		cfs_ino_unload(ino);
		(void)pthread_mutex_unlock(&ino->lock);
	}
	(void)pthread_mutex_unlock(&ino->io);
	return r;
}

/* io held, loaded: zeros in [@off, @end), the size at least @size. */
static int punch(struct cfs_ino *ino, uint64_t off, uint64_t end, uint64_t size)
{
	int r;

	cfs_store_enter(ino->ns->store);
	(void)pthread_mutex_lock(&ino->lock);
	r = cfs_pieces_own(&ino->cur.pieces, 1);
	if (r == 0) {
		uint64_t lo = CFS_MIN(off, ino->cur.size);

		lo = cfs_pieces_lo(ino->cur.pieces, lo);
		cfs_pieces_punch(ino->cur.pieces, off, end - off);
		ino->cur.size = CFS_MAX(ino->cur.size, size);
		cfs_ino_changed(ino, lo);
	}
	(void)pthread_mutex_unlock(&ino->lock);
	cfs_store_leave(ino->ns->store);
	return r;
}

/* Only longer, or only told that there is room. */
static int extend(struct cfs_ino *ino, uint64_t len, uint64_t size)
{
	struct cfs_store *store = ino->ns->store;
	int r = cfs_store_reserve(store, len, false);

	/* Nothing can be set aside for good in a log that keeps things once,
	 * but what does not fit now is refused now. */
	if (r < 0)
		return r;
	cfs_store_unreserve(store, len);
	return size > ino->cur.size ? resize(ino, size) : 0;
}

int cfs_ns_fallocate(struct cfs_ns_file *file, int mode, uint64_t off,
		     uint64_t len)
{
	const int keep = mode & FALLOC_FL_KEEP_SIZE;
	const int what = mode & ~FALLOC_FL_KEEP_SIZE;
	struct cfs_ino *ino = file->ino;
	uint64_t end;
	int r;

	if (!len)
		return -EINVAL;
	if (!cfs_add_u64(off, len, &end) || end > CFS_FILE_BYTES_MAX)
		return -EFBIG;
	if (what & ~(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) ||
	    what == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) ||
	    (what == FALLOC_FL_PUNCH_HOLE && !keep))
		return -EOPNOTSUPP;
	(void)pthread_mutex_lock(&ino->io);
	r = cfs_ino_load(ino);
	if (r == 0 && what)
		r = punch(ino, off, end, keep ? 0 : end);
	else if (r == 0)
		r = extend(ino, len, keep ? 0 : end);
	(void)pthread_mutex_unlock(&ino->io);
	if (r == 0)
		atomic_store_explicit(&file->wrote, true, memory_order_release);
	return r;
}
