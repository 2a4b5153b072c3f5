/*
 * Where a stream is cut into chunks: on the grid of a parameter where a
 * sniffer saw one, else by content on element borders.
 */
#ifndef CFS_CHUNK_CHUNKER_H
#define CFS_CHUNK_CHUNKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

/*
 * With hints: a region on a grid with at least 64 KiB in this file is cut at
 * its ends and on the grid.  What lies between such (heads, small parameters,
 * other regions) is cut by content, 256 KiB to 4 MiB, at element borders where
 * they are known and at any byte where not; small neighbours share a chunk.
 */

/*
 * Elements of one parameter (or of something that is none) in a file.
 * @phase: bytes of the parameter that come before it elsewhere (another rank's
 * file); cuts fall where (offset in the parameter) is a multiple of
 * CFS_CHUNK_BYTES, so that every layout meets the same chunks.
 */
struct cfs_region {
	uint64_t off, len, phase;
	uint32_t elem_size; /* 0 unknown */
	bool grid; /* false: cut by content, only @elem_size is known */
};

typedef void cfs_region_fn(void *arg, const struct cfs_region *region);

/*
 * Knows containers: tells regions of a file while it is written.  Registered
 * by the program (fs/container makes one); an error means "no hint".
 */
struct cfs_sniffer_ops {
	/* A new file called @name (last component); NULL: no interest. */
	void *(*begin)(const char *name);
	/*
	 * The next bytes; @off is what begin (0) or the last feed asked for,
	 * or less.  Emits regions in ascending order, only such as lie behind
	 * all bytes fed before this call.  Returns the offset it wants to see
	 * next (bytes between are skipped), UINT64_MAX: nothing more.
	 */
	uint64_t (*feed)(void *sniff, const void *data, size_t len,
			 uint64_t off, cfs_region_fn *emit, void *arg);
	void (*end)(void *sniff);
};

struct cfs_chunker;
/* A stream that begins at @off of its file; NULL: no memory. */
struct cfs_chunker *cfs_chunker_new(uint64_t off);
void cfs_chunker_free(struct cfs_chunker *chunker);
/* A region not yet cut through (others are ignored); ascending.  -ENOMEM. */
CFS_MUST_CHECK int cfs_chunker_hint(struct cfs_chunker *chunker,
				    const struct cfs_region *region);
/**
 * cfs_chunker_next - the length of the next chunk
 * @data: all bytes from where the last chunk ended, so each call either
 *        answers or is repeated with more
 * @eof:  nothing follows
 *
 * @elem_size_out: for cfs_chunk_encode(): the one size of all regions it
 *        touches, else 0; set with an answer only
 *
 * Returns 1 to CFS_CHUNK_BYTES_MAX, at most @len; 0 when more bytes are needed
 * (never with @eof or with CFS_CHUNK_BYTES_MAX bytes, unless @len is 0).  What
 * was scanned is not scanned again.  The same bytes and hints give the same
 * chunks however they were split over calls.
 */
size_t cfs_chunker_next(struct cfs_chunker *chunker, const void *data,
			size_t len, bool eof, uint32_t *elem_size_out);

#endif
