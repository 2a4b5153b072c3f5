/* The arithmetic of partition.h. */
#include "fs/reslice/partition.h"

#include <errno.h>

#include "store/util/checked.h"

int cfs_flat_init(struct cfs_flat *flat, uint32_t dp, uint64_t total,
		  uint32_t factor)
{
	uint64_t unit = (uint64_t)dp * factor;
	uint64_t aligned;

	if (!dp || !factor)
		return -EINVAL;
	if (!cfs_mul_u64(cfs_div_up(total, unit), unit, &aligned))
		return -EOVERFLOW;
	flat->dp = dp;
	flat->total = total;
	flat->aligned = aligned;
	flat->part = aligned / dp;
	return 0;
}

uint64_t cfs_flat_valid(const struct cfs_flat *flat, uint32_t rank)
{
	uint64_t begin = rank * flat->part;

	if (begin >= flat->total)
		return 0;
	return CFS_MIN(flat->total - begin, flat->part);
}

uint64_t cfs_flat_padding(const struct cfs_flat *flat, uint32_t rank)
{
	return flat->part - cfs_flat_valid(flat, rank);
}

uint64_t cfs_flat_padding_last(const struct cfs_flat *flat, uint32_t rank)
{
	return rank == flat->dp - 1 ? flat->aligned - flat->total : 0;
}

int cfs_interleaved_init(struct cfs_interleaved *il, uint32_t dp,
			 uint64_t total, uint32_t cuts, uint64_t part)
{
	uint64_t row, all;

	if (!dp || !cuts)
		return -EINVAL;
	if (!cfs_mul_u64(part, dp, &row) || !cfs_mul_u64(row, cuts, &all))
		return -EOVERFLOW;
	if (all < total || (cuts > 1 && all - row >= total))
		return -EINVAL;
	*il = (struct cfs_interleaved){
		.dp = dp, .cuts = cuts, .total = total, .part = part};
	return 0;
}

uint64_t cfs_interleaved_valid(const struct cfs_interleaved *il, uint32_t rank,
			       uint32_t cut)
{
	uint64_t begin = ((uint64_t)cut * il->dp + rank) * il->part;

	if (begin >= il->total)
		return 0;
	return CFS_MIN(il->total - begin, il->part);
}

static uint32_t gcd(uint32_t a, uint32_t b)
{
	while (b) {
		uint32_t t = a % b;

		a = b;
		b = t;
	}
	return a;
}

uint64_t cfs_param_pad(uint64_t numel, uint32_t elem_size, bool last)
{
	uint32_t unit = 16 / gcd(16, elem_size);
	uint64_t over = numel % unit;

	return last || !over ? 0 : unit - over;
}

void cfs_round_robin(uint32_t n, uint32_t dp, uint32_t *order)
{
	uint32_t i = 0;

	for (uint32_t j = 0; j < dp && j < n; j++)
		for (uint64_t k = j; k < n; k += dp)
			order[i++] = (uint32_t)k;
}

uint64_t cfs_zero3_part(uint64_t numel, uint32_t dp)
{
	return cfs_div_up(numel, dp);
}

uint32_t cfs_zero3_subgroups(uint32_t n, const uint64_t *numel, uint32_t dp,
			     uint64_t sub_group_size, uint32_t *sub)
{
	uint64_t sum = 0;
	uint32_t current = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t part = cfs_zero3_part(numel[i], dp);

		sub[i] = current;
		if (!cfs_add_u64(sum, part, &sum))
			sum = UINT64_MAX;
		if (sum >= sub_group_size && i + 1 < n) {
			current++;
			sum = 0;
		}
	}
	return n ? current + 1 : 0;
}
