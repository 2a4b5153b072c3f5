/* check --against: a step and the configuration that is to resume from it. */
#ifndef CFS_CLI_CHECK_AGAINST_H
#define CFS_CLI_CHECK_AGAINST_H

#include "fs/cli/check_report.h"

struct cfs_error;
struct cfs_step;

/*
 * Sections of what a loader would stumble over, with both values, and of the
 * batch.  @path: a YAML file of GPT-NeoX, or a ds_config.  @as_saved: the
 * step's ranks are those that trained, so what its batch lacks follows from
 * them.  What open(2) says, -EINVAL: @err names the file.
 */
CFS_MUST_CHECK int cfs_check_against(struct cfs_check_report *report,
				     struct cfs_step *step, bool as_saved,
				     const char *path, struct cfs_error *err);

#endif
