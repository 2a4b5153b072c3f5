/* Walks through trees that lie over one another and over another iterator. */
#ifndef CFS_INDEX_MERGE_H
#define CFS_INDEX_MERGE_H

#include "store/index/index.h"

struct cfs_memtree;

#define CFS_MERGE_TREES 2

/*
 * @roots: the upper ones first, NULL for an empty one; referenced, so later
 * changes are not seen.  @under: what lies below (NULL: nothing), walks the
 * same keys; taken over, also on failure.  What a tree calls deleted is not
 * there.  -ENOMEM.
 */
CFS_MUST_CHECK int
cfs_merge_new(struct cfs_memtree *const roots[CFS_MERGE_TREES],
	      struct cfs_index_iter *under, struct cfs_slice prefix,
	      struct cfs_slice from, struct cfs_index_iter **out);

#endif
