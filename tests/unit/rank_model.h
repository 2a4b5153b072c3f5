/* A small model: what ranks put of it, and what a reader has to find. */
#ifndef CFS_RANK_MODEL_H
#define CFS_RANK_MODEL_H

#include <stdint.h>

#include "tests/test.h"

struct cfs_ns;

struct tensor {
	const char *name;
	uint64_t rows, columns;
};
static const struct tensor model[] = {
	{"emb.weight", 1030, 517},
	{"1.weight", 600, 517},
	{"l1.bias", 600, 1},
};
static const char *const roles[] = {"master", "exp_avg", "exp_avg_sq"};

/* Elements of a tensor; small numbers, as floats. */
static inline float *values(const struct tensor *t, uint64_t seed)
{
	uint64_t n = t->rows * t->columns, state = seed * 77 + 13;
	float *v = malloc(n * sizeof(*v));

	ck_assert_ptr_nonnull(v);
	for (uint64_t i = 0; i < n; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		v[i] = (float)(state % 100000) / 4096.0f;
	}
	return v;
}

/* Every element of the optimizer's state, through the reader of @format; @dp 0:
 * any. */
void rank_expect_step(struct cfs_ns *ns, const char *format, const char *path,
		      uint32_t dp);

#endif
