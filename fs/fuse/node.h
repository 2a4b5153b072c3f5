/*
 * Which vnodes the kernel knows, and under which number.  One node a directory
 * or a version of a file (cfs_vnode_key()): a file that changed is another
 * node, with a page cache of its own.
 */
#ifndef CFS_FUSE_NODE_H
#define CFS_FUSE_NODE_H

#include <stdint.h>

#include "store/util/base.h"

struct cfs_nodes; /* any thread */
struct cfs_vnode;

/* Set in every number but the root's: a store's inodes have it clear. */
#define CFS_NODE_BIT (UINT64_C(1) << 63)

/* The root has number 1 and is never forgotten; takes over @root. */
struct cfs_nodes *cfs_nodes_new(struct cfs_vnode *root);
void cfs_nodes_free(struct cfs_nodes *nodes);

/* The number of @vnode, looked up once more; takes a reference of its own.
 * @generation_out differs when a number is used for another node. */
CFS_MUST_CHECK int cfs_nodes_add(struct cfs_nodes *nodes,
				 struct cfs_vnode *vnode, uint64_t *number_out,
				 uint64_t *generation_out);
/* The kernel forgets @n look-ups of @number. */
void cfs_nodes_forget(struct cfs_nodes *nodes, uint64_t number, uint64_t n);
/* A new reference to the vnode; @number is known to the kernel. */
struct cfs_vnode *cfs_nodes_vnode(struct cfs_nodes *nodes, uint64_t number);
/* Nodes the kernel knows, the root not counted. */
size_t cfs_nodes_count(struct cfs_nodes *nodes);

#endif
