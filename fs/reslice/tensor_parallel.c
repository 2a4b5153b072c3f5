/*
 * A tensor is seen as [outer][dim][inner].  Along dim the target's rank is a
 * list of pieces, each of one source rank; what is left is to say it in the
 * cheapest segments: ranges where outer is 1, a box where pieces are alike,
 * else one row after the other.
 */
#include "fs/reslice/tensor_parallel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/map/map.h"
#include "store/util/checked.h"
#include "store/util/grow.h"

#define NO_RANK UINT32_MAX

/* @len along dim from @start of a source rank's tensor; NO_RANK: zeros. */
struct piece {
	uint32_t rank;
	uint64_t start, len;
};

struct pieces {
	struct piece *v;
	size_t n, cap;
};

static void pieces_free(struct pieces *p)
{
	free(p->v);
}

struct box {
	uint64_t outer, inner; /* elements */
	uint64_t all;	       /* outer of a source rank: it may have more */
	uint64_t there, here;  /* along dim, of a source rank and of this */
	uint32_t size;	       /* of an element */
};

int cfs_tp_local_shape(const struct cfs_tp_layout *layout, uint32_t tp,
		       uint64_t *shape_out)
{
	memcpy(shape_out, layout->shape,
	       layout->ndim * sizeof(layout->shape[0]));
	if (!tp)
		return -EINVAL;
	if (layout->kind != CFS_TP_CUT)
		return 0;
	if (layout->dim >= layout->ndim)
		return -EINVAL;
	for (uint32_t i = 0; i < layout->n_parts; i++)
		if (layout->parts[i] % tp)
			return -EINVAL;
	if (layout->shape[layout->dim] % tp)
		return -EINVAL;
	shape_out[layout->dim] /= tp;
	return 0;
}

/* ---- pieces ---- */

static int add_piece(struct pieces *p, uint32_t rank, uint64_t start,
		     uint64_t len)
{
	struct piece *last = p->n ? &p->v[p->n - 1] : NULL;

	if (!len)
		return 0;
	if (last && last->rank == rank &&
	    (rank == NO_RANK || last->start + last->len == start)) {
		last->len += len;
		return 0;
	}
	if (!CFS_GROW(p->v, p->n, p->cap))
		return -ENOMEM;
	p->v[p->n++] = (struct piece){rank, start, len};
	return 0;
}

/* [@at, @end) of part @i, counted from the part's beginning. */
static int add_span(struct pieces *p, const struct cfs_tp_layout *from,
		    uint32_t tp, uint32_t i, uint64_t at, uint64_t end)
{
	uint64_t each = from->parts[i] / tp, before = 0;
	int r = 0;

	for (uint32_t k = 0; k < i; k++)
		before += from->parts[k] / tp;
	while (!r && at < end && at < from->parts[i]) {
		uint64_t rank = at / each, skip = at % each;
		uint64_t len = CFS_MIN(end - at, each - skip);

		r = add_piece(p, (uint32_t)rank, before + skip, len);
		at += len;
	}
	return r < 0 || at >= end ? r : add_piece(p, NO_RANK, 0, end - at);
}

static int find_pieces(struct pieces *p, const struct cfs_tp_layout *from,
		       uint32_t from_tp, const struct cfs_tp_layout *to,
		       uint32_t tp, uint32_t rank)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < to->n_parts; i++) {
		uint64_t each = to->parts[i] / tp;

		r = add_span(p, from, from_tp, i, rank * each,
			     (rank + 1) * each);
	}
	return r;
}

/* ---- segments ---- */

/* One source rank's tensors in a row, from @rank on. */
static struct cfs_map *tensors(const struct cfs_tp_source *source,
			       uint32_t rank, size_t n,
			       const struct cfs_map *to)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(cfs_map_filetab(to));

	for (size_t i = 0; map && i < n; i++)
		if (source->append(source->arg, rank + (uint32_t)i, map) < 0)
			return NULL;
	return cfs_steal(map);
}

/* Are all pieces alike, of one source rank after the other? */
static bool alike(const struct pieces *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->v[i].rank == NO_RANK ||
		    p->v[i].rank != p->v[0].rank + i ||
		    p->v[i].start != p->v[0].start ||
		    p->v[i].len != p->v[0].len)
			return false;
	return p->v && p->n;
}

static int append_box(const struct pieces *p, const struct box *b,
		      const struct cfs_tp_source *source, struct cfs_map *map)
{
	const uint64_t row = b->there * b->inner * b->size;
	const uint64_t shape[] = {b->outer, p->n, p->v[0].len * b->inner};
	const uint64_t stride[] = {row, row * b->all, b->size};
	_cleanup_(cfs_map_unrefp) struct cfs_map *child =
		tensors(source, p->v[0].rank, p->n, map);

	if (!child)
		return -ENOMEM;
	return cfs_map_add_gather(map, child, b->size, 3, shape, stride,
				  p->v[0].start * b->inner * b->size);
}

