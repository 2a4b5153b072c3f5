/* Compares two tensors: equal bytes first, numbers where they are not. */
#include "fs/cli/delta.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "fs/cli/elements.h"
#include "fs/cli/progress.h"
#include "fs/cli/tensors.h"
#include "store/map/map.h"
#include "store/util/error.h"

struct pair {
	struct cfs_elements a, b;
	const char *name;
	struct cfs_progress *progress;
};

static void pair_close(struct pair *p)
{
	cfs_elements_close(&p->a);
	cfs_elements_close(&p->b);
}

static int open_one(const struct cfs_tensors *set,
		    const struct cfs_tensors_item *item,
		    struct cfs_elements *out, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	int r;

	r = cfs_tensors_map(set, item, &map, err);
	if (r < 0)
		return r;
	return cfs_elements_open(map, set->pool, item->dtype, out, err);
}

/* The next block of both: as many elements of each. */
static int next(struct pair *p, struct cfs_error *err)
{
	int r;

	r = cfs_elements_next(&p->a, err);
	if (r <= 0)
		return r;
	r = cfs_elements_next(&p->b, err);
	if (r > 0 && p->progress)
		cfs_progress_add(p->progress,
				 p->a.n * p->a.size + p->b.n * p->b.size,
				 p->name);
	return r;
}

/* 1: the same bytes throughout. */
static int same_bytes(struct pair *p, struct cfs_error *err)
{
	int r;

	if (p->a.dtype != p->b.dtype)
		return 0;
	while ((r = next(p, err)) > 0)
		if (memcmp(p->a.raw, p->b.raw, p->a.n * p->a.size) != 0)
			return 0;
	return r < 0 ? r : 1;
}

/* Elements that are not numbers to us: bytes that differ. */
static int count_bytes(struct pair *p, struct cfs_delta *d,
		       struct cfs_error *err)
{
	uint64_t base = 0;
	size_t i;
	int r;

	while ((r = next(p, err)) > 0) {
		for (i = 0; i < p->a.n; i++) {
			if (p->a.size == p->b.size &&
			    memcmp(p->a.raw + i * p->a.size,
				   p->b.raw + i * p->b.size, p->a.size) == 0)
				continue;
			if (!d->n_differ++)
				d->first = base + i;
		}
		base += p->a.n;
	}
	return r;
}

struct sums {
	double diff2, a2;
};

static void add_block(const double *a, const double *b, size_t n, uint64_t base,
		      struct cfs_delta *d, struct sums *sums)
{
	size_t i;

	for (i = 0; i < n; i++) {
		double diff = a[i] - b[i];

		if (isfinite(a[i]))
			sums->a2 += a[i] * a[i];
		if (a[i] == b[i] || (isnan(a[i]) && isnan(b[i])))
			continue;
		if (!d->n_differ++)
			d->first = base + i;
		if (isfinite(diff))
			sums->diff2 += diff * diff;
		d->max_abs = isfinite(diff) ? fmax(d->max_abs, fabs(diff))
					    : (double)INFINITY;
	}
}

static int compare_numbers(struct pair *p, struct cfs_delta *d,
			   struct cfs_error *err)
{
	_cleanup_(cfs_freep) double *a = NULL;
	_cleanup_(cfs_freep) double *b = NULL;
	struct sums sums = {0};
	uint64_t base = 0;
	int r;

	a = malloc(CFS_ELEMENTS_BLOCK * sizeof(*a));
	b = malloc(CFS_ELEMENTS_BLOCK * sizeof(*b));
	if (!a || !b)
		return -ENOMEM;
	while ((r = next(p, err)) > 0) {
		cfs_elements_decode(p->a.dtype, p->a.raw, p->a.n, a);
		cfs_elements_decode(p->b.dtype, p->b.raw, p->b.n, b);
		add_block(a, b, p->a.n, base, d, &sums);
		base += p->a.n;
	}
	d->numbers = true;
	if (sums.diff2 > 0)
		d->relative = sqrt(sums.diff2) / sqrt(sums.a2);
	return r;
}

int cfs_delta_compare(const struct cfs_tensors *set_a,
		      const struct cfs_tensors_item *a,
		      const struct cfs_tensors *set_b,
		      const struct cfs_tensors_item *b,
		      struct cfs_progress *progress, struct cfs_delta *out,
		      struct cfs_error *err)
{
	_cleanup_(pair_close) struct pair p = {.name = a->name,
					       .progress = progress};
	struct cfs_delta d = {0};
	int r;

	r = open_one(set_a, a, &p.a, err);
	if (r == 0)
		r = open_one(set_b, b, &p.b, err);
	if (r == 0)
		r = same_bytes(&p, err);
	if (r < 0)
		return r;
	if (r == 0) {
		p.a.at = 0;
		p.b.at = 0;
		p.progress = NULL; /* counted once */
		r = cfs_elements_is_number(a->dtype) &&
				    cfs_elements_is_number(b->dtype)
			    ? compare_numbers(&p, &d, err)
			    : count_bytes(&p, &d, err);
		if (r < 0)
			return r;
	}
	*out = d;
	return 0;
}
