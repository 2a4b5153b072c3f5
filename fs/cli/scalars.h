/* Values of an optimizer's state that stand for a whole group. */
#ifndef CFS_CLI_SCALARS_H
#define CFS_CLI_SCALARS_H

#include <stdbool.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_filepool;
struct cfs_filetab;
struct cfs_node;

/* A number, or a tensor of one element, read from its file: true when it is
 * either and could be read. */
bool cfs_scalars_value(const struct cfs_node *node, struct cfs_filetab *tab,
		       struct cfs_filepool *pool, double *out);

#endif
