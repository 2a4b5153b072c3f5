/* What diff found, collected in order and printed as a table or as JSON. */
#ifndef CFS_CLI_DIFF_REPORT_H
#define CFS_CLI_DIFF_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "store/util/base.h"

struct cfs_delta;
struct cfs_node;
struct cfs_table;
struct cfs_tensors_item;

struct cfs_diff_report {
	const char *a, *b; /* borrowed paths */
	uint64_t n_equal, n_different;
	uint64_t n_derived; /* kept by one side, made by the other's loader */
	uint64_t n_skipped; /* values that were not compared, A's or B's */
	uint64_t n_tensor_rows, n_leaf_rows;
	struct cfs_table *tensors, *leaves;
	cJSON *json, *json_tensors, *json_state; /* NULL: print tables */
};

CFS_MUST_CHECK int cfs_diff_report_init(struct cfs_diff_report *report,
					const char *a, const char *b,
					bool json);
void cfs_diff_report_free(struct cfs_diff_report *report);

/* Each counts what it is told as equal or different; 0 or -ENOMEM. */
CFS_MUST_CHECK int cfs_diff_report_shape(struct cfs_diff_report *report,
					 const struct cfs_tensors_item *a,
					 const struct cfs_tensors_item *b);
CFS_MUST_CHECK int cfs_diff_report_delta(struct cfs_diff_report *report,
					 const struct cfs_tensors_item *a,
					 const struct cfs_tensors_item *b,
					 const struct cfs_delta *delta);
/* @which: the side that has it, 'A' or 'B'. */
CFS_MUST_CHECK int cfs_diff_report_only(struct cfs_diff_report *report,
					const struct cfs_tensors_item *item,
					char which);
/* Values that are no tensors; NULL: not on that side. */
CFS_MUST_CHECK int cfs_diff_report_leaf(struct cfs_diff_report *report,
					const char *path,
					const struct cfs_node *a,
					const struct cfs_node *b);

CFS_MUST_CHECK int cfs_diff_report_print(struct cfs_diff_report *report);

#endif
