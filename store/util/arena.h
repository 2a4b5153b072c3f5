/* Many small objects that live and die together, under one memory limit. */
#ifndef CFS_UTIL_ARENA_H
#define CFS_UTIL_ARENA_H

#include <stddef.h>

#include "store/util/base.h"

struct cfs_arena; /* opaque; not locked: one thread allocates at a time */

/* @limit_bytes: cfs_arena_alloc() fails beyond it; 0 means no limit. */
struct cfs_arena *cfs_arena_new(size_t limit_bytes);
void cfs_arena_free(struct cfs_arena *arena);
void cfs_arena_freep(struct cfs_arena **arena);

/* Zeroed, aligned for any type; NULL when out of memory or over the limit. */
CFS_MUST_CHECK void *cfs_arena_alloc(struct cfs_arena *arena, size_t size);

/* A NUL-terminated copy of @len bytes. */
CFS_MUST_CHECK char *cfs_arena_strndup(struct cfs_arena *arena, const char *s,
				       size_t len);

/* Bytes handed out so far. */
size_t cfs_arena_used(const struct cfs_arena *arena);

#endif
