/* ckptfs ls: the steps of a run, whole or not, and which one a load gets. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/facts.h"
#include "fs/cli/files.h"
#include "fs/cli/json.h"
#include "fs/cli/latest.h"
#include "fs/cli/say.h"
#include "fs/cli/table.h"
#include "fs/cli/target.h"
#include "fs/daemon/layouts.h"
#include "fs/format/step_name.h"
#include "fs/view/view.h"
#include "store/map/source.h"
#include "store/util/buf.h"
#include "store/util/grow.h"
#include "store/util/path.h"

/* One step, as a row and as JSON. */
struct row {
	char *name;
	bool whole, latest;
	const char *status;
	char why[sizeof(((struct cfs_error *)NULL)->text)];
	uint64_t bytes;
	int64_t mtime_ns;
	bool known; /* it could be read: what follows is set */
	struct cfs_topology topology;
	uint32_t n_ranks;
	enum cfs_dtype dtype;
	int64_t global_steps;
	char writer[48];
};

struct rows {
	size_t n, cap;
	struct row *list;
};

static void rows_free(struct rows *rows)
{
	size_t i;

	for (i = 0; i < rows->n; i++)
		free(rows->list[i].name);
	free(rows->list);
}

static struct row *add_row(struct rows *rows, const char *name)
{
	struct row *row;

	if (!CFS_GROW(rows->list, rows->n, rows->cap))
		return NULL;
	row = &rows->list[rows->n];
	*row = (struct row){.name = strdup(name), .global_steps = -1};
	if (row->name)
		rows->n++;
	return row->name ? row : NULL;
}

static void take_facts(const struct cfs_step *step,
		       const struct cfs_topology *topology, struct row *row)
{
	row->known = true;
	row->topology = *topology;
	row->n_ranks = step->n_ranks;
	row->dtype = step->dtype;
	row->global_steps = step->global_steps;
	row->mtime_ns = step->mtime_ns;
	snprintf(row->writer, sizeof(row->writer), "%s",
		 step->writer_version ? step->writer_version : "");
}

static void note(struct row *row, int r, const struct cfs_error *err)
{
	const char *text = err->text[0] ? err->text : strerror(-r);
	const char *own = strstr(text, row->name);
	size_t len = strlen(row->name);

	/* the row begins with the step's name already */
	if (own && (own == text || own[-1] == '/') &&
	    strncmp(own + len, ": ", 2) == 0 &&
	    !memchr(text, ' ', (size_t)(own - text)))
		text = own + len + 2;
	if (!row->why[0])
		snprintf(row->why, sizeof(row->why), "%s", text);
}

/* From the plan of a view, or from the step as it was saved. */
static void take_step(struct cfs_target *t, struct cfs_vnode *node,
		      struct row *row)
{
	const struct cfs_tree *tree = cfs_vnode_tree(node);
	_cleanup_(cfs_step_unrefp) struct cfs_step *step = NULL;
	struct cfs_error err = {""};
	int r;

	if (tree) {
		take_facts(tree->step, &tree->target.topology, row);
		return;
	}
	r = cfs_target_saved_step(t, node, &step, &err); /* as asked already */
	if (r < 0)
		note(row, r, &err);
	else
		take_facts(step, &step->topology, row);
}

static void fill_row(struct cfs_target *t, struct cfs_vnode *node,
		     struct row *row)
{
	_cleanup_(cfs_files_free) struct cfs_files files = {0};
	struct cfs_error err = {""};
	int r;

	take_step(t, node, row);
	r = cfs_files_list(node, true, &files, &err);
	if (r < 0)
		note(row, r, &err);
	row->bytes = cfs_files_bytes(&files);
}

/* What ranks saved as files of their own: no format reads it, and it is whole.
 */
static int add_committed(struct cfs_target *t, const char *name,
			 struct rows *rows)
{
	_cleanup_(cfs_freep) char *path = NULL;
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	_cleanup_(cfs_files_free) struct cfs_files files = {0};
	struct cfs_error err = {""};
	struct row *row;
	int r;

	if (cfs_vnode_kind(t->node) != CFS_VNODE_SOURCE)
		return 0;
	path = cfs_path_join(cfs_vnode_source_path(t->node), name);
	if (!path)
		return -ENOMEM;
	if (!cfs_source_path_ok(path) ||
	    cfs_layout_committed(t->source, path) <= 0)
		return 0;
	row = add_row(rows, name);
	if (!row)
		return -ENOMEM;
	row->whole = true;
	row->status = "whole";
	r = cfs_vnode_lookup(t->node, name, &node, &err);
	if (r == 0)
		r = cfs_files_list(node, true, &files, &err);
	if (r < 0)
		note(row, r, &err);
	row->bytes = cfs_files_bytes(&files);
	return 0;
}