static int append_row(const struct pieces *p, const struct box *b,
		      struct cfs_map *const *ranks, uint64_t row,
		      struct cfs_map *map)
{
	const uint64_t unit = b->inner * b->size;
	int r = 0;

	for (size_t i = 0; !r && i < p->n; i++) {
		const struct piece *e = &p->v[i];

		if (e->rank == NO_RANK)
			r = cfs_map_add_zero(map, e->len * unit);
		else
			r = cfs_map_add_slice(map, ranks[e->rank],
					      (row * b->there + e->start) *
						      unit,
					      e->len * unit);
	}
	return r;
}

static int append_rows(const struct pieces *p, const struct box *b,
		       const struct cfs_tp_source *source, struct cfs_map *map)
{
	_cleanup_(cfs_freep) struct cfs_map **ranks =
		calloc(source->tp, sizeof(struct cfs_map *));
	int r = ranks ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < p->n; i++) {
		uint32_t rank = p->v[i].rank;

		if (rank == NO_RANK || ranks[rank])
			continue;
		ranks[rank] = tensors(source, rank, 1, map);
		r = ranks[rank] ? 0 : -ENOMEM;
	}
	for (uint64_t row = 0; !r && row < b->outer; row++)
		r = append_row(p, b, ranks, row, map);
	for (uint32_t i = 0; ranks && i < source->tp; i++)
		cfs_map_unref(ranks[i]);
	return r;
}

/* Rows that only the target has, where it is not they that are cut. */
static int append_zero_rows(const struct cfs_tp_layout *from,
			    const struct cfs_tp_layout *to,
			    const uint64_t *here, uint32_t size,
			    struct cfs_map *map)
{
	uint64_t row = size;

	for (uint32_t i = 1; i < to->ndim; i++)
		row *= here[i];
	return cfs_map_add_zero(map, (to->shape[0] - from->shape[0]) * row);
}

static int append_cut(const struct cfs_tp_layout *from,
		      const struct cfs_tp_source *source,
		      const struct cfs_tp_layout *to, uint32_t tp,
		      uint32_t rank, struct cfs_map *map)
{
	_cleanup_(pieces_free) struct pieces p = {NULL, 0, 0};
	uint64_t there[CFS_TP_DIMS_MAX], here[CFS_TP_DIMS_MAX];
	struct box b = {.outer = 1,
			.all = 1,
			.inner = 1,
			.size = cfs_dtype_size(source->dtype)};
	int r = cfs_tp_local_shape(from, source->tp, there);

	if (!r)
		r = cfs_tp_local_shape(to, tp, here);
	if (!r && (from->n_parts != to->n_parts || from->dim != to->dim))
		r = -EINVAL;
	if (!r)
		r = find_pieces(&p, from, source->tp, to, tp, rank);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < from->dim; i++) {
		b.all *= from->shape[i];
		b.outer *= i ? from->shape[i]
			     : CFS_MIN(from->shape[0], to->shape[0]);
	}
	for (uint32_t i = from->dim + 1; i < from->ndim; i++)
		b.inner *= from->shape[i];
	b.there = there[from->dim];
	r = b.outer > 1 && alike(&p) ? append_box(&p, &b, source, map)
				     : append_rows(&p, &b, source, map);
	if (!r && from->dim && to->shape[0] > from->shape[0])
		r = append_zero_rows(from, to, here, b.size, map);
	return r;
}

/* The sum of all ranks', in @n shares. */
static int append_share(const struct cfs_tp_source *source, uint32_t n,
			struct cfs_map *map)
{
	_cleanup_(cfs_freep) struct cfs_map **ranks =
		calloc(source->tp, sizeof(struct cfs_map *));
	_cleanup_(cfs_freep) double *weights =
		calloc(source->tp, sizeof(*weights));
	int r = ranks && weights ? 0 : -ENOMEM;

	for (uint32_t i = 0; !r && i < source->tp; i++) {
		weights[i] = 1.0 / n;
		ranks[i] = tensors(source, i, 1, map);
		r = ranks[i] ? 0 : -ENOMEM;
	}
	if (!r)
		r = cfs_map_add_linear(map, ranks, weights, source->tp,
				       source->dtype, source->dtype);
	for (uint32_t i = 0; ranks && i < source->tp; i++)
		cfs_map_unref(ranks[i]);
	return r;
}

int cfs_tp_append(const struct cfs_tp_layout *from,
		  const struct cfs_tp_source *source,
		  const struct cfs_tp_layout *to, uint32_t tp, uint32_t rank,
		  struct cfs_map *map)
{
	if (!tp || rank >= tp || !source->tp)
		return -EINVAL;
	if (from->kind == CFS_TP_SAME)
		return source->append(source->arg, rank % source->tp, map);
	if (from->kind == CFS_TP_CUT)
		return append_cut(from, source, to, tp, rank, map);
	if (from->kind == CFS_TP_MEAN)
		return append_share(source, source->tp, map);
	/* as they are: their parts need not be equal */
	return tp == source->tp ? source->append(source->arg, rank, map)
				: append_share(source, tp, map);
}
