/* check --against: a step and the configuration that is to resume from it. */
#ifndef CFS_CLI_CHECK_AGAINST_H
#define CFS_CLI_CHECK_AGAINST_H

#include "fs/cli/check_report.h"

struct cfs_error;
struct cfs_step;

#define CFS_CHECK_CONFIGS_MAX 32u

struct cfs_check_configs {
	const char *paths[CFS_CHECK_CONFIGS_MAX];
	unsigned n;
};

/*
 * Sections of what a loader would stumble over, with both values, and of the
 * batch.  @configs: YAML files of GPT-NeoX, which together are one
 * configuration, or a ds_config; at least one.  @as_saved: the step's ranks are
 * those that trained, so what its batch lacks follows from them.  What open(2)
 * says, -EINVAL: @err names the file.
 */
CFS_MUST_CHECK int cfs_check_against(struct cfs_check_report *report,
				     struct cfs_step *step, bool as_saved,
				     const struct cfs_check_configs *configs,
				     struct cfs_error *err);

#endif
