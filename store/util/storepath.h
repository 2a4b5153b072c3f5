/* Where a path leads into a store: STORE/run1, whatever lies on the disk. */
#ifndef CFS_UTIL_STOREPATH_H
#define CFS_UTIL_STOREPATH_H

#include "store/util/base.h"

/* Is there a store at @path?  1, 0, or an error; -EACCES: nobody here may
 * know. */
typedef int cfs_storepath_probe_fn(const char *path);

/* 1: the store's real path, and what follows it ("" its root); free() both.
 * 0: no directory on the way is a store. */
CFS_MUST_CHECK int cfs_storepath_prefix(const char *path,
					cfs_storepath_probe_fn *probe,
					char **store_out, char **inside_out);

#endif
