/* One step on a page: what was saved, by how many, with which settings. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/batch.h"
#include "fs/cli/facts.h"
#include "fs/cli/json.h"
#include "fs/cli/nodes.h"
#include "fs/cli/scalars.h"
#include "fs/cli/show.h"
#include "fs/cli/show_params.h"
#include "fs/cli/target.h"
#include "fs/format/deepspeed/deepspeed.h"
#include "store/util/buf.h"

#define VALUE_MAX 48

struct shown {
	struct cfs_step *step;
	const struct cfs_ds_step *ds; /* NULL: another format */
	cJSON *json;
};

static int64_t model_int(const struct shown *s, const char *key)
{
	int64_t v;

	if (!s->ds ||
	    !cfs_node_as_int(cfs_node_get(s->ds->ranks[0].model_root, key), &v))
		return -1;
	return v;
}

static void show_counts(const struct shown *s)
{
	static const char *const keys[] = {"global_steps", "global_samples",
					   "skipped_steps", "iteration"};
	size_t i;

	if (!s->json)
		printf("  progress     ");
	for (i = 0; i < CFS_ARRAY_SIZE(keys); i++) {
		int64_t v = model_int(s, keys[i]);

		if (v < 0)
			continue;
		cfs_json_i64(s->json, keys[i], v);
		if (!s->json)
			printf("%s%s %" PRId64, i ? ", " : "", keys[i], v);
	}
	if (!s->json)
		putchar('\n');
}

static void show_batch(const struct shown *s)
{
	uint32_t dp = s->step->topology.dp;
	struct cfs_batch b = cfs_batch_of(s->ds ? s->ds->ds_config : NULL, dp);
	cJSON *o = cfs_json_object(s->json, "batch");

	cfs_json_u64(o, "train", b.train);
	cfs_json_u64(o, "micro", b.micro);
	cfs_json_u64(o, "accumulation", b.accumulation);
	cfs_json_u64(o, "dp", dp);
	cfs_json_bool(o, "derived", b.derived);
	cfs_json_bool(o, "consistent", !b.wrong);
	if (s->json)
		return;
	if (!b.train || !b.micro || !b.accumulation)
		puts("  batch        not decided by ds_config alone");
	else
		printf("  batch        micro %" PRIu64
		       " x accumulation %" PRIu64 " x dp %" PRIu32
		       " %s %" PRIu64 "%s\n",
		       b.micro, b.accumulation, dp, b.wrong ? "is not" : "=",
		       b.train,
		       b.derived ? " (completed by DeepSpeed's rules)" : "");
}

static void show_head(const char *path, const struct shown *s)
{
	const struct cfs_step *step = s->step;
	const struct cfs_ds_step *ds = s->ds;

	if (s->json) {
		cfs_json_str(s->json, "path", path);
		cfs_json_str(s->json, "format", step->format->name);
		cfs_facts_topology_json(&step->topology, step->n_ranks,
					s->json);
		cfs_json_str(s->json, "dtype", cfs_dtype_name(step->dtype));
		cfs_json_str(s->json, "writer_version", step->writer_version);
		cfs_json_i64(s->json, "mtime_ns", step->mtime_ns);
		cfs_json_bool(s->json, "elastic", ds && ds->elastic);
		cfs_json_bool(s->json, "legacy_files", ds && ds->legacy);
		return;
	}
	printf("%s\n  topology     %s\n", path,
	       cfs_facts_topology(&step->topology, step->n_ranks).s);
	printf("  weights      %s%s%s\n", cfs_dtype_name(step->dtype),
	       ds && ds->elastic ? "; elastic optimizer state" : "",
	       ds && ds->legacy ? "; files of torch's old format" : "");
	printf("  written by   %s %s, %s\n", step->format->name,
	       step->writer_version ? step->writer_version : "(unknown)",
	       cfs_text_time(step->mtime_ns).s);
}

static void show_shared(const struct shown *s)
{
	const struct cfs_node *shared =
		s->ds ? cfs_node_get(s->ds->ranks[0].model_root,
				     "shared_params")
		      : NULL;
	uint32_t i, n = cfs_map_node_count(shared);
	cJSON *o = cfs_json_object(s->json, "shared_params");
	struct cfs_node *key, *value;

	for (i = 0; i < n; i++) {
		cfs_map_node_pair(shared, i, &key, &value);
		if (!cfs_node_as_str(key) || !cfs_node_as_str(value))
			continue;
		cfs_json_str(o, cfs_node_as_str(key), cfs_node_as_str(value));
		if (!s->json)
			printf("  shared       %s is %s\n",
			       cfs_node_as_str(key), cfs_node_as_str(value));
	}
}

