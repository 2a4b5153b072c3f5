/* What a state holds besides tensors, by path: for diff. */
#ifndef CFS_CLI_LEAVES_H
#define CFS_CLI_LEAVES_H

#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_node;
struct cfs_step;

struct cfs_leaves_item {
	char *path;
	const struct cfs_node *node;
};

struct cfs_leaves {
	struct cfs_leaves_item *items; /* sorted by path */
	size_t n, cap;
};

/* Leaves of @root that are no tensors. */
CFS_MUST_CHECK int cfs_leaves_of_tree(const struct cfs_node *root,
				      struct cfs_leaves *out);
/* Hyper-parameters and step counts of all groups: "group 0/lr". */
CFS_MUST_CHECK int cfs_leaves_of_step(struct cfs_step *step,
				      struct cfs_leaves *out);
/* How many values the files keep that are neither in those leaves nor
 * parameters or their state: client state, scheduler, counters, loss scale. */
CFS_MUST_CHECK int cfs_leaves_others_of_step(struct cfs_step *step,
					     uint64_t *n_out);
void cfs_leaves_free(struct cfs_leaves *leaves); /* for _cleanup_ too */

#endif
