/* Sums and products of sizes that come from outside: false on overflow. */
#ifndef CFS_UTIL_CHECKED_H
#define CFS_UTIL_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

#include "store/util/base.h"

CFS_MUST_CHECK static inline bool cfs_add_u64(uint64_t a, uint64_t b,
					      uint64_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}

CFS_MUST_CHECK static inline bool cfs_mul_u64(uint64_t a, uint64_t b,
					      uint64_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

/* Is [off, off + len) inside [0, size)?  Never overflows. */
CFS_MUST_CHECK static inline bool cfs_range_ok(uint64_t off, uint64_t len,
					       uint64_t size)
{
	return off <= size && len <= size - off;
}

static inline uint64_t cfs_div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

#endif
