/* Reading a step: names, versions, the trees of first ranks, then the parts
 * of all ranks, then the catalogues.  See read.h. */
#include "fs/format/deepspeed/module_tree.h"
#include "fs/format/deepspeed/neox_config.h"
#include "fs/format/deepspeed/read.h"
#include "fs/format/deepspeed/remodel.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/parallel.h"

#define DEFAULT_SUB_GROUP_SIZE 1000000000u

static void rank_free(struct cfs_ds_rank *rank)
{
	for (uint32_t i = 0; rank->model && i < rank->n_model; i++) {
		cfs_torchfile_free(rank->model[i].torch);
		free(rank->model[i].name);
	}
	for (uint32_t i = 0; rank->optim && i < rank->n_optim; i++) {
		cfs_torchfile_free(rank->optim[i].torch);
		free(rank->optim[i].name);
	}
	free(rank->model);
	free(rank->optim);
	free(rank->groups);
}

void cfs_ds_step_free(struct cfs_step *base)
{
	struct cfs_ds_step *step = cfs_ds_step_of(base);

	if (step->remodel) {
		cfs_ds_remodel_free(step);
		return;
	}
	/* Nodes made while reading refer to those of the files. */
	cfs_pickle_free(step->scratch);
	for (uint32_t m = 0; m < base->n_ranks; m++) {
		rank_free(&step->ranks[m]);
		cfs_catalogue_free(base->ranks[m].catalogue);
	}
	free(step->ranks);
	free(base->ranks);
	cJSON_Delete(step->neox_config);
	cfs_filetab_unref(base->files);
	cfs_filetab_unref(base->beside);
	free(base->path);
	free(step);
}

struct cfs_ds_step *cfs_ds_step_new(struct cfs_source *source,
				    struct cfs_filepool *pool, const char *path)
{
	struct cfs_ds_step *step = calloc(1, sizeof(*step));

	if (!step)
		return NULL;
	step->base.format = &cfs_format_deepspeed;
	step->base.source = source;
	step->base.pool = pool;
	step->base.global_steps = -1;
	step->base.refs = 1;
	step->base.path = strdup(path);
	step->scratch = cfs_pickle_new(NULL);
	if (!step->base.path || !step->scratch) {
		cfs_step_unref(&step->base);
		return NULL;
	}
	return step;
}

/* ---- the trees that are kept ---- */

/* Jobs 2m and 2m + 1: model states and optimizer of the first dp rank. */
static int parse_head(void *arg, uint32_t i, struct cfs_error *err)
{
	struct cfs_ds_step *step = arg;
	struct cfs_ds_rank *rank = &step->ranks[i / 2];
	struct cfs_ds_file *file = i % 2 ? &rank->optim[0] : &rank->model[0];
	struct cfs_node *root;
	int r;

	if (i % 2 && !rank->n_optim)
		return 0;
	r = cfs_ds_parse(&step->base, file, &file->torch, err);
	if (r < 0)
		return r;
	root = cfs_torchfile_root(file->torch);
	if (!cfs_node_is_map(root))
		return cfs_fail(err, -EBADMSG, "%s: holds no dictionary",
				file->name);
	if (i % 2) {
		rank->optim_root = root;
		rank->optim_state = cfs_node_get(root, "optimizer_state_dict");
	} else {
		rank->model_root = root;
	}
	return 0;
}

int cfs_ds_flatten(struct cfs_ds_step *step, uint32_t mp)
{
	struct cfs_ds_rank *rank = &step->ranks[mp];
	struct cfs_node *root =
		cfs_ds_module_flat_root(step->scratch, rank->model_root);

	if (!root)
		return -ENOMEM;
	if (root != rank->model_root)
		rank->module_tree = cfs_node_get(rank->model_root, "module");
	rank->model_root = root;
	return 0;
}

/* ---- partitioned optimizers ---- */

struct parts {
	struct cfs_ds_layout *layouts;
	uint32_t dp;
};

static int read_part(void *arg, uint32_t i, struct cfs_error *err)
{
	const struct parts *p = arg;

	return cfs_ds_part_read(&p->layouts[i / p->dp], i % p->dp, err);
}

