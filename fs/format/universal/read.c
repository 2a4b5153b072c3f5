/*
 * Facts and parameters of a universal checkpoint.  Which group a
 * parameter is of, and in which order, only the model states' param_shapes
 * say.
 */
#include "fs/format/universal/read.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/deepspeed/layer.h"
#include "store/util/error.h"
#include "store/util/grow.h"

/* ---- parameters ---- */

/* param_shapes has one dictionary a group, or in stage 3 a sub-group: these
 * are listed by their groups. */
static uint32_t group_of(const struct cfs_uc_reading *rd, uint32_t unit)
{
	const struct cfs_node *groups =
		cfs_node_get(cfs_node_get(rd->step->ranks[0].optim_state,
					  "optimizer_state_dict"),
			     "param_groups");

	for (uint32_t g = 0; rd->zero3 && g < cfs_seq_node_count(groups); g++) {
		const struct cfs_node *units =
			cfs_node_get(cfs_seq_node_item(groups, g), "params");

		for (uint32_t i = 0; i < cfs_seq_node_count(units); i++) {
			uint64_t v;

			if (cfs_node_as_u64(cfs_seq_node_item(units, i), &v) &&
			    v == unit)
				return g;
		}
	}
	return unit;
}

/* Weights made of masters are found by layer. */
static int check_name(const char *name, struct cfs_error *err)
{
	return cfs_ds_layer_parse(name).form == CFS_DS_FORM_PLAIN
		       ? cfs_fail(
				 err, -ENOTSUP,
				 "parameter %s: its name does not say of which "
				 "layer it is",
				 name)
		       : 0;
}

static int add_param(struct cfs_uc_reading *rd, const struct cfs_node *key,
		     const struct cfs_node *value, uint32_t group,
		     struct cfs_error *err)
{
	const char *name = cfs_node_as_str(key);
	uint64_t shape[CFS_TENSOR_DIMS_MAX];
	uint32_t ndim;
	int r;

	if (!name ||
	    !cfs_node_as_shape(value, CFS_TENSOR_DIMS_MAX, &ndim, shape))
		return cfs_fail(err, -EBADMSG, "param_shapes cannot be read");
	r = rd->step->only_masters ? check_name(name, err) : 0;
	if (!r)
		r = cfs_catalogue_add_param(rd->cat, name, ndim, shape, group,
					    NULL);
	if (r == -EEXIST && rd->n_models > 1)
		return 0; /* another rank's, or tied */
	return r == -EEXIST ? cfs_fail(err, -EINVAL,
				       "param_shapes has %s twice", name)
			    : r;
}

static const struct cfs_node *shapes_of(const struct cfs_uc_reading *rd,
					uint32_t m)
{
	return cfs_node_get(cfs_torchfile_root(rd->models[m].torch),
			    "param_shapes");
}

/* Of group @group, of all ranks. */
static int add_group(struct cfs_uc_reading *rd, uint32_t group,
		     struct cfs_error *err)
{
	int r = 0;

	for (uint32_t m = 0; !r && m < rd->n_models; m++) {
		const struct cfs_node *shapes = shapes_of(rd, m);

		for (uint32_t u = 0; !r && u < cfs_seq_node_count(shapes);
		     u++) {
			struct cfs_node *unit = cfs_seq_node_item(shapes, u);
			uint32_t n = group_of(rd, u) == group
					     ? cfs_map_node_count(unit)
					     : 0;

			for (uint32_t i = 0; !r && i < n; i++) {
				struct cfs_node *key, *value;

				cfs_map_node_pair(unit, i, &key, &value);
				r = add_param(rd, key, value, group, err);
			}
		}
	}
	return r;
}

static int add_params(struct cfs_uc_reading *rd, struct cfs_error *err)
{
	uint32_t n = cfs_seq_node_count(shapes_of(rd, 0));
	int r = 0;

	/* a stage may lack the last groups */
	for (uint32_t m = 1; n && m < rd->n_models; m++)
		n = CFS_MAX(n, cfs_seq_node_count(shapes_of(rd, m)));
	if (!n)
		return cfs_fail(err, -ENOTSUP,
				"%s has no param_shapes, which tell groups and "
				"their order",
				rd->step->ranks[0].model[0].name);
	for (uint32_t g = 0; !r && g < n; g++)
		r = add_group(rd, g, err);
	return r;
}

/* "zero/PARAMETER/STATE.pt" of a parameter; others (buffers, second names,
 * optimizer_state.pt) are of none. */
static int add_file(struct cfs_uc_reading *rd, const char *name, uint32_t row)
{
	const char *dir = name + strlen("zero/"), *slash = strrchr(dir, '/');
	_cleanup_(cfs_freep) char *param = NULL;
	struct cfs_uc_file file = {.name = name, .row = row};
	size_t len;

	if (strncmp(name, "zero/", strlen("zero/")) != 0 || !slash)
		return 0;
	len = strlen(slash + 1) - strlen(".pt");
	param = strndup(dir, (size_t)(slash - dir));
	if (!param)
		return -ENOMEM;
	if (len >= sizeof(file.state) ||
	    cfs_catalogue_find(rd->cat, param, &file.param))
		return 0;
	memcpy(file.state, slash + 1, len);
	if (!CFS_GROW(rd->files, rd->n_files, rd->cap_files))
		return -ENOMEM;
	rd->files[rd->n_files++] = file;
	return 0;
}

