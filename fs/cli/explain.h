/* `ckptfs view explain`: what a view, or a file in it, is made of. */
#ifndef CFS_CLI_EXPLAIN_H
#define CFS_CLI_EXPLAIN_H

#include <stdbool.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_target;
struct cfs_vnode;

struct cfs_explain_options {
	bool json;
	bool all; /* every source range, however many */
};

/* A view of a run (the step its pointer names), of a step, or a file. */
CFS_MUST_CHECK int cfs_explain(const char *path,
			       const struct cfs_explain_options *options,
			       struct cfs_error *err);

/* explain_file.c: @target is taken over; @node its FILE. */
CFS_MUST_CHECK int cfs_explain_file(const char *path, struct cfs_target *target,
				    const struct cfs_explain_options *options,
				    struct cfs_error *err);

#endif
