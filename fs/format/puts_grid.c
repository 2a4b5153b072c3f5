/*
 * A tensor of equal boxes that tile it, as tensor parallelism cuts it: one
 * gather over the boxes laid one behind the other.
 */
#include "fs/format/puts_tensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct grid {
	const struct cfs_put_pieces *pieces;
	const struct cfs_put *first;
	uint64_t cells[CFS_PUT_DIMS_MAX]; /* along each dimension */
	uint64_t n_cells, box;		  /* elements of one */
	const struct cfs_put **at;	  /* by cell */
};

/* All whole boxes of the first one's extent? */
static bool is_grid(struct grid *g)
{
	const struct cfs_put *f = g->first;

	g->n_cells = g->box = 1;
	for (uint32_t k = 0; k < f->ndim; k++) {
		if (!f->extent[k] || f->shape[k] % f->extent[k])
			return false;
		g->cells[k] = f->shape[k] / f->extent[k];
		g->n_cells *= g->cells[k];
		g->box *= f->extent[k];
	}
	if (g->n_cells != g->pieces->n)
		return false;
	for (size_t i = 0; i < g->pieces->n; i++) {
		const struct cfs_put *p = cfs_put_piece(g->pieces, i);

		if (p->flat_start || p->flat_count != g->box)
			return false;
		for (uint32_t k = 0; k < f->ndim; k++)
			if (p->extent[k] != f->extent[k] ||
			    p->offset[k] % f->extent[k])
				return false;
	}
	return true;
}

/* No two pieces are the same, so that each has a cell of its own. */
static bool fill_cells(struct grid *g)
{
	uint64_t filled = 0;

	for (size_t i = 0; i < g->pieces->n; i++) {
		const struct cfs_put *p = cfs_put_piece(g->pieces, i);
		uint64_t cell = 0;

		for (uint32_t k = 0; k < p->ndim; k++)
			cell = cell * g->cells[k] + p->offset[k] / p->extent[k];
		filled += !g->at[cell];
		g->at[cell] = p;
	}
	return filled == g->n_cells;
}

/* Row-major: in each dimension the cell, then the place in it. */
static uint32_t strides_of(const struct grid *g, uint64_t *shape,
			   uint64_t *stride)
{
	uint64_t size = cfs_dtype_size(g->first->dtype);
	uint64_t in_cell = size, of_cell = size * g->box;
	uint32_t n = 0;

	/* innermost first, turned round below; what continues is merged */
	for (uint32_t k = g->first->ndim; k-- > 0;) {
		const uint64_t dims[2][2] = {{g->first->extent[k], in_cell},
					     {g->cells[k], of_cell}};

		for (uint32_t j = 0; j < 2; j++) {
			if (dims[j][0] == 1)
				continue;
			if (n && stride[n - 1] * shape[n - 1] == dims[j][1]) {
				shape[n - 1] *= dims[j][0];
				continue;
			}
			shape[n] = dims[j][0];
			stride[n++] = dims[j][1];
		}
		in_cell *= g->first->extent[k];
		of_cell *= g->cells[k];
	}
	for (uint32_t i = 0; i < n / 2; i++) {
		uint64_t s = shape[i], t = stride[i];

		shape[i] = shape[n - 1 - i];
		stride[i] = stride[n - 1 - i];
		shape[n - 1 - i] = s;
		stride[n - 1 - i] = t;
	}
	return n;
}

static int gather(const struct grid *g, struct cfs_map *map)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *child =
		cfs_map_new(g->pieces->files);
	uint64_t shape[2 * CFS_PUT_DIMS_MAX], stride[2 * CFS_PUT_DIMS_MAX];
	uint32_t size = cfs_dtype_size(g->first->dtype), n;
	int r = child ? 0 : -ENOMEM;

	for (uint64_t i = 0; !r && i < g->n_cells; i++)
		r = cfs_map_add_range(child, g->at[i]->file, g->at[i]->file_off,
				      g->box * size);
	if (r < 0)
		return r;
	n = strides_of(g, shape, stride);
	if (n > CFS_GATHER_DIMS_MAX)
		return 0;
	r = cfs_map_add_gather(map, child, size, n, shape, stride, 0);
	return r < 0 ? r : 1;
}

int cfs_put_grid(const struct cfs_put_pieces *pieces, struct cfs_map *map)
{
	struct grid g = {.pieces = pieces, .first = cfs_put_piece(pieces, 0)};
	int r;

	if (!is_grid(&g))
		return 0;
	g.at = calloc(g.n_cells, sizeof(*g.at));
	if (!g.at)
		return -ENOMEM;
	r = fill_cells(&g) ? gather(&g, map) : 0;
	free(g.at);
	return r;
}