/* ---- facts ---- */

static bool enabled(const struct cfs_ds_step *step, const char *path)
{
	return cfs_ds_config_enabled(step->ds_config, path);
}

/* What would have been saved there, as far as it is told: views keep it where
 * nothing else is named. */
static void read_topology(struct cfs_uc_reading *rd)
{
	struct cfs_ds_step *step = rd->step;
	struct cfs_topology *t = &step->base.topology;
	const struct cfs_node *root = step->ranks[0].model_root;
	const char *acc = cfs_node_as_str(cfs_ds_config_get(
		step->ds_config, "data_types.grad_accum_dtype"));
	uint64_t v;

	*t = (struct cfs_topology){
		.dp = 1, .tp = 1, .pp = 1, .zero_stage = 1, .universal = true};
	if (cfs_node_as_u64(cfs_node_get(root, "dp_world_size"), &v) && v &&
	    v < 1 << 22)
		t->dp = (uint32_t)v;
	if (cfs_node_as_u64(cfs_ds_config_get(step->ds_config,
					      "zero_optimization.stage"),
			    &v) &&
	    v == 2)
		t->zero_stage = 2;
	t->optimizer = CFS_OPT_ZERO12;
	if (rd->zero3) {
		t->zero_stage = 3;
		t->optimizer = CFS_OPT_ZERO3;
		t->sub_group_size = 1000000000;
	} else if (t->zero_stage == 1 && step->base.dtype == CFS_BF16 && acc &&
		   (!strcmp(acc, "fp32") || !strcmp(acc, "float32"))) {
		t->optimizer = CFS_OPT_BF16;
	}
}

static int check_buffers(const struct cfs_uc_reading *rd, struct cfs_error *err)
{
	const struct cfs_ds_rank *rank = &rd->step->ranks[0];

	if (!cfs_seq_node_count(cfs_node_get(rank->model_root, "buffer_names")))
		return 0;
	return cfs_fail(err, -ENOTSUP,
			"%s names buffers, which lie in files that a universal "
			"checkpoint of several ranks, of a pipeline or without "
			"a vocabulary's padding lacks",
			rank->model[0].name);
}

static int read_facts(struct cfs_uc_reading *rd, struct cfs_error *err)
{
	struct cfs_ds_step *step = rd->step;
	const struct cfs_node *root = step->ranks[0].model_root;
	bool pipeline;
	int64_t v;
	int r;

	step->ds_config = cfs_node_get(root, "ds_config");
	if (!cfs_node_is_map(step->ds_config))
		step->ds_config = NULL;
	step->base.writer_version =
		cfs_node_as_str(cfs_node_get(root, "ds_version"));
	if (cfs_node_as_int(cfs_node_get(root, "global_steps"), &v) && v >= 0)
		step->base.global_steps = v;
	step->base.dtype = cfs_ds_config_dtype(step->ds_config);
	step->bf16_names = step->base.dtype == CFS_BF16;
	read_topology(rd);
	pipeline = !cfs_node_is_map(cfs_node_get(root, "module"));
	step->only_masters = pipeline || rd->n_models > 1;
	step->base.topology.pipeline = pipeline;
	step->shares =
		rd->n_models > 1 &&
		!(cfs_node_as_int(
			  cfs_node_get(cfs_node_get(root, "checkpoint_parallel_"
							  "dimensions"),
				       "tp_degree"),
			  &v) &&
		  v == 1);
	r = step->only_masters ? check_buffers(rd, err) : 0;
	if (r < 0)
		return r;
	if (!rd->zero3 &&
	    enabled(step, "zero_optimization.round_robin_gradients"))
		return cfs_fail(err, -ENOTSUP,
				"it was converted from a step saved with "
				"round_robin_gradients, which the converter "
				"mixes up: use @universal of that step");
	return 0;
}

/* ---- all of it ---- */

/* Of the first rank, which is kept, and of the others: for their parameters. */
static int parse_models(struct cfs_uc_reading *rd,
			const struct cfs_ds_list *list, struct cfs_error *err)
{
	struct cfs_ds_rank *rank = &rd->step->ranks[0];
	int r = cfs_ds_parse(&rd->step->base, &rank->model[0],
			     &rank->model[0].torch, err);

	rd->models = calloc(rd->n_models, sizeof(*rd->models));
	if (!rd->models)
		return -ENOMEM;
	rd->models[0] = rank->model[0]; /* the rank's own */
	for (uint32_t m = 1; !r && m < rd->n_models; m++) {
		struct cfs_ds_file *file = &rd->models[m];

		file->index = m;
		file->name = list->entries[m].name;
		r = cfs_ds_parse(&rd->step->base, file, &file->torch, err);
	}
	return r;
}

