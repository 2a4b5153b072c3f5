/* What diff found: rows as they come, printed at the end. */
#include "fs/cli/diff_report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/delta.h"
#include "fs/cli/json.h"
#include "fs/cli/nodes.h"
#include "fs/cli/table.h"
#include "fs/cli/tensors.h"
#include "fs/cli/text.h"
#include "fs/container/pickle.h"
#include "store/util/buf.h"

#define VALUE_MAX 40

int cfs_diff_report_init(struct cfs_diff_report *report, const char *a,
			 const char *b, bool json)
{
	static const char *const tensors[] = {
		"TENSOR",   "ROLE",	 ">DIFFERENT", ">OF",
		">MAX ABS", ">RELATIVE", "WHAT",       NULL};
	static const char *const leaves[] = {"VALUE", "A", "B", NULL};

	*report = (struct cfs_diff_report){.a = a, .b = b};
	if (json) {
		report->json = cJSON_CreateObject();
		cfs_json_str(report->json, "a", a);
		cfs_json_str(report->json, "b", b);
		report->json_tensors = cfs_json_array(report->json, "tensors");
		report->json_state = cfs_json_array(report->json, "state");
		return report->json_state ? 0 : -ENOMEM;
	}
	report->tensors = cfs_table_new(tensors);
	report->leaves = cfs_table_new(leaves);
	return report->tensors && report->leaves ? 0 : -ENOMEM;
}

void cfs_diff_report_free(struct cfs_diff_report *report)
{
	cfs_table_freep(&report->tensors);
	cfs_table_freep(&report->leaves);
	cfs_json_freep(&report->json);
}

/* A new object for a tensor that differs, or NULL for a table. */
static cJSON *begin(struct cfs_diff_report *report,
		    const struct cfs_tensors_item *item, const char *kind)
{
	cJSON *o = cfs_json_object(report->json_tensors, NULL);

	report->n_different++;
	report->n_tensor_rows++;
	cfs_json_str(o, "name", item->name);
	cfs_json_str(o, "role", item->role);
	cfs_json_str(o, "kind", kind);
	return o;
}

static void plain_row(struct cfs_diff_report *report,
		      const struct cfs_tensors_item *item, const char *what)
{
	int i;

	cfs_table_cell(report->tensors, "%s", item->name);
	cfs_table_cell(report->tensors, "%s", item->role);
	cfs_table_cell(report->tensors, "-");
	cfs_table_cell(report->tensors, "%" PRIu64, item->numel);
	for (i = 0; i < 2; i++)
		cfs_table_cell(report->tensors, "-");
	cfs_table_cell(report->tensors, "%s", what);
}

int cfs_diff_report_shape(struct cfs_diff_report *report,
			  const struct cfs_tensors_item *a,
			  const struct cfs_tensors_item *b)
{
	cJSON *o = begin(report, a, "shape");
	char what[2 * CFS_TEXT_MAX + 16];

	cfs_json_shape(o, "shape_a", a->ndim, a->shape);
	cfs_json_shape(o, "shape_b", b->ndim, b->shape);
	snprintf(what, sizeof(what), "shape %s / %s",
		 cfs_text_shape(a->ndim, a->shape).s,
		 cfs_text_shape(b->ndim, b->shape).s);
	plain_row(report, a, what);
	return 0;
}

static void delta_json(cJSON *o, const struct cfs_tensors_item *a,
		       const struct cfs_tensors_item *b,
		       const struct cfs_delta *delta)
{
	cfs_json_str(o, "dtype_a", cfs_dtype_name(a->dtype));
	cfs_json_str(o, "dtype_b", cfs_dtype_name(b->dtype));
	cfs_json_u64(o, "elements", a->numel);
	cfs_json_u64(o, "different", delta->n_differ);
	if (delta->n_differ)
		cfs_json_u64(o, "first", delta->first);
	if (!delta->numbers)
		return;
	cfs_json_real(o, "max_abs", delta->max_abs);
	cfs_json_real(o, "relative_norm", delta->relative);
}

