/* Computed blocks, shared by all readers: single flight, LRU, bounded. */
#ifndef CFS_MAP_BLOCKCACHE_H
#define CFS_MAP_BLOCKCACHE_H

#include <stddef.h>
#include <stdint.h>

#include "store/map/eval.h"

struct cfs_block; /* held: its bytes stay */

/* Fills @len bytes; 0 or a negative errno.  No lock is held meanwhile. */
typedef int cfs_block_fn(void *arg, uint8_t *data, size_t len);

/*
 * The block @index of expr @id, from the cache or from @fn, which runs once
 * for all who ask at the same time.  They share its error, which nobody keeps:
 * whoever asks next tries anew.  -ENOMEM or what @fn returned.
 *
 * @fn may ask for blocks of other exprs, as long as those never wait for this
 * one: exprs only have descendants, so they do not.
 */
CFS_MUST_CHECK int cfs_blockcache_get(struct cfs_blockcache *cache, uint64_t id,
				      uint64_t index, size_t len,
				      cfs_block_fn *fn, void *arg,
				      struct cfs_block **block_out);
const uint8_t *cfs_blockcache_data(const struct cfs_block *block);
void cfs_blockcache_put(struct cfs_blockcache *cache, struct cfs_block *block);

struct cfs_blockcache_stats {
	uint64_t hits;	   /* ready, or waited for */
	uint64_t computed; /* calls of the function */
	size_t bytes;	   /* held now, those being computed too */
};
void cfs_blockcache_stats(struct cfs_blockcache *cache,
			  struct cfs_blockcache_stats *out);

#endif
