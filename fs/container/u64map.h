/* Hash map from u64 (never 0) to u64; internal to fs/container. */
#ifndef CFS_CONTAINER_U64MAP_H
#define CFS_CONTAINER_U64MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_u64map {
	struct cfs_u64map_slot {
		uint64_t key, value;
	} * slots;
	size_t n, cap; /* cap: a power of two, or 0 */
};

#define CFS_U64MAP_INIT                                                        \
	{                                                                      \
		NULL, 0, 0                                                     \
	}

/* The key of an object. */
static inline uint64_t cfs_u64map_of(const void *p)
{
	return (uintptr_t)p;
}

void cfs_u64map_free(struct cfs_u64map *map); /* for _cleanup_ too */
/* The place of @key's value, or NULL; valid until the next put. */
uint64_t *cfs_u64map_find(const struct cfs_u64map *map, uint64_t key);
/* Sets or replaces; false when out of memory. */
CFS_MUST_CHECK bool cfs_u64map_put(struct cfs_u64map *map, uint64_t key,
				   uint64_t value);
static inline size_t cfs_u64map_bytes(const struct cfs_u64map *map)
{
	return map->cap * sizeof(*map->slots);
}

/* A number unknown outside this process, so that nobody plans collisions. */
uint64_t cfs_u64map_seed(void);

#endif