/* The sub-group size: what ds_config says if it explains the sub-groups there
 * are, else the largest size that does. */
static void read_sub_group_size(struct cfs_ds_step *step,
				const struct cfs_ds_layout *layout)
{
	const struct cfs_node *node = cfs_ds_config_get(
		step->ds_config, "zero_optimization.sub_group_size");
	uint64_t size = DEFAULT_SUB_GROUP_SIZE, most = UINT64_MAX, least = 0;
	double real;

	if (cfs_node_as_real(node, &real) && real >= 1 && real < 1e18)
		size = (uint64_t)real;
	for (uint32_t u = 0; u < layout->n_units; u++) {
		const struct cfs_ds_unit *unit = &layout->units[u];

		/* One that is not its group's last closed by its size … */
		if (u + 1 < layout->n_units &&
		    layout->units[u + 1].group == unit->group)
			most = CFS_MIN(most, unit->len);
		/* … which none reached before its last parameter. */
		if (unit->n)
			least = CFS_MAX(least, unit->shapes[unit->n - 1].pos);
	}
	if (size > most || size <= least)
		size = most > least && most != UINT64_MAX ? most : size;
	step->base.topology.sub_group_size = size;
}

static int read_layouts(struct cfs_ds_step *step, struct cfs_ds_layout *layouts,
			struct cfs_error *err)
{
	struct cfs_topology *t = &step->base.topology;
	uint32_t n = step->base.n_ranks;

	for (uint32_t m = 0; m < n; m++) {
		int r;

		layouts[m].step = step;
		layouts[m].mp = m;
		layouts[m].rank = &step->ranks[m];
		r = cfs_ds_layout_read(&layouts[m], err);
		if (r < 0)
			return r;
		if (layouts[m].cls != layouts[0].cls)
			return cfs_fail(err, -EINVAL,
					"%s and %s are of different "
					"optimizers",
					step->ranks[0].optim[0].name,
					step->ranks[m].optim[0].name);
		t->param_alignment |= layouts[m].aligned;
	}
	t->optimizer = layouts[0].cls;
	if (t->optimizer == CFS_OPT_ZERO12 &&
	    cfs_ds_config_enabled(step->ds_config,
				  "zero_optimization.parameter_alignment") &&
	    cfs_node_get(step->ranks[0].optim_state,
			 "param_alignment_paddings"))
		t->param_alignment = true;
	if (t->optimizer == CFS_OPT_ZERO3)
		read_sub_group_size(step, &layouts[0]);
	return cfs_ds_read_stage(step, err);
}

static int read_optim(struct cfs_ds_step *step, struct cfs_ds_layout *layouts,
		      struct cfs_error *err)
{
	uint32_t n = step->base.n_ranks, dp = step->ranks[0].n_optim;
	struct parts parts = {layouts, dp};
	int r;

	r = read_layouts(step, layouts, err);
	if (!r)
		r = cfs_ds_agree_layouts(layouts, n, err);
	if (!r)
		r = cfs_parallel(n * dp, read_part, &parts, err);
	if (!r)
		r = cfs_ds_settle_order(step, layouts, n, err);
	for (uint32_t m = 0; !r && m < n; m++) {
		r = cfs_ds_prove_roles(&layouts[m], err);
		if (!r)
			r = cfs_ds_build(&layouts[m], err);
		if (!r)
			r = cfs_ds_groups_read(&layouts[m], err);
	}
	return r;
}

static int read_partitioned(struct cfs_ds_step *step, struct cfs_error *err)
{
	struct cfs_ds_layout *layouts =
		calloc(step->base.n_ranks, sizeof(*layouts));
	int r;

	if (!layouts)
		return -ENOMEM;
	r = read_optim(step, layouts, err);
	for (uint32_t m = 0; m < step->base.n_ranks; m++)
		cfs_ds_layout_fini(&layouts[m]);
	free(layouts);
	return r;
}

/* ---- all of it ---- */

/* The layer files' tensors are then those of the parameters found. */
static int read_whole(struct cfs_ds_step *step, struct cfs_error *err)
{
	int r = 0;

	for (uint32_t m = 0; !r && m < step->base.n_ranks; m++)
		r = cfs_ds_stage0_read(step, m, err);
	return r ? r : cfs_ds_stage0_agree(step, err);
}