/* Model states, and what all ranks share. */
static int parse_heads(struct cfs_uc_reading *rd,
		       const struct cfs_ds_list *list, struct cfs_error *err)
{
	struct cfs_ds_rank *rank = &rd->step->ranks[0];
	int r;

	rank->n_optim = 1;
	for (uint32_t i = 0; !rank->optim[0].name && i < list->n; i++)
		if (!strcmp(list->entries[i].name, "zero/optimizer_state.pt")) {
			rank->optim[0].index = i;
			rank->optim[0].name = strdup(list->entries[i].name);
			if (!rank->optim[0].name)
				return -ENOMEM;
		}
	if (!rank->optim[0].name)
		return cfs_fail(err, -ENOENT,
				"zero/optimizer_state.pt is missing");
	r = parse_models(rd, list, err);
	if (!r)
		r = cfs_ds_parse(&rd->step->base, &rank->optim[0],
				 &rank->optim[0].torch, err);
	if (r < 0)
		return r;
	rank->model_root = cfs_torchfile_root(rank->model[0].torch);
	rank->optim_state = cfs_torchfile_root(rank->optim[0].torch);
	if (!cfs_node_is_map(rank->model_root) ||
	    !cfs_node_is_map(rank->optim_state))
		return cfs_fail(err, -EBADMSG, "%s: holds no dictionary",
				rank->model[0].name);
	return cfs_ds_flatten(rd->step, 0);
}

/* Their type is all there is. */
static int add_weights(struct cfs_uc_reading *rd)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < cfs_catalogue_params(rd->cat); i++)
		r = cfs_catalogue_set_dtype(rd->cat, i, CFS_ROLE_WEIGHT,
					    rd->step->base.dtype);
	return r;
}

static void reading_fini(struct cfs_uc_reading *rd)
{
	for (uint32_t m = 1; rd->models && m < rd->n_models; m++)
		cfs_torchfile_free(rd->models[m].torch);
	free(rd->models);
	free(rd->files);
}

/* Weights of one rank, but with padding that its masters lack. */
static int pass_weights_over(struct cfs_uc_reading *rd, struct cfs_error *err)
{
	int r = check_buffers(rd, err);

	for (uint32_t i = 0; !r && i < cfs_catalogue_params(rd->cat); i++)
		r = check_name(cfs_catalogue_param(rd->cat, i)->name, err);
	rd->step->only_masters = true;
	return r;
}

static int read_step(struct cfs_uc_reading *rd, const struct cfs_ds_list *list,
		     struct cfs_error *err)
{
	int r = parse_heads(rd, list, err);

	if (!r)
		r = read_facts(rd, err);
	if (!r)
		r = add_params(rd, err);
	for (uint32_t i = 0; !r && i < list->n; i++)
		if (list->entries[i].parsed.kind == CFS_DS_UNIVERSAL)
			r = add_file(rd, list->entries[i].name, i);
	if (!r)
		r = cfs_uc_tensors_read(rd, err);
	if (!r && rd->lost_padding && !rd->step->only_masters)
		r = pass_weights_over(rd, err);
	if (!r && rd->step->only_masters)
		r = add_weights(rd);
	else if (!r)
		r = cfs_ds_weights_read(rd->step, 0, err);
	return r < 0 ? r : cfs_catalogue_seal(rd->cat, err);
}

static int read_dir(struct cfs_ds_step *step, struct cfs_error *err)
{
	_cleanup_(cfs_ds_list_fini) struct cfs_ds_list top = {0}, list = {0};
	struct cfs_uc_reading rd = {.step = step};
	struct cfs_ds_names names = {.n_mp = 1};
	uint32_t n_model, n_zero3;
	int r = cfs_ds_list_read(step->base.source, step->base.path, &top);

	if (r < 0)
		return r;
	cfs_ds_list_kind(&top, CFS_DS_MODEL, &n_model);
	cfs_ds_list_kind(&top, CFS_DS_MODEL_ZERO3, &n_zero3);
	names.zero3 = rd.zero3 = !n_model;
	names.n_dp = n_model ? 0 : n_zero3;
	rd.n_models = CFS_MAX(n_model, 1u);
	r = cfs_uc_list(step, &top, rd.zero3, &list);
	if (!r)
		r = cfs_ds_files_settle(step, &list, &names, err);
	if (r < 0)
		return r;
	if (cfs_filetab_count(step->base.files) != list.n)
		return cfs_fail(err, -ENOTSUP,
				"its model states are of several ranks");
	rd.cat = step->base.ranks[0].catalogue;
	r = read_step(&rd, &list, err);
	reading_fini(&rd);
	return r;
}

int cfs_uc_read(struct cfs_source *source, struct cfs_filepool *pool,
		const char *path, struct cfs_step **step_out,
		struct cfs_error *err)
{
	struct cfs_ds_step *step = cfs_ds_step_new(source, pool, path);
	struct cfs_error own = {""};
	int r;

	if (!step)
		return -ENOMEM;
	step->base.format = &cfs_format_universal;
	r = read_dir(step, &own);
	if (!r) {
		*step_out = &step->base;
		return 0;
	}
	cfs_step_unref(&step->base);
	return cfs_ds_read_fail(path, r, &own, err);
}
