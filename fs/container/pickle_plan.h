/* Before writing: what is referred to how often; internal to pickle_write.c */
#ifndef CFS_CONTAINER_PICKLE_PLAN_H
#define CFS_CONTAINER_PICKLE_PLAN_H

#include "fs/container/pickle_internal.h"

struct cfs_error;

struct cfs_pickle_plan_node {
	const struct cfs_node *id; /* PERSID: what is written for it */
	uint32_t memo;		   /* index + 1 once it is in the memo */
	uint8_t refs;		   /* 1, or 2 for more */
	uint8_t open;		   /* being written, so often (cycles) */
	bool on_path;
};

struct cfs_pickle_plan {
	struct cfs_u64map numbers; /* node -> number + 1 of nodes */
	struct cfs_pickle_plan_node *nodes;
	size_t n, cap;
	bool cyclic;
};

#define CFS_PICKLE_PLAN_INIT                                                   \
	{                                                                      \
		CFS_U64MAP_INIT, NULL, 0, 0, false                             \
	}

/* Visits every node once, in the order in which they are written. */
CFS_MUST_CHECK int cfs_pickle_plan(struct cfs_pickle_plan *plan,
				   const struct cfs_node *root,
				   const struct cfs_pickle_persid_ops *persid,
				   struct cfs_error *err);
void cfs_pickle_plan_free(struct cfs_pickle_plan *plan);

/* NULL for what is never shared: None, numbers, (). */
struct cfs_pickle_plan_node *
cfs_pickle_plan_find(const struct cfs_pickle_plan *plan,
		     const struct cfs_node *node);

#endif
