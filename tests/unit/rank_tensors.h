/* A step's tensors as a reader of directories finds them: what other ways to
 * them are compared with. */
#ifndef CFS_RANK_TENSORS_H
#define CFS_RANK_TENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "store/map/dtype.h"

struct expected;
struct expected_param {
	const char *name;
	uint32_t ndim;
	const uint64_t *shape;
	bool frozen;
};

struct expected *expect_open(const char *run, const char *step);
void expect_close(struct expected *e);
uint32_t expect_params(const struct expected *e);
/* Until the next call. */
const struct expected_param *expect_param(const struct expected *e, uint32_t i);
/* The caller frees it. */
uint8_t *expect_bytes(const struct expected *e, const char *name,
		      const char *role, enum cfs_dtype *dtype_out,
		      uint64_t *len_out);

#endif
