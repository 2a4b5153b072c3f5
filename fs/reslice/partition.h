/*
 * How DeepSpeed cuts flat optimizer state over data-parallel ranks.  Pure
 * arithmetic; all counts are elements.
 *
 * Rules: DeepSpeed 0.19.8 runtime/zero/stage_1_and_2.py
 * (flatten_dense_tensors_aligned, get_data_parallel_partitions,
 * _round_robin_reorder, parameter_alignment), runtime/bf16_optimizer.py,
 * runtime/zero/partition_parameters.py and stage3.py; unchanged since 0.5.9.
 * Interleaved: DeepSpeed 0.3.15 runtime/zero/stage1.py
 * (get_data_parallel_sub_partitions).
 */
#ifndef CFS_RESLICE_PARTITION_H
#define CFS_RESLICE_PARTITION_H

#include <stdbool.h>
#include <stdint.h>

#include "store/util/base.h"

/* Stages 1, 2 and BF16_Optimizer: one parameter group. */
struct cfs_flat {
	uint32_t dp;
	uint64_t total;	  /* sum of numel and of per-parameter pads */
	uint64_t aligned; /* total rounded up to factor * dp */
	uint64_t part;	  /* aligned / dp: what each rank holds */
};

/*
 * Stage 1 up to 0.3.16: a group is cut into dp * cuts sub-partitions of one
 * size, of which rank r has numbers r, r + dp, r + 2 dp, …; what is padded lies
 * at the end of all.  With one cut that is struct cfs_flat.
 */
struct cfs_interleaved {
	uint32_t dp, cuts;
	uint64_t total;
	uint64_t part; /* of a sub-partition */
};

/* -EINVAL: @cuts of @part are too few for @total, or one holds padding alone;
 * -EOVERFLOW. */
CFS_MUST_CHECK int cfs_interleaved_init(struct cfs_interleaved *il, uint32_t dp,
					uint64_t total, uint32_t cuts,
					uint64_t part);
/* Elements of @rank's sub-partition @cut that are not padding. */
uint64_t cfs_interleaved_valid(const struct cfs_interleaved *il, uint32_t rank,
			       uint32_t cut);

/* @factor: 2 (1 for stage 2 before 0.3.17).  -EINVAL: dp 0; -EOVERFLOW. */
CFS_MUST_CHECK int cfs_flat_init(struct cfs_flat *flat, uint32_t dp,
				 uint64_t total, uint32_t factor);
/* Elements of @rank that are not padding. */
uint64_t cfs_flat_valid(const struct cfs_flat *flat, uint32_t rank);
/* group_paddings of @rank as stages 1 and 2 write it since 0.16.4. */
uint64_t cfs_flat_padding(const struct cfs_flat *flat, uint32_t rank);
/* … as BF16_Optimizer, and stages 1 and 2 before 0.16.4, write it. */
uint64_t cfs_flat_padding_last(const struct cfs_flat *flat, uint32_t rank);

/* Pad behind a parameter under parameter_alignment (>= 0.19.7): @elem_size is
 * that of the model's parameters; the last parameter of a group gets none. */
uint64_t cfs_param_pad(uint64_t numel, uint32_t elem_size, bool last);

/* order[i]: which parameter of the group comes i-th under round robin. */
void cfs_round_robin(uint32_t n, uint32_t dp, uint32_t *order);

/* Stage 3: elements of a parameter each rank holds: ceil(numel / dp). */
uint64_t cfs_zero3_part(uint64_t numel, uint32_t dp);

/*
 * Stage 3 sub-groups of one parameter group: sub[i] = running number of the
 * sub-group of parameter i, from 0.  A sub-group closes as soon as the sum of
 * its per-rank parts reaches @sub_group_size.  Returns how many there are.
 */
uint32_t cfs_zero3_subgroups(uint32_t n, const uint64_t *numel, uint32_t dp,
			     uint64_t sub_group_size, uint32_t *sub);

#endif
