/* One function over many rows, in several threads that end with the call. */
#ifndef CFS_UTIL_PARALLEL_H
#define CFS_UTIL_PARALLEL_H

#include <stdint.h>

#include "store/util/base.h"

struct cfs_error;

typedef int cfs_parallel_fn(void *arg, uint32_t i, struct cfs_error *err);

/* Runs fn(arg, i, err) for i < n in several threads, this one among them.
 * Returns the error of the lowest @i that failed; later ones may then not have
 * run. */
CFS_MUST_CHECK int cfs_parallel(uint32_t n, cfs_parallel_fn *fn, void *arg,
				struct cfs_error *err);

#endif
