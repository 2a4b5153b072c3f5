/* What an export of a plain directory, or of one file, writes. */
#ifndef CFS_CLI_EXPORT_TREE_H
#define CFS_CLI_EXPORT_TREE_H

#include "fs/cli/export_plan.h"

/*
 * All below the directory @target, or the file by its name.  What is neither
 * file, link nor directory is left out and told to @skipped.
 */
CFS_MUST_CHECK int
cfs_export_plan_tree(struct cfs_target *target,
		     void (*skipped)(const char *name, const char *why),
		     struct cfs_export_plan *plan, struct cfs_error *err);

#endif
