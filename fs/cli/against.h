/* A configuration and the step that it is to resume from.  Private to check. */
#ifndef CFS_CLI_AGAINST_H
#define CFS_CLI_AGAINST_H

#include <stdbool.h>

#include "fs/cli/check.h"
#include "fs/cli/check_against.h"
#include "fs/cli/json.h"

struct cfs_ds_step;

struct cfs_against {
	struct cfs_check_report *report;
	const struct cfs_ds_step *step;
	const cJSON *config;
	bool neox, as_saved;
};

/* All files as one; -EINVAL: a key in two of them, as GPT-NeoX says. */
CFS_MUST_CHECK int cfs_against_read(const struct cfs_check_configs *configs,
				    cJSON **out, struct cfs_error *err);
/* The value of "a.b" or NULL; '-' stands for '_' in keys of GPT-NeoX. */
const cJSON *cfs_against_get(const cJSON *in, const char *path);
bool cfs_against_number(const struct cfs_against *a, const char *path,
			double *out);
void cfs_against_differ(const struct cfs_against *a, const char *name,
			double saved, double config);
/* The section "batch". */
void cfs_against_batch(const struct cfs_against *a);

#endif
