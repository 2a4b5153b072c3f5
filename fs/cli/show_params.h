/* The parts of `show STEP` that count: parameters, roles, files. */
#ifndef CFS_CLI_SHOW_PARAMS_H
#define CFS_CLI_SHOW_PARAMS_H

#include <cjson/cJSON.h>

#include "store/util/base.h"

struct cfs_step;

/* @json NULL prints text.  Each returns 0 or a negative errno. */
CFS_MUST_CHECK int cfs_show_params_totals(const struct cfs_step *step,
					  cJSON *json);
CFS_MUST_CHECK int cfs_show_params_list(const struct cfs_step *step,
					cJSON *json);
CFS_MUST_CHECK int cfs_show_params_files(const struct cfs_step *step,
					 cJSON *json);

#endif
