/* XXH3 (libxxhash): stable identities, not protection against an attacker. */
#ifndef CFS_UTIL_HASH_H
#define CFS_UTIL_HASH_H

#include <stddef.h>
#include <stdint.h>

/* The same on every machine and in every release. */
uint64_t cfs_hash64(const void *data, size_t len, uint64_t seed);

#endif
