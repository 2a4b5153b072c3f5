#include "store/util/hash.h"

#include <xxhash.h>

/* The same hash by wider instructions where the processor has them. */
#ifdef CFS_HAS_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

uint64_t cfs_hash64(const void *data, size_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, len, seed);
}
