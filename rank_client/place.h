/* Where a path leads: a store and a run in it. */
#ifndef CFS_RANK_CLIENT_PLACE_H
#define CFS_RANK_CLIENT_PLACE_H

#include "store/util/base.h"

struct cfs_error;

/* The store's directory, and the run below its root ("" the root); free()
 * both.  -ENOENT, -EINVAL: no store is there; -EACCES. */
CFS_MUST_CHECK int cfs_place_find(const char *path, char **store_out,
				  char **run_out, struct cfs_error *err);

#endif
