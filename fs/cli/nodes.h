/* Pickle trees for people: paths of what is inside, values in a few words. */
#ifndef CFS_CLI_NODES_H
#define CFS_CLI_NODES_H

#include <stdbool.h>
#include <stddef.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_node;

/*
 * Child @i of a container or of an object (its items, what was set on it, its
 * state's items): the label (a key or an index) is appended to @label.  NULL
 * when there are no more, or for a leaf; tensors are leaves.
 */
const struct cfs_node *cfs_nodes_child(const struct cfs_node *node, size_t i,
				       struct cfs_buf *label);

/*
 * A value on one line, in Python's spelling as far as that is known without
 * running anything: "None", "0.001", "'adam'", "ZeroStageEnum(1)", "[1, 2, …]",
 * "tensor f32 [3, 5]".  Appends at most about @max bytes; false when it had to
 * leave something out.
 */
bool cfs_nodes_repr(const struct cfs_node *node, size_t max,
		    struct cfs_buf *out);

/* Return 0 to go on; anything else stops the walk and is returned. */
typedef int cfs_nodes_fn(void *arg, const char *path,
			 const struct cfs_node *node);

/*
 * Every leaf in order, with its path: keys and indices joined by '/'.  Where
 * @fold says so of an inner node, it is reported in place of what it holds.
 * Cycles are cut; -E2BIG beyond 10 million nodes, -ENOMEM.
 */
CFS_MUST_CHECK int cfs_nodes_walk(const struct cfs_node *root,
				  bool (*fold)(const struct cfs_node *node),
				  cfs_nodes_fn *fn, void *arg);

#endif
