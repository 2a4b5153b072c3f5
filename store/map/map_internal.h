/* The inside of a map, for the files of this directory only. */
#ifndef CFS_MAP_INTERNAL_H
#define CFS_MAP_INTERNAL_H

#include <assert.h>
#include <stdatomic.h>

#include "store/map/map.h"

#define CFS_MAP_SIZE_MAX ((uint64_t)INT64_MAX)

/*
 * One segment in 24 bytes; its length is the distance to the next one (or to
 * the end of the map).  A plan may hold millions of ranges.
 */
struct cfs_seg {
	uint64_t off;
	uint64_t pos; /* range: file offset; literal: place in literals;
			 computed: bytes of the expr before these */
	uint32_t ref; /* range: file; computed: index into exprs */
	uint32_t kind;
};
static_assert(sizeof(struct cfs_seg) == 24, "maps are counted in segments");

/*
 * What a computed segment is computed from: immutable, shared by the maps that
 * show it or parts of it.  @id never comes back in this process: the block
 * cache's key.
 */
struct cfs_expr {
	atomic_uint refs;
	enum cfs_segment_kind kind;
	uint64_t id;
	uint64_t len; /* bytes shown */
	enum cfs_dtype from, to;
	uint32_t n_children;
	struct cfs_map **children;
	double *weights;	/* linear */
	struct cfs_gather *box; /* gather */
};

/*
 * A gather in its simplest form: @run contiguous bytes per element of the box,
 * no dimension of size 1, none that continues its inner neighbour.
 */
struct cfs_gather {
	uint64_t base, run;
	uint32_t ndim; /* 1 at least */
	uint64_t shape[CFS_GATHER_DIMS_MAX], stride[CFS_GATHER_DIMS_MAX];
};

struct cfs_map {
	atomic_uint refs;
	struct cfs_filetab *tab;
	uint64_t size;
	struct cfs_seg *segs; /* ascending off; no two that could be one */
	struct cfs_expr **exprs;
	uint8_t *literals;
	uint32_t *files; /* in use, here and in children; ascending */
	uint32_t n_segs, cap_segs;
	uint32_t n_exprs, cap_exprs;
	uint32_t n_files, cap_files;
	size_t n_literals, cap_literals;
	uint32_t depth; /* 0: nothing computed */
	bool sealed;
};

/* Grows *@array by doubling until it holds @need items of @item bytes. */
CFS_MUST_CHECK int cfs_map_reserve(void *array, uint32_t *cap, uint64_t need,
				   size_t item);
/* Appends bytes [@skip, @skip + @len) of @expr; takes its own reference. */
CFS_MUST_CHECK int cfs_map_add_expr(struct cfs_map *map, struct cfs_expr *expr,
				    uint64_t skip, uint64_t len);
uint64_t cfs_map_seg_len(const struct cfs_map *map, uint32_t index);

/*
 * Nodes (expr.c).  -EINVAL for what cannot be, -EOVERFLOW, -ENOMEM; each seals
 * its children and takes references of its own.
 */
CFS_MUST_CHECK int cfs_expr_cast(struct cfs_map *child, enum cfs_dtype from,
				 enum cfs_dtype to, struct cfs_expr **expr_out);
CFS_MUST_CHECK int cfs_expr_linear(struct cfs_map *const *children,
				   const double *weights, uint32_t n,
				   enum cfs_dtype from, enum cfs_dtype to,
				   struct cfs_expr **expr_out);
/* Checked, and simplified in place; ndim 0 afterwards: one run, no expr. */
CFS_MUST_CHECK int cfs_expr_box(struct cfs_gather *box, uint64_t child_size,
				uint64_t *len_out);
CFS_MUST_CHECK int cfs_expr_gather(struct cfs_map *child,
				   const struct cfs_gather *box, uint64_t len,
				   struct cfs_expr **expr_out);
struct cfs_expr *cfs_expr_ref(struct cfs_expr *expr);
void cfs_expr_unref(struct cfs_expr *expr);
void cfs_expr_unrefp(struct cfs_expr **expr);
size_t cfs_expr_memory_bytes(const struct cfs_expr *expr);

#endif