static int add_step(struct cfs_target *t, const char *name, struct rows *rows)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	struct cfs_error err = {""};
	struct row *row;
	int whole, r;

	whole = cfs_target_is_whole(t, t->node, name, &err);
	if (whole == -ENOENT)
		return add_committed(t, name, rows);
	row = add_row(rows, name);
	if (!row)
		return -ENOMEM;
	row->whole = whole > 0;
	row->status = whole > 0 ? "whole" : "incomplete";
	if (whole <= 0)
		note(row, whole, &err);
	err.text[0] = 0;
	r = cfs_vnode_lookup(t->node, name, &node, &err);
	if (r < 0)
		note(row, r, &err);
	else
		fill_row(t, node, row);
	if (!row->known && row->whole)
		row->status = cfs_vnode_kind(t->node) == CFS_VNODE_RUN_VIEW
				      ? "not shown"
				      : "unreadable";
	return 0;
}

static int collect(struct cfs_target *t, struct rows *rows)
{
	_cleanup_(cfs_files_names_free) struct cfs_files_names names = {0};
	size_t i;
	int r;

	r = cfs_files_names(t->node, &names);
	for (i = 0; r == 0 && i < names.n; i++)
		r = add_step(t, names.list[i], rows);
	return r;
}

/* What a view's own pointer says: @latest, or the newest whole step before. */
static const struct row *newest(const struct rows *rows, const char *latest)
{
	const struct row *best = NULL;
	int64_t limit = cfs_step_number(latest), best_number = -1;
	size_t i;

	for (i = 0; i < rows->n; i++) {
		const struct row *row = &rows->list[i];
		int64_t n = cfs_step_number(row->name);

		if (row->whole && row->latest)
			return row;
		if (row->whole && n < limit && n > best_number &&
		    cfs_step_is_like(row->name, latest)) {
			best = row;
			best_number = n;
		}
	}
	return best;
}

static void print_json_row(const struct row *row, cJSON *steps)
{
	cJSON *o = cfs_json_object(steps, NULL);

	cfs_json_str(o, "name", row->name);
	cfs_json_bool(o, "latest", row->latest);
	cfs_json_bool(o, "complete", row->whole);
	cfs_json_str(o, "status", row->status);
	cfs_json_str(o, "problem", row->why[0] ? row->why : NULL);
	cfs_json_u64(o, "size_bytes", row->bytes);
	if (!row->known)
		return;
	cfs_facts_topology_json(&row->topology, row->n_ranks, o);
	cfs_json_str(o, "dtype", cfs_dtype_name(row->dtype));
	cfs_json_i64(o, "global_steps", row->global_steps);
	cfs_json_i64(o, "mtime_ns", row->mtime_ns);
	cfs_json_str(o, "writer_version", row->writer[0] ? row->writer : NULL);
}

static int print_json(const char *path, const struct rows *rows,
		      const char *latest)
{
	_cleanup_(cfs_json_freep) cJSON *json = cJSON_CreateObject();
	const struct row *load = latest ? newest(rows, latest) : NULL;
	cJSON *steps;
	size_t i;

	cfs_json_str(json, "run", path);
	cfs_json_str(json, "latest", latest);
	cfs_json_str(json, "view_latest", load ? load->name : NULL);
	steps = cfs_json_array(json, "steps");
	for (i = 0; i < rows->n; i++)
		print_json_row(&rows->list[i], steps);
	return cfs_json_print(json);
}

static void print_row(const struct row *row, struct cfs_table *table)
{
	cfs_table_cell(table, "%s", row->name);
	if (row->known) {
		cfs_table_cell(table, "%" PRIu32, row->topology.dp);
		cfs_table_cell(table, "%" PRIu32, row->n_ranks);
		cfs_table_cell(table, "%d", row->topology.zero_stage);
		cfs_table_cell(table, "%s",
			       cfs_facts_class(row->topology.optimizer));
		cfs_table_cell(table, "%s", cfs_dtype_name(row->dtype));
	} else {
		int i;

		for (i = 0; i < 5; i++)
			cfs_table_cell(table, "?");
	}
	cfs_table_cell(table, "%s", cfs_text_bytes(row->bytes).s);
	cfs_table_cell(table, "%s",
		       row->known ? cfs_text_time(row->mtime_ns).s : "?");
	cfs_table_cell(table, "%s", row->writer);
	cfs_table_cell(table, "%s%s", row->status,
		       row->latest ? ", latest" : "");
}

