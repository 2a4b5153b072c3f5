/*
 * Both generations in double, as they were written: where sums tie, rounding
 * decides.
 */
#include "fs/reslice/balance.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* How near the old one's search comes to the lightest heaviest stage. */
#define NEAR 1e-3

/* No more layers than stages: one each, the last ones none. */
static void one_each(uint32_t n, uint32_t stages, uint32_t *bounds)
{
	for (uint32_t s = 0; s <= stages; s++)
		bounds[s] = CFS_MIN(s, n);
}

void cfs_balance_uniform(uint32_t n, uint32_t stages, bool old,
			 uint32_t *bounds)
{
	uint32_t size = stages ? n / stages : 0;

	if (n <= stages) {
		one_each(n, stages, bounds);
		return;
	}
	for (uint32_t s = 0; s <= stages; s++)
		bounds[s] =
			s * size + (old ? 0 : CFS_MIN(s, n - size * stages));
	bounds[stages] = n;
}

/* ---- up to 0.12.4 ---- */

/* The first of sums[lo, hi) that is not below @x. */
static uint32_t first_not_below(const double *sums, uint32_t lo, uint32_t hi,
				double x)
{
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (sums[mid] < x)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Cuts so that no stage weighs more than @most; @sums includes each layer.
 * False: it does not reach. */
static bool cut(const double *sums, uint32_t n, uint32_t stages, double most,
		uint32_t *bounds)
{
	const uint32_t size = n / stages;
	uint32_t step = size;
	double until = most;

	bounds[0] = 0;
	for (uint32_t s = 1; s <= stages; s++)
		bounds[s] = n;
	for (uint32_t s = 1; s < stages; s++) {
		while (step < n && sums[step] < until)
			step += size;
		bounds[s] = first_not_below(sums, step - size, CFS_MIN(step, n),
					    until);
		if (bounds[s] == n)
			return sums[n - 1] - sums[bounds[s - 1]] < most;
		/* before the first layer: Python's index -1, the last one */
		until = sums[bounds[s] ? bounds[s] - 1 : n - 1] + most;
	}
	return until >= sums[n - 1];
}

static int cut_old(const uint64_t *weights, uint32_t n, uint32_t stages,
		   uint32_t *bounds)
{
	_cleanup_(cfs_freep) double *sums = malloc(n * sizeof(*sums));
	double sum = 0, low, high;

	if (!sums)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		sums[i] = sum += (double)weights[i];
	low = sum / stages;
	high = sum;
	while (high > low + NEAR) {
		double mid = low + (high - low) / 2;

		if (mid + NEAR <= mid) /* numbers so large that it goes on */
			return -EINVAL;
		if (cut(sums, n, stages, mid, bounds))
			high = mid;
		else
			low = mid + NEAR;
	}
	return cut(sums, n, stages, high, bounds) ? 0 : -EINVAL;
}

/* ---- from 0.12.5 on ---- */

/* The best of the first i layers in j stages, at [i * (stages + 1) + j]. */
struct best {
	double heaviest, lightest, spread;
	uint32_t last; /* where the last stage begins */
};

static void extend(struct best *table, const double *before, uint32_t stages,
		   uint32_t i, uint32_t j)
{
	struct best *to = &table[(size_t)i * (stages + 1) + j];

	for (uint32_t k = 0; k < i; k++) {
		const struct best *from =
			&table[(size_t)k * (stages + 1) + j - 1];
		double sum = before[i] - before[k];
		double heaviest = CFS_MAX(from->heaviest, sum);
		double lightest = CFS_MIN(from->lightest, sum);

		/* of equal ones the last */
		if (to->spread >= heaviest - lightest)
			*to = (struct best){heaviest, lightest,
					    heaviest - lightest, k};
	}
}

static int cut_new(const uint64_t *weights, uint32_t n, uint32_t stages,
		   uint32_t *bounds)
{
	_cleanup_(cfs_freep) double *before =
		calloc((size_t)n + 1, sizeof(*before));
	_cleanup_(cfs_freep) struct best *table =
		calloc(((size_t)n + 1) * ((size_t)stages + 1), sizeof(*table));

	if (!before || !table)
		return -ENOMEM;
	for (size_t i = 0; i < ((size_t)n + 1) * (stages + 1); i++)
		table[i] = (struct best){HUGE_VAL, HUGE_VAL, HUGE_VAL, 0};
	table[0].heaviest = table[0].spread = 0;
	for (uint32_t i = 1; i <= n; i++) {
		before[i] = before[i - 1] + (double)weights[i - 1];
		for (uint32_t j = 1; j <= CFS_MIN(i, stages); j++)
			extend(table, before, stages, i, j);
	}
	bounds[stages] = n;
	for (uint32_t j = stages; j; j--)
		bounds[j - 1] =
			table[(size_t)bounds[j] * (stages + 1) + j].last;
	return 0;
}

int cfs_balance_weights(const uint64_t *weights, uint32_t n, uint32_t stages,
			bool old, uint32_t *bounds)
{
	if (!stages)
		return -EINVAL;
	if (n <= stages) {
		one_each(n, stages, bounds);
		return 0;
	}
	return old ? cut_old(weights, n, stages, bounds)
		   : cut_new(weights, n, stages, bounds);
}
