/*
 * The pieces of one tensor as one map.  A piece is a list of runs, which are
 * contiguous both in it and in the tensor: one run where it is flat or cut
 * along the first dimension.  Swept from the front; what no run covers is the
 * gap, and what two cover is refused: nothing tells which one is right.
 */
#include "fs/format/puts_tensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/util/error.h"

#define RUNS_MAX	(UINT64_C(1) << 26)
#define RANGE_BYTES_MIN 4096u /* below, a gather is made where there can be */

/* Elements [start, start + count) of the tensor are at @off of @file. */
struct run {
	uint64_t start, count, off;
	uint32_t file, rank;
};

struct sweep {
	const struct cfs_put_pieces *pieces;
	struct run *runs; /* by start, then rank */
	size_t n;
	uint32_t size; /* of an element */
	struct cfs_map *map;
	struct cfs_error *err;
};

/* ---- runs ---- */

/* How many elements of the box lie in a row, and in how many such runs its
 * flat part is. */
static uint64_t run_length(const struct cfs_put *p)
{
	uint64_t len = 1;

	for (uint32_t i = p->ndim; i-- > 0;) {
		len *= p->extent[i];
		if (p->extent[i] != p->shape[i])
			break;
	}
	return len;
}

static uint64_t run_count(const struct cfs_put *p, uint64_t len)
{
	if (!p->flat_count)
		return 0;
	return (p->flat_start + p->flat_count - 1) / len - p->flat_start / len +
	       1;
}

/* Where element @flat of the box lies in the tensor. */
static uint64_t place_of(const struct cfs_put *p, uint64_t flat)
{
	uint64_t at = 0, stride = 1;

	for (uint32_t i = p->ndim; i-- > 0;) {
		at += (p->offset[i] + flat % p->extent[i]) * stride;
		flat /= p->extent[i];
		stride *= p->shape[i];
	}
	return at;
}

static void add_runs(struct sweep *s, const struct cfs_put *p)
{
	uint64_t len = run_length(p), end = p->flat_start + p->flat_count;

	for (uint64_t at = p->flat_start; at < end;) {
		uint64_t n = CFS_MIN(len - at % len, end - at);

		s->runs[s->n++] = (struct run){
			.start = place_of(p, at),
			.count = n,
			.off = p->file_off + (at - p->flat_start) * s->size,
			.file = p->file,
			.rank = p->rank};
		at += n;
	}
}

static int run_cmp(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

static void sort_runs(struct sweep *s)
{
	for (size_t i = 1; i < s->n; i++)
		if (run_cmp(&s->runs[i - 1], &s->runs[i]) > 0) {
			qsort(s->runs, s->n, sizeof(*s->runs), run_cmp);
			return;
		}
}

/* ---- the sweep ---- */

/* "[3, 0]" */
static void print_place(const struct cfs_put *p, uint64_t at, char *buf,
			size_t size)
{
	uint64_t index[CFS_PUT_DIMS_MAX];
	size_t len;

	for (uint32_t i = p->ndim; i-- > 0;) {
		index[i] = at % p->shape[i];
		at /= p->shape[i];
	}
	len = (size_t)snprintf(buf, size, "[");
	for (uint32_t i = 0; i < p->ndim && len < size; i++)
		len += (size_t)snprintf(buf + len, size - len, "%s%llu",
					i ? ", " : "",
					(unsigned long long)index[i]);
	if (len < size)
		(void)snprintf(buf + len, size - len, "]");
}

static int fail_gap(const struct sweep *s, uint64_t from, uint64_t to)
{
	const struct cfs_put *p = cfs_put_piece(s->pieces, 0);
	char first[192], last[192];

	print_place(p, from, first, sizeof(first));
	print_place(p, to - 1, last, sizeof(last));
	return cfs_fail(s->err, -EINVAL,
			"tensor %s (%s): no rank put elements %llu to %llu of "
			"%llu, %s to %s",
			p->name, p->role, (unsigned long long)from,
			(unsigned long long)(to - 1),
			(unsigned long long)s->pieces->numel, first, last);
}

static int fail_overlap(const struct sweep *s, const struct run *a,
			const struct run *b)
{
	const struct cfs_put *p = cfs_put_piece(s->pieces, 0);
	uint64_t end = CFS_MIN(a->start + a->count, b->start + b->count);

	return cfs_fail(s->err, -EINVAL,
			"tensor %s (%s): ranks %u and %u both put elements "
			"%llu to %llu, in slices that are not the same",
			p->name, p->role, CFS_MIN(a->rank, b->rank),
			CFS_MAX(a->rank, b->rank), (unsigned long long)b->start,
			(unsigned long long)(end - 1));
}

static int sweep_all(const struct sweep *s)
{
	uint64_t at = 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct run *run = &s->runs[i];
		int r;

		if (run->start > at)
			return fail_gap(s, at, run->start);
		if (run->start < at)
			return fail_overlap(s, run - 1, run);
		r = cfs_map_add_range(s->map, run->file, run->off,
				      run->count * s->size);
		if (r < 0)
			return r;
		at += run->count;
	}
	return at < s->pieces->numel ? fail_gap(s, at, s->pieces->numel) : 0;
}

static int cover_runs(struct sweep *s, uint64_t n)
{
	_cleanup_(cfs_freep) struct run *runs = NULL;
	const struct cfs_put *p = cfs_put_piece(s->pieces, 0);

	if (n > RUNS_MAX)
		return cfs_fail(s->err, -E2BIG,
				"tensor %s (%s): is cut into more than %llu "
				"pieces that lie apart: cut it along its first "
				"dimensions, or evenly",
				p->name, p->role, (unsigned long long)RUNS_MAX);
	runs = s->runs = calloc(n + 1, sizeof(*runs));
	if (!runs)
		return -ENOMEM;
	for (size_t i = 0; i < s->pieces->n; i++)
		add_runs(s, cfs_put_piece(s->pieces, i));
	sort_runs(s);
	return sweep_all(s);
}

int cfs_put_cover(const struct cfs_put_pieces *pieces, struct cfs_map *map,
		  struct cfs_error *err)
{
	struct sweep s = {.pieces = pieces, .map = map, .err = err};
	uint64_t n = 0;
	bool shorter = false;

	if (!pieces->numel)
		return 0;
	s.size = cfs_dtype_size(cfs_put_piece(pieces, 0)->dtype);
	for (size_t i = 0; i < pieces->n; i++) {
		const struct cfs_put *p = cfs_put_piece(pieces, i);
		uint64_t len = run_length(p);
		uint64_t here = len ? run_count(p, len) : 0;

		if (here > 1 && len * s.size < RANGE_BYTES_MIN)
			shorter = true;
		n += CFS_MIN(here,
			     RUNS_MAX + 1); /* n_puts < 2^32: no overflow */
	}
	if (shorter) {
		int r = cfs_put_grid(pieces, map);

		if (r)
			return r < 0 ? r : 0;
	}
	return cover_runs(&s, n);
}