static int print_table(const struct rows *rows, const char *latest, bool odd)
{
	static const char *const headers[] = {
		"STEP",	 ">DP",	  ">MP",    "ZERO",   "OPTIMIZER", "DTYPE",
		">SIZE", "SAVED", "WRITER", "STATUS", NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table = NULL;
	const struct row *load;
	size_t i;
	int r;

	table = cfs_table_new(headers);
	for (i = 0; i < rows->n; i++)
		print_row(&rows->list[i], table);
	r = cfs_table_print(table, 0, stdout);
	for (i = 0; i < rows->n; i++)
		if (rows->list[i].why[0])
			printf("%s: %s\n", rows->list[i].name,
			       rows->list[i].why);
	if (odd)
		return r; /* said on stderr */
	if (!latest) {
		puts("no `latest`: a load without a tag starts from scratch");
		return r;
	}
	load = newest(rows, latest);
	if (!load)
		printf("latest names %s; no whole step at or before it\n",
		       latest);
	else if (strcmp(load->name, latest) != 0)
		printf("latest names %s; views show %s, the newest whole step "
		       "before it\n",
		       latest, load->name);
	return r;
}

static int list_run(const char *path, bool as_json, struct cfs_error *err)
{
	_cleanup_(cfs_target_close) struct cfs_target t = {0};
	_cleanup_(rows_free) struct rows rows = {0};
	_cleanup_(cfs_buf_free) struct cfs_buf name = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf own = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf shown = CFS_BUF_INIT;
	struct cfs_error why = {""};
	const char *latest = NULL;
	bool odd, is_run = false;
	size_t i;
	int r;

	r = cfs_target_open(path, &t, err);
	if (r < 0)
		return r;
	r = cfs_target_is_run(t.node);
	if (r >= 0)
		is_run = r > 0;
	if (r == 0 && cfs_vnode_kind(t.node) == CFS_VNODE_SOURCE)
		r = collect(&t, &rows); /* ranks' own alone? */
	if (r < 0)
		return r;
	if (!is_run && !rows.n)
		return cfs_fail(err, -EINVAL,
				"%s: not a run: no step of a known format in "
				"it (for one step: ckptfs show)",
				path);
	r = cfs_target_latest(t.node, &name, err);
	if (r == -ENOMEM)
		return r;
	odd = r < 0 && r != -ENOENT;
	if (odd)
		cfs_say_warn(&cfs_verb_ls, "%s: %s", path,
			     err->text[0] ? err->text : strerror(-r));
	cfs_latest_warn(&cfs_verb_ls, &t);
	/* of a view, too: what the run's pointer really names */
	if (cfs_latest_replaced(&t, &own, &shown, &why) > 0)
		latest = cfs_buf_str(&own);
	else if (r == 0)
		latest = cfs_buf_str(&name);
	r = is_run ? collect(&t, &rows) : 0;
	if (r < 0)
		return r;
	for (i = 0; latest && i < rows.n; i++)
		rows.list[i].latest = strcmp(rows.list[i].name, latest) == 0;
	return as_json ? print_json(path, &rows, latest)
		       : print_table(&rows, latest, odd);
}

static int run(int argc, char **argv)
{
	struct cfs_error err = {""};
	bool as_json = false;
	const struct cfs_say_option options[] = {
		{.name = "json", .flag = &as_json},
		{0},
	};
	int r, status;

	if (!cfs_say_options(&cfs_verb_ls, argc, argv, options, &status))
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_ls, "name one run");
	r = list_run(argv[optind], as_json, &err);
	if (r < 0)
		return cfs_say_fail(&cfs_verb_ls, argv[optind], r, &err);
	return cfs_say_done(&cfs_verb_ls, CFS_EXIT_OK);
}

const struct cfs_verb cfs_verb_ls = {
	.name = "ls",
	.summary = "the steps of a run, and which one a load gets",
	.help = "usage: ckptfs ls [--json] RUN\n"
		"\n"
		"Lists the steps of a run: data-parallel and model-parallel "
		"sizes, ZeRO stage,\n"
		"optimizer class, weights' type, size, time saved, version of "
		"the writer, and\n"
		"whether the step is whole or what is missing. RUN may also "
		"be a view, such as\n"
		"run1/@dp32.\n"
		"\n"
		"The step that `latest` names is marked; where it is not "
		"whole, the step that\n"
		"views show instead is named below.\n"
		"\n"
		"  --json      print JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when RUN cannot be listed, 2 for bad usage.\n",
	.run = run,
};
