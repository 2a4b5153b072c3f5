/* What `ckptfs show` prints of a step and of a file. */
#ifndef CFS_CLI_SHOW_H
#define CFS_CLI_SHOW_H

#include <stdbool.h>

#include "store/util/base.h"

struct cfs_target_file;
struct cfs_target_step;

struct cfs_show_options {
	bool json;
	bool params; /* of a step: every parameter */
	bool all;    /* of a file: every line, however many */
};

CFS_MUST_CHECK int cfs_show_step(const char *path, struct cfs_target_step *ts,
				 const struct cfs_show_options *options);
CFS_MUST_CHECK int cfs_show_file(const char *path,
				 const struct cfs_target_file *tf,
				 const struct cfs_show_options *options);

#endif
