/* Bytes made shorter: as text, or as one byte plane of numbers. */
#ifndef CFS_CHUNK_SQUEEZE_H
#define CFS_CHUNK_SQUEEZE_H

#include <stddef.h>
#include <stdint.h>

#include "store/chunk/chunk_internal.h"

struct cfs_squeeze;			   /* one thread's */
struct cfs_squeeze *cfs_squeeze_new(void); /* NULL: no memory */
void cfs_squeeze_free(struct cfs_squeeze *squeeze);

/*
 * Anything, by matches and entropy.  @len bytes to at most @room; returns the
 * length, 0 where it does not fit (or zstd has no memory).
 */
size_t cfs_squeeze_text(struct cfs_squeeze *squeeze, const uint8_t *src,
			size_t len, uint8_t *dst, size_t room);
/* How a plane is made shorter. */
enum cfs_squeeze_way {
	CFS_SQUEEZE_ENTROPY,
	CFS_SQUEEZE_MATCHES, /* and entropy */
	CFS_SQUEEZE_QUICK,   /* codes where they do, else entropy */
};

/*
 * The same for one byte plane of numbers; nothing is tried where a look at some
 * of the bytes shows noise.
 */
size_t cfs_squeeze_plane(struct cfs_squeeze *squeeze, enum cfs_squeeze_way way,
			 const uint8_t *src, size_t len, uint8_t *dst,
			 size_t room, enum cfs_plane_how *how_out);

#endif
