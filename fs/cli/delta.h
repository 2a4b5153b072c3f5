/* How far two tensors of the same number of elements are apart. */
#ifndef CFS_CLI_DELTA_H
#define CFS_CLI_DELTA_H

#include <stdbool.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_progress;
struct cfs_tensors;
struct cfs_tensors_item;

struct cfs_delta {
	uint64_t n_differ; /* elements; NaN equals NaN, -0 equals 0 */
	uint64_t first;	   /* the first of them */
	bool numbers;	   /* the rest is set: both are numbers */
	double max_abs;	   /* infinite where only one is finite or NaN */
	double relative;   /* |a - b| / |a|, both 2-norms of finite pairs */
};

/*
 * Streams over both with two blocks of memory: bytes as long as they are the
 * same, else once more as numbers.  0 or the error of a read.
 */
CFS_MUST_CHECK int cfs_delta_compare(const struct cfs_tensors *set_a,
				     const struct cfs_tensors_item *a,
				     const struct cfs_tensors *set_b,
				     const struct cfs_tensors_item *b,
				     struct cfs_progress *progress,
				     struct cfs_delta *out,
				     struct cfs_error *err);

#endif
