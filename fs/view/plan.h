/*
 * Steps that were read and trees that were planned, kept while their source
 * is what it was.  Private to fs/view.
 */
#ifndef CFS_VIEW_PLAN_H
#define CFS_VIEW_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/reslice/topology.h"
#include "store/util/base.h"

struct cfs_error;
struct cfs_plans;
struct cfs_step;
struct cfs_tree;
struct cfs_views;

/* Of @views: their source, its pool, what is outside of it. */
struct cfs_plans *cfs_plans_new(const struct cfs_views *views);
void cfs_plans_free(struct cfs_plans *plans); /* no call is under way */

struct cfs_plan {
	struct cfs_step *step;
	struct cfs_tree *tree; /* NULL: the step is as asked already, or
				  nothing was asked */
};
#define CFS_PLAN_INIT                                                          \
	{                                                                      \
		NULL, NULL                                                     \
	}
void cfs_plan_fini(struct cfs_plan *plan);

/**
 * cfs_plans_get - the step at a path, and its tree for a request
 * @dir:     the directory's lstat, just taken
 * @request: NULL reads the step only
 *
 * Any thread.  One reader or planner a step at a time; who else wants the same
 * waits for it.  What is known is believed while the directory has the same
 * times, and its files are looked at again after a second at most.
 * Returns 0, 1 (the directory is no step) or the refusal (@err says why).
 */
CFS_MUST_CHECK int cfs_plans_get(struct cfs_plans *plans, const char *path,
				 const struct stat *dir,
				 const struct cfs_request *request,
				 struct cfs_plan *out, struct cfs_error *err);
/* Something did not fit: look at the files before believing again. */
void cfs_plans_suspect(struct cfs_plans *plans, const char *path);

#endif