static int read_rank(struct cfs_ds_step *step, uint32_t m,
		     struct cfs_error *err)
{
	struct cfs_catalogue *cat = step->base.ranks[m].catalogue;
	int r;

	r = cfs_ds_weights_read(step, m, err);
	if (!r)
		r = cfs_catalogue_seal(cat, err);
	if (!r)
		r = cfs_ds_members_prove(step, m, err);
	return r;
}

static int read_step(struct cfs_ds_step *step, struct cfs_ds_list *list,
		     struct cfs_error *err)
{
	struct cfs_ds_names names;
	enum cfs_dtype dtype;
	int r;

	r = cfs_ds_list_check(list, &names, err);
	if (r < 0)
		return r;
	step->bf16_names = names.bf16;
	r = cfs_ds_files_settle(step, list, &names, err);
	if (!r)
		r = cfs_parallel(2 * names.n_mp, parse_head, step, err);
	for (uint32_t m = 0; !r && m < names.n_mp; m++)
		r = cfs_ds_flatten(step, m);
	if (!r)
		r = cfs_ds_read_facts(step, list, names.zero3, err);
	for (uint32_t m = 0; !r && m < names.n_mp; m++)
		r = cfs_ds_list_layers(list, step->ranks[m].model_root,
				       step->base.topology.tp, err);
	if (!r)
		r = cfs_ds_agree_models(step, err);
	if (!r)
		r = cfs_ds_neox_config_read(step);
	if (!r)
		r = step->ranks[0].n_optim ? read_partitioned(step, err)
					   : read_whole(step, err);
	if (!r)
		r = cfs_ds_layers_read(step, err);
	for (uint32_t m = 0; !r && m < names.n_mp; m++)
		r = read_rank(step, m, err);
	if (r < 0)
		return r;
	if (cfs_catalogue_params(step->base.ranks[0].catalogue)) {
		dtype = cfs_catalogue_dtype(step->base.ranks[0].catalogue, 0,
					    CFS_ROLE_WEIGHT);
		if (dtype)
			step->base.dtype = dtype;
	}
	return 0;
}

int cfs_ds_read_fail(const char *path, int r, const struct cfs_error *own,
		     struct cfs_error *err)
{
	const char *why = own->text[0] ? own->text : strerror(-r);

	return *path ? cfs_fail(err, r, "%s: %s", path, why)
		     : cfs_fail(err, r, "%s", why);
}

static int copy_files(struct cfs_ds_step *step,
		      const struct cfs_filetab *before)
{
	int r = 0;

	step->base.files = cfs_filetab_new();
	if (!step->base.files)
		return -ENOMEM;
	step->base.first_file = cfs_filetab_count(before);
	for (uint32_t i = 0; !r && i < step->base.first_file; i++) {
		uint32_t row;

		r = cfs_filetab_add(step->base.files,
				    cfs_filetab_path(before, i),
				    cfs_filetab_version(before, i), &row);
	}
	return r;
}

int cfs_ds_read_beside(struct cfs_source *source, struct cfs_filepool *pool,
		       const char *path, const struct cfs_filetab *before,
		       struct cfs_step **step_out, struct cfs_error *err)
{
	_cleanup_(cfs_ds_list_fini) struct cfs_ds_list list = {0};
	struct cfs_error own = {""};
	struct cfs_ds_step *step;
	int r;

	step = cfs_ds_step_new(source, pool, path);
	if (!step)
		return -ENOMEM;
	r = before ? copy_files(step, before) : 0;
	if (!r)
		r = cfs_ds_list_read(source, path, &list);
	if (!r)
		r = read_step(step, &list, &own);
	if (!r) {
		*step_out = &step->base;
		return 0;
	}
	cfs_step_unref(&step->base);
	return cfs_ds_read_fail(path, r, &own, err);
}

int cfs_ds_read(struct cfs_source *source, struct cfs_filepool *pool,
		const char *path, struct cfs_step **step_out,
		struct cfs_error *err)
{
	return cfs_ds_read_beside(source, pool, path, NULL, step_out, err);
}
