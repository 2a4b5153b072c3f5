/*
 * Layer files of a template that is filled.  What a layer file has,
 * in which order and type, is the template's.
 */
#include "fs/format/deepspeed/template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/write.h"
#include "store/util/error.h"
#include "store/util/grow.h"

/* ---- which files ---- */

uint32_t cfs_ds_template_stage(const struct cfs_ds_step *made, uint32_t number)
{
	const struct cfs_ds_step *like = made->remodel->like;
	uint32_t tp = made->remodel->tp, tied = UINT32_MAX;

	for (uint32_t m = 0; m < made->base.n_ranks; m += tp) {
		const struct cfs_catalogue *cat = like->base.ranks[m].catalogue;

		for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
			const struct cfs_ds_layer_name n = cfs_ds_layer_parse(
				cfs_catalogue_param(cat, i)->name);

			if (n.form == CFS_DS_FORM_PIPELINE && n.layer == number)
				return m / tp;
			if (n.form == CFS_DS_FORM_TIED)
				tied = CFS_MIN(tied, m / tp);
		}
	}
	return tied == UINT32_MAX ? 0 : tied;
}

int cfs_ds_template_plan(struct cfs_ds_tree *t)
{
	const struct cfs_ds_step *made = cfs_ds_step_of(t->base.step);
	const struct cfs_step *like = &made->remodel->like->base;
	uint32_t n = cfs_filetab_count(like->files);
	int r = 0;

	for (uint32_t i = like->first_file; !r && i < n; i++) {
		const char *path = cfs_filetab_path(like->files, i);
		const char *slash = strrchr(path, '/');
		const char *name = slash ? slash + 1 : path;
		const struct cfs_ds_name at = cfs_ds_name_parse(name);
		struct cfs_ds_plan plan = {
			.part = CFS_DS_PART_LAYER, .layer = at.dp, .file = i};

		if (at.kind != CFS_DS_LAYER)
			continue;
		plan.mp =
			cfs_ds_template_stage(made, at.dp) * made->remodel->tp +
			at.mp;
		if (at.mp >= made->remodel->tp)
			return -EINVAL;
		r = cfs_ds_tree_add(t, name, &plan);
	}
	return r;
}

/* ---- layer files ---- */

bool cfs_ds_template_param(const struct cfs_ds_out *out, uint32_t number,
			   const char *name, uint32_t *param_out)
{
	struct cfs_ds_layer_name n = {
		.form = CFS_DS_FORM_PIPELINE, .layer = number, .name = name};
	char full[512];

	if (!cfs_ds_layer_format(&n, full, sizeof(full)) &&
	    !cfs_catalogue_find(out->cat, full, param_out))
		return true;
	for (uint32_t i = 0; i < cfs_catalogue_params(out->cat); i++) {
		n = cfs_ds_layer_parse(cfs_catalogue_param(out->cat, i)->name);
		if (n.form == CFS_DS_FORM_TIED && !strcmp(n.name, name)) {
			*param_out = i;
			return true;
		}
	}
	return false;
}

static int add_entry(struct cfs_ds_out *out, uint32_t number, const char *name,
		     struct cfs_node *key, struct cfs_node *node,
		     struct cfs_node *map)
{
	const struct cfs_ds_layer_name n = {
		.form = CFS_DS_FORM_PIPELINE, .layer = number, .name = name};
	struct cfs_torch_tensor tensor;
	uint32_t param;
	int r = 0;

	if (!cfs_torch_tensor_get(node, &tensor)) {
		if (cfs_ds_template_param(out, number, name, &param))
			r = cfs_ds_write_weight(out, param, tensor.dtype,
						&node);
		else
			r = cfs_ds_template_take(out, &n, &tensor, &node, NULL);
	}
	if (!r)
		cfs_node_set(out->doc, map, key, node);
	return r;
}

int cfs_ds_template_layer(struct cfs_ds_out *out,
			  const struct cfs_ds_plan *plan, struct cfs_node *map)
{
	const struct cfs_node *like;
	int r = cfs_ds_out_parse(out, plan->file, &like);

	for (uint32_t i = 0; !r && i < cfs_map_node_count(like); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(like, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name)
			r = add_entry(out, plan->layer, name, key, value, map);
	}
	return r;
}

/* ---- model states of stage 3 ---- */

int cfs_ds_template_model(struct cfs_ds_out *out, struct cfs_node **root)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	const struct cfs_ds_rank *run =
		&rm->from->ranks[cfs_ds_template_rank(rm, out->mp)];
	uint32_t k = run->n_model ? out->dp % run->n_model : 0;
	const struct cfs_node *from = run->model_root;
	int r = 0;

	/* the rows of the step's files are the same in both tables */
	if (k)
		r = cfs_ds_out_parse(out, run->model[k].index, &from);
	if (!r)
		*root = cfs_ds_template_client(out->doc, *root, from);
	return r;
}
