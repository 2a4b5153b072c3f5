/* Chunks seen so far, with a few numbers each: for du, stats and send. */
#ifndef CFS_DAEMON_CHUNKSET_H
#define CFS_DAEMON_CHUNKSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_digest;

/* 128 bits of a digest name a chunk: enough among those of one store. */
struct cfs_chunkset_item {
	uint64_t key[2];
	uint32_t stored, raw; /* bytes */
	uint32_t owner, last; /* the user's */
};
/* Of memory 64 bytes a chunk at most.  Zeroed is empty. */
struct cfs_chunkset {
	struct cfs_chunkset_item *slots; /* open addressing; key 0 0: free */
	size_t n, mask;
};

/* The item of @digest, @fresh_out: made now, its numbers 0.  Valid until the
 * next put.  -ENOMEM. */
CFS_MUST_CHECK int cfs_chunkset_put(struct cfs_chunkset *set,
				    const struct cfs_digest *digest,
				    struct cfs_chunkset_item **item_out,
				    bool *fresh_out);
/* NULL: it is not there. */
struct cfs_chunkset_item *cfs_chunkset_get(const struct cfs_chunkset *set,
					   const struct cfs_digest *digest);
void cfs_chunkset_free(struct cfs_chunkset *set); /* for _cleanup_ too */

/* The same for inode numbers. */
CFS_MUST_CHECK int
cfs_chunkset_put_ino_item(struct cfs_chunkset *set, uint64_t ino,
			  struct cfs_chunkset_item **item_out, bool *fresh_out);
/* 1 when @ino was there already, 0, -ENOMEM. */
CFS_MUST_CHECK int cfs_chunkset_put_ino(struct cfs_chunkset *set, uint64_t ino);

#endif
