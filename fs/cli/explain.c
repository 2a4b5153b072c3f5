/* Explains a view of a step: topology, origin of each item, files in sums. */
#include "fs/cli/explain.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/facts.h"
#include "fs/cli/files.h"
#include "fs/cli/json.h"
#include "fs/cli/latest.h"
#include "fs/cli/live.h"
#include "fs/cli/ranges.h"
#include "fs/cli/say.h"
#include "fs/cli/table.h"
#include "fs/cli/target.h"
#include "fs/view/view.h"
#include "store/util/buf.h"
#include "store/util/error.h"

/* What is printed, gathered first: for both forms. */
struct shown {
	const char *path;
	const struct cfs_step *step;	   /* as saved */
	const struct cfs_resolved *target; /* NULL: shown as saved */
	const char *step_path;
	const struct cfs_explain_options *options;
	struct cfs_table *table;
	cJSON *json, *json_files;
};

static void item_json(cJSON *items, const char *name, const char *value,
		      enum cfs_origin origin)
{
	cJSON *o = cfs_json_object(items, name);

	cfs_json_str(o, "value", value);
	cfs_json_str(o, "origin", cfs_origin_name(origin));
}

struct item {
	const char *name;
	char value[48];
	enum cfs_origin origin;
};

/* The items of a request, completed; returns how many. */
static int list_items(const struct cfs_resolved *t, struct item items[7])
{
	int n = 0;

	items[n] = (struct item){.name = "dp", .origin = t->dp};
	snprintf(items[n++].value, 48, "%" PRIu32, t->topology.dp);
	items[n] = (struct item){.name = "tp", .origin = t->tp};
	snprintf(items[n++].value, 48, "%" PRIu32, t->topology.tp);
	items[n] = (struct item){.name = "pp", .origin = t->pp};
	snprintf(items[n++].value, 48, "%" PRIu32,
		 t->topology.pipeline ? t->topology.pp : 0);
	items[n] = (struct item){.name = "zero", .origin = t->zero_stage};
	snprintf(items[n++].value, 48, "%d", t->topology.zero_stage);
	items[n] = (struct item){.name = "optimizer", .origin = t->optimizer};
	snprintf(items[n++].value, 48, "%s",
		 cfs_optimizer_class_name(t->topology.optimizer));
	items[n] =
		(struct item){.name = "round_robin", .origin = t->round_robin};
	snprintf(items[n++].value, 48, "%s",
		 t->topology.round_robin ? "yes" : "no");
	if (t->topology.optimizer != CFS_OPT_ZERO3)
		return n;
	items[n] = (struct item){.name = "sub_group_size",
				 .origin = t->sub_group_size};
	snprintf(items[n++].value, 48, "%" PRIu64, t->topology.sub_group_size);
	return n;
}

