/*
 * A tree of vnodes as a source: readers of checkpoints can then read a view
 * as they read a directory, that is, from the bytes a trainer would get.
 */
#ifndef CFS_CLI_VSOURCE_H
#define CFS_CLI_VSOURCE_H

#include "store/util/base.h"

struct cfs_source;
struct cfs_vnode;

/* References @root; @under, which answers statfs, is borrowed.  NULL when out
 * of memory.  Freed with cfs_source_free(), before the views are closed. */
struct cfs_source *cfs_vsource_new(struct cfs_vnode *root,
				   struct cfs_source *under);

#endif