static void put_pair(const struct shown *s, const char *key,
		     const struct cfs_node *value, cJSON *o,
		     struct cfs_buf *line)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	double v;

	if (cfs_torch_is_tensor(value) &&
	    cfs_scalars_value(value, s->step->files, s->step->pool, &v))
		cfs_buf_put_str(&text, cfs_text_real(v).s);
	else
		(void)cfs_nodes_repr(value, VALUE_MAX, &text);
	cfs_json_str(o, key, cfs_buf_str(&text));
	cfs_buf_printf(line, "%s%s %s", line->len ? ", " : "", key,
		       cfs_buf_str(&text));
}

static void put_pairs(const struct shown *s, const struct cfs_node *map,
		      cJSON *o, struct cfs_buf *line)
{
	uint32_t i, n = cfs_map_node_count(map);
	struct cfs_node *key, *value;

	for (i = 0; i < n; i++) {
		const char *name;

		cfs_map_node_pair(map, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name && strcmp(name, "params") != 0)
			put_pair(s, name, value, o, line);
	}
}

static void show_group(const struct shown *s, uint32_t rank, uint32_t g,
		       cJSON *groups)
{
	_cleanup_(cfs_buf_free) struct cfs_buf hyper = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf state = CFS_BUF_INIT;
	const struct cfs_catalogue *cat = s->step->ranks[rank].catalogue;
	const struct cfs_ds_rank *dr = &s->ds->ranks[rank];
	cJSON *o = cfs_json_object(groups, NULL);
	uint64_t elements = 0;
	uint32_t first, n, i;

	cfs_catalogue_group(cat, g, &first, &n);
	for (i = 0; i < n; i++)
		elements += cfs_catalogue_param(cat, first + i)->numel;
	cfs_json_u64(o, "mp_rank", rank);
	cfs_json_u64(o, "group", g);
	cfs_json_u64(o, "parameters", n);
	cfs_json_u64(o, "elements", elements);
	if (g < dr->n_groups) {
		put_pairs(s, dr->groups[g].hyper,
			  cfs_json_object(o, "hyper_parameters"), &hyper);
		put_pairs(s, dr->groups[g].scalars, cfs_json_object(o, "state"),
			  &state);
	}
	if (s->json)
		return;
	printf("  group %-6" PRIu32 " %" PRIu32 " parameters, %s elements", g,
	       n, cfs_text_count(elements).s);
	if (s->step->n_ranks > 1)
		printf(" (mp rank %" PRIu32 ")", rank);
	printf("\n               %s\n",
	       hyper.len ? cfs_buf_str(&hyper) : "no hyper-parameters");
	if (state.len)
		printf("               state: %s\n", cfs_buf_str(&state));
}

static void show_groups(const struct shown *s)
{
	cJSON *groups = cfs_json_array(s->json, "groups");
	uint32_t rank, g;

	for (rank = 0; s->ds && rank < s->step->n_ranks; rank++)
		for (g = 0;
		     g < cfs_catalogue_groups(s->step->ranks[rank].catalogue);
		     g++)
			show_group(s, rank, g, groups);
}

int cfs_show_step(const char *path, struct cfs_target_step *ts,
		  const struct cfs_show_options *options)
{
	_cleanup_(cfs_json_freep) cJSON *json =
		options->json ? cJSON_CreateObject() : NULL;
	struct shown s = {.step = ts->step, .json = json};
	int r;

	if (ts->step->format == &cfs_format_deepspeed)
		s.ds = cfs_ds_step_of(ts->step);
	show_head(path, &s);
	show_counts(&s);
	show_batch(&s);
	r = cfs_show_params_totals(ts->step, json);
	if (r < 0)
		return r;
	show_shared(&s);
	show_groups(&s);
	r = cfs_show_params_files(ts->step, json);
	if (r == 0 && options->params)
		r = cfs_show_params_list(ts->step, json);
	if (r < 0)
		return r;
	return json ? cfs_json_print(json) : 0;
}