static int print_items(const struct shown *s)
{
	static const char *const headers[] = {"ITEM", "VALUE", "FROM", NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table = NULL;
	struct item items[7];
	int i, n = list_items(s->target, items);

	if (s->json) {
		cJSON *o = cfs_json_object(s->json, "request");

		for (i = 0; i < n; i++)
			item_json(o, items[i].name, items[i].value,
				  items[i].origin);
		if (s->target->options)
			cJSON_AddItemToObject(s->json, "options",
					      cJSON_Parse(s->target->options));
		return 0;
	}
	if (s->target->options)
		printf("with:  %s\n", s->target->options);
	table = cfs_table_new(headers);
	for (i = 0; i < n; i++) {
		cfs_table_cell(table, "%s", items[i].name);
		cfs_table_cell(table, "%s", items[i].value);
		cfs_table_cell(table, "%s", cfs_origin_name(items[i].origin));
	}
	return cfs_table_print(table, 2, stdout);
}

/* Model-parallel ones. */
static uint32_t shown_ranks(const struct shown *s)
{
	return s->target->topology.tp * s->target->topology.pp;
}

static int print_head(const struct shown *s)
{
	const struct cfs_step *step = s->step;
	cJSON *saved;

	if (s->json) {
		cfs_json_str(s->json, "path", s->path);
		cfs_json_bool(s->json, "possible", 1);
		cfs_json_str(s->json, "step", s->step_path);
		cfs_json_bool(s->json, "as_saved", !s->target);
		saved = cfs_json_object(s->json, "saved");
		cfs_facts_topology_json(&step->topology, step->n_ranks, saved);
		if (s->target)
			cfs_facts_topology_json(
				&s->target->topology, shown_ranks(s),
				cfs_json_object(s->json, "shown"));
	} else {
		printf("%s\nsaved: %s: %s\n", s->path, s->step_path,
		       cfs_facts_topology(&step->topology, step->n_ranks).s);
		if (s->target)
			printf("shown: %s\n",
			       cfs_facts_topology(&s->target->topology,
						  shown_ranks(s))
				       .s);
		else
			puts("shown: as saved, which is what is asked for");
	}
	return s->target ? print_items(s) : 0;
}

static void tally_json(cJSON *o, const struct cfs_ranges_tally *t)
{
	cfs_json_u64(o, "bytes", t->total);
	cfs_json_u64(o, "range_bytes", t->range);
	cfs_json_u64(o, "gather_bytes", t->gather);
	cfs_json_u64(o, "cast_bytes", t->cast);
	cfs_json_u64(o, "linear_bytes", t->linear);
	cfs_json_u64(o, "zero_bytes", t->zero);
	cfs_json_u64(o, "literal_bytes", t->literal);
	cfs_json_u64(o, "source_files", t->n_files);
}

static void tally_row(const struct shown *s, const char *name,
		      const struct cfs_ranges_tally *t)
{
	const uint64_t cells[] = {t->total, t->range, t->gather + t->linear,
				  t->cast,  t->zero,  t->literal};
	size_t i;

	cfs_table_cell(s->table, "%s", name);
	for (i = 0; i < CFS_ARRAY_SIZE(cells); i++)
		cfs_table_cell(s->table, "%" PRIu64, cells[i]);
	cfs_table_cell(s->table, "%" PRIu32, t->n_files);
}

static void sum(struct cfs_ranges_tally *into, const struct cfs_ranges_tally *t)
{
	into->total += t->total;
	into->range += t->range;
	into->zero += t->zero;
	into->literal += t->literal;
	into->gather += t->gather;
	into->cast += t->cast;
	into->linear += t->linear;
}

static int explain_entry(const struct shown *s, const struct cfs_files_entry *e,
			 struct cfs_ranges_tally *all, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_ranges_tally tally = {0};
	cJSON *o;
	int r;

	if (S_ISDIR(e->st.st_mode))
		return 0;
	if (cfs_vnode_kind(e->node) != CFS_VNODE_FILE) {
		tally.total = (uint64_t)e->st.st_size;
		if (cfs_vnode_kind(e->node) == CFS_VNODE_SOURCE) {
			tally.range = tally.total;
			tally.n_files = 1;
		} else {
			tally.literal = tally.total;
		}
	} else {
		r = cfs_vnode_map(e->node, &map, err);
		if (r < 0)
			return cfs_fail_prefix(err, r, "%s", e->path);
		cfs_ranges_add(map, &tally);
	}
	o = cfs_json_object(s->json_files, NULL);
	cfs_json_str(o, "name", e->path);
	tally_json(o, &tally);
	tally_row(s, e->path, &tally);
	sum(all, &tally);
	return 0;
}

static int explain_files(struct shown *s, struct cfs_vnode *dir,
			 struct cfs_error *err)
{
	static const char *const headers[] = {"FILE",	   ">BYTES",   ">RANGE",
					      ">GATHERED", ">CAST",    ">ZEROS",
					      ">LITERAL",  ">SOURCES", NULL};
	_cleanup_(cfs_files_free) struct cfs_files files = {0};
	_cleanup_(cfs_table_freep) struct cfs_table *table = NULL;
	struct cfs_ranges_tally all = {0};
	size_t i;
	int r;

	r = cfs_files_list(dir, true, &files, err);
	if (r < 0)
		return r;
	table = cfs_table_new(headers);
	s->table = table;
	s->json_files = cfs_json_array(s->json, "files");
	for (i = 0; r == 0 && i < files.n; i++)
		r = explain_entry(s, &files.entries[i], &all, err);
	if (r < 0)
		return r;
	all.n_files = cfs_filetab_count(s->step->files);
	tally_json(cfs_json_object(s->json, "total"), &all);
	tally_row(s, "total", &all);
	return s->json ? cfs_json_print(s->json)
		       : cfs_table_print(table, 2, stdout);
}

static int explain_step(const char *path, struct cfs_target *t,
			struct cfs_vnode *node,
			const struct cfs_explain_options *options,
			struct cfs_error *err)
{
	_cleanup_(cfs_json_freep) cJSON *json =
		options->json ? cJSON_CreateObject() : NULL;
	_cleanup_(cfs_step_unrefp) struct cfs_step *step = NULL;
	struct cfs_tree *tree = cfs_vnode_tree(node);
	struct shown s = {.path = path,
			  .options = options,
			  .step_path = cfs_vnode_source_path(node),
			  .json = json};
	int r;

	r = cfs_target_saved_step(t, node, &step, err);
	if (r < 0)
		return r;
	s.step = step;
	s.target = tree ? &tree->target : NULL;
	r = print_head(&s);
	return r < 0 ? r : explain_files(&s, node, err);
}

/* The step a run's view would have loaded. */
static int explain_run(const char *path, struct cfs_target *t,
		       const struct cfs_explain_options *options,
		       struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *step = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf name = CFS_BUF_INIT;
	_cleanup_(cfs_freep) char *full = NULL;
	int r;

	r = cfs_target_latest(t->node, &name, err);
	if (r == -ENOENT)
		return cfs_fail(err, r,
				"%s: the run has no `latest`; explain one of "
				"its steps",
				path);
	if (r < 0)
		return r;
	cfs_latest_warn(&cfs_verb_view, t);
	r = cfs_vnode_lookup(t->node, cfs_buf_str(&name), &step, err);
	if (r < 0)
		return r;
	if (asprintf(&full, "%s/%s", path, cfs_buf_str(&name)) < 0)
		return -ENOMEM;
	return explain_step(full, t, step, options, err);
}

/* What is there as it stands needs no explanation, but has one. */
static int explain_plain(const char *path, struct cfs_target *t,
			 const struct cfs_explain_options *options)
{
	_cleanup_(cfs_json_freep) cJSON *json = NULL;
	const char *what = cfs_vnode_kind(t->node) == CFS_VNODE_POINTER
				   ? "a pointer made by the view"
				   : "the source's own, as it is";

	if (!options->json) {
		printf("%s: %s\n", path, what);
		return 0;
	}
	json = cJSON_CreateObject();
	cfs_json_str(json, "path", path);
	cfs_json_bool(json, "possible", 1);
	cfs_json_bool(json, "as_saved",
		      cfs_vnode_kind(t->node) == CFS_VNODE_SOURCE);
	cfs_json_str(json, "source", cfs_vnode_source_path(t->node));
	return cfs_json_print(json);
}

static int explain(const char *path, const char *real,
		   const struct cfs_explain_options *options,
		   struct cfs_error *err)
{
	_cleanup_(cfs_target_close) struct cfs_target t = {0};
	int r;

	r = cfs_target_open(real, &t, err);
	if (r < 0)
		return r;
	switch (cfs_vnode_kind(t.node)) {
	case CFS_VNODE_RUN_VIEW:
		return explain_run(path, &t, options, err);
	case CFS_VNODE_STEP_VIEW:
		return explain_step(path, &t, t.node, options, err);
	case CFS_VNODE_FILE:
		return cfs_explain_file(path, &t, options, err);
	case CFS_VNODE_SOURCE:
	case CFS_VNODE_POINTER:
		break;
	}
	return explain_plain(path, &t, options);
}

int cfs_explain(const char *path, const struct cfs_explain_options *options,
		struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *real = NULL;
	int r;

	r = cfs_live_translate_plain(path, &real, err);
	return r < 0 ? r : explain(path, real, options, err);
}
