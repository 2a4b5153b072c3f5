/*
 * Which layers each stage of a pipeline has.  Pure arithmetic.
 *
 * Rules: DeepSpeed runtime/utils.py, partition_uniform() and
 * partition_balanced(), of which there are two generations each (compared with
 * 0.7.7, 0.9.5, 0.12.4, 0.12.5 and 0.19.8).
 */
#ifndef CFS_RESLICE_BALANCE_H
#define CFS_RESLICE_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/util/base.h"

/* From which release on the newer of both is used. */
#define CFS_BALANCE_UNIFORM_SINCE "0.10.1"
#define CFS_BALANCE_WEIGHTS_SINCE "0.12.5"

/* Stage s gets layers [bounds[s], bounds[s + 1]); @bounds holds stages + 1. */
void cfs_balance_uniform(uint32_t n, uint32_t stages, bool old,
			 uint32_t *bounds);

/*
 * So that the heaviest stage is light (old), or as little heavier than the
 * lightest as can be (new).  -EINVAL: no stages, or weights that the old one
 * finds no cut for; -ENOMEM.
 */
CFS_MUST_CHECK int cfs_balance_weights(const uint64_t *weights, uint32_t n,
				       uint32_t stages, bool old,
				       uint32_t *bounds);

#endif
