/* What check found: sections, each with its problems. */
#ifndef CFS_CLI_CHECK_REPORT_H
#define CFS_CLI_CHECK_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "store/util/base.h"

struct cfs_check_report {
	bool print; /* text as it comes; false: JSON at the end, or nothing */
	cJSON *json, *section, *problems;
	char name[32];
	uint64_t n_problems; /* of the section */
	uint64_t n_wrong;    /* of all */
};

CFS_MUST_CHECK int cfs_check_report_init(struct cfs_check_report *report,
					 const char *path, bool json,
					 bool quiet);
void cfs_check_report_free(struct cfs_check_report *report);

void cfs_check_report_begin(struct cfs_check_report *report, const char *name);
/* Something of this section is wrong: @object and one line about it. */
void cfs_check_report_problem(struct cfs_check_report *report,
			      const char *object, const char *fmt, ...)
	CFS_PRINTF(3, 4);
/* Numbers of the section, JSON only. */
void cfs_check_report_number(struct cfs_check_report *report, const char *key,
			     uint64_t value);
/* Ends the section: what was looked at, in words. */
void cfs_check_report_end(struct cfs_check_report *report, const char *fmt, ...)
	CFS_PRINTF(2, 3);
/* The section does not apply, and why. */
void cfs_check_report_skip(struct cfs_check_report *report, const char *name,
			   const char *fmt, ...) CFS_PRINTF(3, 4);
CFS_MUST_CHECK int cfs_check_report_print(struct cfs_check_report *report);

#endif
