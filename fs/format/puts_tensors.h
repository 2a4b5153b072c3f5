/*
 * What was put, as whole tensors.  Private to fs/format.
 *
 *   group     puts of one (name, role) -> one tensor; they must agree
 *   replicas  its pieces -> each slice once; equal where there were more
 *   cover     its pieces -> the map of all of it, row-major; no gap, no overlap
 *   grid      … where the pieces are equal boxes
 */
#ifndef CFS_FORMAT_PUTS_TENSORS_H
#define CFS_FORMAT_PUTS_TENSORS_H

#include "fs/format/puts.h"
#include "store/map/map.h"

#define CFS_PUT_WEIGHT "weight"
#define CFS_PUT_MASTER "master"
#define CFS_PUT_BUFFER "buffer"
#define CFS_PUT_STEP   "step"

struct cfs_put_tensor {
	/* The lowest rank's first: what all agree with. */
	const struct cfs_put *first;
	uint64_t numel, hash;
	size_t at, n;	     /* its pieces: cfs_put_tensors.order[at + i] */
	struct cfs_map *map; /* sealed */
};

/* In the order in which the lowest ranks put them. */
struct cfs_put_tensors {
	struct cfs_put_tensor *v;
	size_t n;
	uint32_t *order; /* rows of the puts, by tensor, then rank */
	struct cfs_put_names *names;
};

/* All of @puts, each tensor whole and its map made.  -EINVAL: @err names the
 * tensor, and both ranks or the gap. */
CFS_MUST_CHECK int cfs_put_tensors_init(struct cfs_put_tensors *tensors,
					const struct cfs_puts *puts,
					struct cfs_error *err);
void cfs_put_tensors_fini(struct cfs_put_tensors *tensors);
/* Or NULL. */
const struct cfs_put_tensor *
cfs_put_tensors_find(const struct cfs_put_tensors *tensors, const char *name,
		     const char *role);

/* The pieces of one tensor, in order of rank. */
struct cfs_put_pieces {
	const struct cfs_put *puts;
	uint32_t *rows;
	size_t n;
	uint64_t numel;
	struct cfs_filetab *files;
};

static inline const struct cfs_put *
cfs_put_piece(const struct cfs_put_pieces *pieces, size_t i)
{
	return &pieces->puts[pieces->rows[i]];
}

/* ---- puts_replicas.c ---- */

/* Keeps the lowest rank's of each slice; -EINVAL: one that differs. */
CFS_MUST_CHECK int cfs_put_replicas(struct cfs_put_pieces *pieces,
				    struct cfs_error *err);

/* ---- puts_cover.c ---- */

/* Appends the whole tensor, each slice of which is there once; -EINVAL: the
 * gap, or which slices overlap. */
CFS_MUST_CHECK int cfs_put_cover(const struct cfs_put_pieces *pieces,
				 struct cfs_map *map, struct cfs_error *err);

/* ---- puts_grid.c ---- */

/* The same where whole boxes of one extent tile the tensor: 1, or 0 and
 * nothing appended. */
CFS_MUST_CHECK int cfs_put_grid(const struct cfs_put_pieces *pieces,
				struct cfs_map *map);

#endif
