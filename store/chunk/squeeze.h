/* The two ways in which zstd is used: for its matches, or without them. */
#ifndef CFS_CHUNK_SQUEEZE_H
#define CFS_CHUNK_SQUEEZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfs_squeeze;			   /* one thread's */
struct cfs_squeeze *cfs_squeeze_new(void); /* NULL: no memory */
void cfs_squeeze_free(struct cfs_squeeze *squeeze);

/*
 * Anything, by matches and entropy.  @len bytes to at most @room; returns the
 * length, 0 where it does not fit (or zstd has no memory).
 */
size_t cfs_squeeze_text(struct cfs_squeeze *squeeze, const uint8_t *src,
			size_t len, uint8_t *dst, size_t room);
/*
 * The same for one byte plane of numbers: entropy alone unless @matches are
 * expected, and not even that where a look at some of the bytes shows noise.
 */
size_t cfs_squeeze_plane(struct cfs_squeeze *squeeze, bool matches,
			 const uint8_t *src, size_t len, uint8_t *dst,
			 size_t room);

#endif