int cfs_diff_report_delta(struct cfs_diff_report *report,
			  const struct cfs_tensors_item *a,
			  const struct cfs_tensors_item *b,
			  const struct cfs_delta *delta)
{
	bool dtype = a->dtype != b->dtype;
	cJSON *o;

	if (!delta->n_differ && !dtype) {
		report->n_equal++;
		return 0;
	}
	o = begin(report, a, delta->n_differ ? "values" : "dtype");
	if (o)
		delta_json(o, a, b, delta);
	if (!report->tensors)
		return 0;
	cfs_table_cell(report->tensors, "%s", a->name);
	cfs_table_cell(report->tensors, "%s", a->role);
	cfs_table_cell(report->tensors, "%" PRIu64, delta->n_differ);
	cfs_table_cell(report->tensors, "%" PRIu64, a->numel);
	if (delta->numbers) {
		cfs_table_cell(report->tensors, "%.3g", delta->max_abs);
		cfs_table_cell(report->tensors, "%.3g", delta->relative);
	} else {
		cfs_table_cell(report->tensors, "-");
		cfs_table_cell(report->tensors, "-");
	}
	if (dtype)
		cfs_table_cell(report->tensors, "%s / %s",
			       cfs_dtype_name(a->dtype),
			       cfs_dtype_name(b->dtype));
	else
		cfs_table_cell(report->tensors, "%s", cfs_dtype_name(a->dtype));
	return 0;
}

int cfs_diff_report_only(struct cfs_diff_report *report,
			 const struct cfs_tensors_item *item, char which)
{
	cJSON *o = begin(report, item, which == 'A' ? "only_a" : "only_b");

	cfs_json_u64(o, "elements", item->numel);
	plain_row(report, item, which == 'A' ? "only in A" : "only in B");
	return 0;
}

static void leaf_text(const struct cfs_node *node, struct cfs_buf *out)
{
	if (node)
		(void)cfs_nodes_repr(node, VALUE_MAX, out);
	else
		cfs_buf_put_str(out, "-");
}

int cfs_diff_report_leaf(struct cfs_diff_report *report, const char *path,
			 const struct cfs_node *a, const struct cfs_node *b)
{
	_cleanup_(cfs_buf_free) struct cfs_buf ta = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf tb = CFS_BUF_INIT;
	cJSON *o;

	if (a && b && cfs_node_equal(a, b))
		return 0;
	report->n_different++;
	report->n_leaf_rows++;
	leaf_text(a, &ta);
	leaf_text(b, &tb);
	o = cfs_json_object(report->json_state, NULL);
	cfs_json_str(o, "path", path);
	cfs_json_str(o, "a", a ? cfs_buf_str(&ta) : NULL);
	cfs_json_str(o, "b", b ? cfs_buf_str(&tb) : NULL);
	cfs_table_cell(report->leaves, "%s", path);
	cfs_table_cell(report->leaves, "%s", cfs_buf_str(&ta));
	cfs_table_cell(report->leaves, "%s", cfs_buf_str(&tb));
	return 0;
}

static int print_json(struct cfs_diff_report *report)
{
	cfs_json_bool(report->json, "equal", report->n_different == 0);
	cfs_json_u64(report->json, "tensors_equal", report->n_equal);
	cfs_json_u64(report->json, "tensors_different", report->n_tensor_rows);
	cfs_json_u64(report->json, "tensors_derived", report->n_derived);
	cfs_json_u64(report->json, "values_not_compared", report->n_skipped);
	return cfs_json_print(report->json);
}

int cfs_diff_report_print(struct cfs_diff_report *report)
{
	int r = 0;

	if (report->json)
		return print_json(report);
	if (report->n_tensor_rows)
		r = cfs_table_print(report->tensors, 0, stdout);
	if (r == 0 && report->n_leaf_rows)
		r = cfs_table_print(report->leaves, 0, stdout);
	if (report->n_derived)
		printf("%" PRIu64 " weights are on one side only: stage 3 "
		       "stores none\n",
		       report->n_derived);
	if (report->n_different)
		printf("%" PRIu64 " tensors equal, %" PRIu64
		       " different, %" PRIu64 " other values different\n",
		       report->n_equal, report->n_tensor_rows,
		       report->n_leaf_rows);
	else
		printf("%" PRIu64 " tensors equal\n", report->n_equal);
	if (report->n_skipped)
		printf("%" PRIu64 " other values (client state, scheduler, "
		       "counters, …) not compared\n",
		       report->n_skipped);
	return r;
}
