/*
 * Tensor parallelism: which elements of a parameter each rank has, and a rank's
 * tensor at one size made of those at another.  Pure arithmetic and maps.
 *
 * The global form of a parameter is what a single rank would have.
 */
#ifndef CFS_RESLICE_TENSOR_PARALLEL_H
#define CFS_RESLICE_TENSOR_PARALLEL_H

#include <stdbool.h>
#include <stdint.h>

#include "store/map/dtype.h"
#include "store/util/base.h"

struct cfs_map;

enum cfs_tp_kind {
	CFS_TP_SAME, /* all ranks have all of it */
	CFS_TP_CUT,  /* cut along one dimension */
	CFS_TP_SUM,  /* what counts is the sum over the ranks */
	CFS_TP_MEAN, /* copies that went apart: the mean of the ranks' */
};

#define CFS_TP_DIMS_MAX	 4u
#define CFS_TP_PARTS_MAX 8u

struct cfs_tp_layout {
	enum cfs_tp_kind kind;
	uint32_t ndim;
	uint64_t shape[CFS_TP_DIMS_MAX]; /* global */
	/* CUT: along @dim lie parts (q, k and v; up and gate), each cut by
	 * itself; a rank has its piece of each, one behind the other. */
	uint32_t dim, n_parts;
	uint64_t parts[CFS_TP_PARTS_MAX]; /* their sum is shape[dim] */
};

/* The shape one of @tp ranks has; -EINVAL: it cannot be cut evenly. */
CFS_MUST_CHECK int cfs_tp_local_shape(const struct cfs_tp_layout *layout,
				      uint32_t tp, uint64_t *shape_out);

/* The tensors there are: all of rank @rank's, appended to @map. */
struct cfs_tp_source {
	int (*append)(void *arg, uint32_t rank, struct cfs_map *map);
	void *arg;
	uint32_t tp;
	enum cfs_dtype dtype;
};

/*
 * Appends what rank @rank of @tp has.  @to differs from @from in the length of
 * dimension 0 alone, and there only where the padding of a vocabulary does:
 * rows beyond the source's are zero.  Of kind SUM each rank gets an equal
 * share, summed in double and rounded once.  -EINVAL: sizes that do not fit.
 */
CFS_MUST_CHECK int cfs_tp_append(const struct cfs_tp_layout *from,
				 const struct cfs_tp_source *source,
				 const struct cfs_tp_layout *to, uint32_t tp,
				 uint32_t rank, struct cfs_map *map);

#endif
