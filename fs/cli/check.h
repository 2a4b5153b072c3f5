/* The parts of `ckptfs check`; each adds a section to the report. */
#ifndef CFS_CLI_CHECK_H
#define CFS_CLI_CHECK_H

#include <stdbool.h>

#include "fs/cli/check_report.h"

struct cfs_error;
struct cfs_progress;
struct cfs_step;

/* What each gets.  A problem of the step goes into the report; an error that
 * is returned means that the check itself could not go on. */
struct cfs_check {
	struct cfs_step *step;
	struct cfs_check_report *report;
	struct cfs_progress *progress;
	bool crc; /* read every record and compare its CRC-32 */
};

/* check_files.c: every file parses, every record lies in it. */
CFS_MUST_CHECK int cfs_check_files(struct cfs_check *check,
				   struct cfs_error *err);
/* check_coverage.c: each role is there for each parameter that has it. */
CFS_MUST_CHECK int cfs_check_coverage(struct cfs_check *check,
				      struct cfs_error *err);
/* check_values.c: weights against masters; NaN and Inf of every role. */
CFS_MUST_CHECK int cfs_check_values(struct cfs_check *check,
				    struct cfs_error *err);
/* check_padding.c: elements of the partitions that belong to no parameter. */
CFS_MUST_CHECK int cfs_check_padding(struct cfs_check *check,
				     struct cfs_error *err);
/* check_replicas.c: shared parameters, buffers saved by several ranks. */
CFS_MUST_CHECK int cfs_check_replicas(struct cfs_check *check,
				      struct cfs_error *err);

#endif
