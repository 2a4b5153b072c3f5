/*
 * What the cache of plans keeps: how a step is read, and the tree a request
 * asks of it.  No locks; private to fs/view.
 */
#ifndef CFS_VIEW_PLAN_MAKE_H
#define CFS_VIEW_PLAN_MAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/format/format.h"
#include "store/util/error.h"

struct cfs_views;

/* Which of the format's files there are in the directory @path. */
CFS_MUST_CHECK int cfs_plan_names(struct cfs_source *source, const char *path,
				  const struct cfs_format *format,
				  uint64_t *out);

struct cfs_plan_read {
	struct cfs_step *step;
	uint64_t names;
	int r; /* 1: no step; or the refusal, with @why */
	struct cfs_error why;
};
void cfs_plan_read_step(const struct cfs_views *views, const char *path,
			struct cfs_plan_read *out);

struct cfs_plan_made {
	struct cfs_tree *tree; /* NULL: as saved, or refused */
	bool like;	       /* of a template */
	int r;
	struct cfs_error why;
};
void cfs_plan_make_tree(const struct cfs_views *views, struct cfs_step *step,
			const struct cfs_request *request,
			struct cfs_plan_made *out);
/* A reference to its tree, or NULL. */
struct cfs_tree *cfs_plan_tree(const struct cfs_plan_made *made);

#endif
