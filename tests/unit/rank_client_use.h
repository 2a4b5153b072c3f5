/* What tests of the rank client put, and what a rank's process tells. */
#ifndef CFS_RANK_CLIENT_USE_H
#define CFS_RANK_CLIENT_USE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <ckptfs/rank.h>

#define RING  (1u << 20) /* 8 slots of 128 KiB */
#define SLOT  (128u << 10)
#define RANKS 8

static inline uint8_t *random_bytes(uint32_t seed, size_t len)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
	uint8_t *data = malloc(len + 8);
	size_t i;

	for (i = 0; i < len; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(data + i, &x, 8);
	}
	return data;
}

static inline int put_flat(struct cfs_rank_save *save, const char *name,
			   const char *role, uint32_t dtype, uint64_t all,
			   uint64_t from, uint64_t n, const void *data)
{
	struct cfs_rank_tensor t = {.size = sizeof(t),
				    .name = name,
				    .role = role,
				    .dtype = dtype,
				    .ndim = 1,
				    .shape = {all},
				    .extent = {all},
				    .flat_start = from,
				    .flat_count = n};

	return cfs_rank_put(save, &t, data, CFS_RANK_HOST, NULL);
}

/* What a rank writes to its file. */
static inline uint8_t *bytes_of(uint32_t rank)
{
	return random_bytes(100 + rank, 2 * RING);
}

/* What a rank's process says at its end. */
struct said {
	int r;
	char text[640];
};

#endif
