/*
 * The files below zero/ of a universal checkpoint.  Beside the whole tensor
 * each says how tensor-parallel ranks share it, in the loader's words:
 *
 *   nothing               the loader's own shape must be this one
 *   cat_dim               cut evenly along it
 *   param_n_sub_params    so many equal parts, each cut by itself
 *   sub_param_shape       parts of these sizes, each cut by itself; or one that
 *                         cannot be cut, where no rule is known
 *   vocab_tensor          rows, to which the loader adds padding
 *
 * Rules: DeepSpeed 0.19.8 checkpoint/universal_checkpoint.py (the loader) and
 * checkpoint/ds_to_universal.py (which calls a parameter of no known rule
 * `cat_dim` 0: a job of more ranks then cuts its rows, whatever it is).
 */
#include "fs/format/universal/universal.h"

#include <errno.h>
#include <string.h>

#include "fs/format/deepspeed/remodel.h"
#include "store/util/error.h"

static void set_int(struct cfs_ds_out *out, struct cfs_node *map,
		    const char *key, uint64_t value)
{
	cfs_node_set_str(out->doc, map, key,
			 cfs_node_int(out->doc, (int64_t)value));
}

/* ---- how ranks share a parameter ---- */

/* SubparamShape(patterns, shape, partition_dim); sizes of the parts stand in
 * the place of the dimension's own. */
static struct cfs_node *sub_shape(struct cfs_ds_out *out,
				  const struct cfs_tp_layout *l,
				  const char *name)
{
	struct cfs_node *dims[CFS_TP_DIMS_MAX], *parts[CFS_TP_PARTS_MAX];
	struct cfs_node *patterns = cfs_node_list(out->doc);
	struct cfs_node *state = cfs_node_dict(out->doc);

	for (uint32_t i = 0; i < l->n_parts; i++)
		parts[i] = cfs_node_int(out->doc, (int64_t)l->parts[i]);
	for (uint32_t i = 0; i < l->ndim; i++)
		dims[i] =
			i == l->dim
				? cfs_node_tuple(out->doc, parts, l->n_parts)
				: cfs_node_int(out->doc, (int64_t)l->shape[i]);
	cfs_node_append(out->doc, patterns, cfs_node_str(out->doc, name));
	cfs_node_set_str(out->doc, state, "patterns", patterns);
	cfs_node_set_str(out->doc, state, "shape",
			 cfs_node_tuple(out->doc, dims, l->ndim));
	set_int(out, state, "partition_dim", l->dim);
	return cfs_ds_out_object(out,
				 "deepspeed.checkpoint.universal_checkpoint",
				 "SubparamShape", state);
}

static bool equal_parts(const struct cfs_tp_layout *l)
{
	for (uint32_t i = 1; i < l->n_parts; i++)
		if (l->parts[i] != l->parts[0])
			return false;
	return true;
}

/* How ranks share it nobody knows: one rank may load it.  The loader cuts this
 * dimension of one into one piece, and finds none for a second rank. */
static struct cfs_node *one_piece(struct cfs_ds_out *out,
				  const struct cfs_param *p)
{
	const struct cfs_tp_layout l = {
		.ndim = 2, .n_parts = 1, .parts = {1}, .shape = {1, p->numel}};

	return sub_shape(out, &l, p->name);
}

static void add_shares(struct cfs_ds_out *out, const struct cfs_ds_whole *w,
		       const struct cfs_param *p, struct cfs_node *root)
{
	const struct cfs_tp_layout *l = &w->to;

	if (w->uncut)
		cfs_node_set_str(out->doc, root, "sub_param_shape",
				 one_piece(out, p));
	if (l->kind != CFS_TP_CUT)
		return;
	if (equal_parts(l)) {
		set_int(out, root, "cat_dim", l->dim);
		if (l->n_parts > 1)
			set_int(out, root, "param_n_sub_params", l->n_parts);
	} else {
		cfs_node_set_str(out->doc, root, "sub_param_shape",
				 sub_shape(out, l, p->name));
	}
	if (w->rule->kind == CFS_RULE_VOCAB ||
	    (w->rule->kind == CFS_RULE_OUTPUT && !l->dim))
		cfs_node_set_str(out->doc, root, "vocab_tensor",
				 cfs_node_bool(out->doc, true));
}

/* ---- files ---- */

/* A frozen parameter has no fp32 copy but its weight. */
static int append_fp32(struct cfs_ds_out *out, uint32_t param, uint32_t role,
		       struct cfs_map *map)
{
	uint64_t numel = cfs_catalogue_param(out->cat, param)->numel;
	_cleanup_(cfs_map_unrefp) struct cfs_map *src = NULL;
	int r;

	if (cfs_catalogue_has(out->cat, param, role))
		return cfs_catalogue_append(out->cat, param, role, 0, numel,
					    map);
	src = cfs_ds_out_map(out);
	if (!src)
		return -ENOMEM;
	r = cfs_catalogue_append(out->cat, param, CFS_ROLE_WEIGHT, 0, numel,
				 src);
	return r < 0 ? r
		     : cfs_map_add_cast(map, src,
					cfs_catalogue_dtype(out->cat, param,
							    CFS_ROLE_WEIGHT),
					CFS_F32);
}

static int tensor_file(struct cfs_ds_out *out, uint32_t param, uint32_t role,
		       struct cfs_node **root_out)
{
	const struct cfs_param *p = cfs_catalogue_param(out->cat, param);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_ds_out_map(out);
	struct cfs_node *root = cfs_node_dict(out->doc), *tensor;
	enum cfs_dtype dtype = CFS_F32;
	int r;

	if (!map || !root)
		return -ENOMEM;
	if (cfs_catalogue_has(out->cat, param, role))
		dtype = cfs_catalogue_dtype(out->cat, param, role);
	r = append_fp32(out, param, role, map);
	if (r < 0)
		return cfs_fail_prefix(out->err, r, "parameter %s", p->name);
	if (p->group != CFS_GROUP_FROZEN)
		add_shares(out,
			   cfs_ds_remodel_whole(out->step->remodel, 0, param),
			   p, root);
	/* the converter keeps the flag of the master it cuts */
	tensor = cfs_ds_out_tensor(
		out, cfs_steal(map), dtype, p->ndim, p->shape,
		role == CFS_ROLE_MASTER && p->group != CFS_GROUP_FROZEN);
	cfs_node_set_str(out->doc, root, "param", tensor);
	*root_out = root;
	return tensor ? 0 : -ENOMEM;
}

/* Apex counts in the group, where DeepSpeed's own leaves a 0. */
struct cfs_node *cfs_uc_step(const struct cfs_ds_group *group)
{
	struct cfs_node *step = cfs_node_get(group->scalars, "step");
	int64_t n;

	if (step)
		return step;
	step = cfs_node_get(group->hyper, "step");
	return cfs_node_as_int(step, &n) && n > 0 ? step : NULL;
}

static int step_file(struct cfs_ds_out *out, uint32_t param,
		     struct cfs_node **root_out)
{
	uint32_t group = cfs_catalogue_param(out->cat, param)->group;

	return cfs_ds_out_fresh(out, cfs_uc_step(&out->rank->groups[group]),
				root_out);
}

/* ---- optimizer_state.pt ---- */

/* Of stages 1 and 2, but for the tensors: whatever class reads it takes what
 * it knows. */
static void add_common(struct cfs_ds_out *out, struct cfs_node *root)
{
	struct cfs_node *paddings = cfs_node_list(out->doc);
	struct cfs_node *counts = cfs_node_list(out->doc);
	struct cfs_node *clip = cfs_ds_write_clip(out);

	for (uint32_t g = 0; g < cfs_catalogue_groups(out->cat); g++) {
		cfs_node_append(out->doc, paddings, cfs_node_int(out->doc, 0));
		cfs_node_append(out->doc, counts,
				cfs_node_int(out->doc, out->topo->dp));
	}
	cfs_ds_write_scaler(out, root);
	if (clip)
		cfs_node_set_str(out->doc, root, "clip_grad", clip);
	cfs_node_set_str(out->doc, root, "zero_stage", cfs_ds_write_stage(out));
	cfs_node_set_str(out->doc, root, "group_paddings", paddings);
	cfs_node_set_str(out->doc, root, "partition_count", counts);
	cfs_node_set_str(out->doc, root, "ds_version",
			 cfs_node_str(out->doc, cfs_ds_out_version(out)));
}

/* What stage 3 reads: one set of hyper-parameters, one count of steps. */
static int add_zero3(struct cfs_ds_out *out, struct cfs_node *hypers,
		     struct cfs_node *root)
{
	const struct cfs_ds_group *group = &out->rank->groups[0];
	struct cfs_node *step = cfs_uc_step(group);
	struct cfs_node *entry = cfs_node_dict(out->doc);
	struct cfs_node *state = cfs_node_dict(out->doc);
	struct cfs_node *inner = cfs_node_dict(out->doc);
	int r = 0;

	if (!step)
		step = cfs_node_get(group->hyper, "step");
	if (step)
		r = cfs_ds_out_fresh(out, step, &step);
	if (r < 0)
		return r;
	if (step)
		cfs_node_set_str(out->doc, entry, "step", step);
	cfs_node_set(out->doc, state, cfs_node_int(out->doc, 0), entry);
	cfs_node_set_str(out->doc, inner, "state", state);
	cfs_node_set_str(out->doc, inner, "param_groups", hypers);
	cfs_node_set_str(out->doc, root, "optimizer_state_dict", inner);
	return 0;
}

static int common_file(struct cfs_ds_out *out, struct cfs_node **root_out)
{
	struct cfs_node *root = cfs_node_dict(out->doc);
	struct cfs_node *hypers = cfs_node_list(out->doc);
	int r = root && hypers ? 0 : -ENOMEM;

	for (uint32_t g = 0; !r && g < cfs_catalogue_groups(out->cat); g++) {
		struct cfs_node *hyper;

		r = cfs_ds_write_hyper(out, g, g, 1, &hyper);
		if (!r)
			cfs_node_append(out->doc, hypers, hyper);
	}
	if (r < 0)
		return r;
	add_common(out, root);
	cfs_node_set_str(out->doc, root, "param_groups", hypers);
	*root_out = root;
	return out->topo->pipeline ? 0 : add_zero3(out, hypers, root);
}

int cfs_uc_write(struct cfs_ds_out *out, const struct cfs_ds_plan *plan,
		 struct cfs_node **root_out)
{
	if (plan->role == CFS_UC_COMMON)
		return common_file(out, root_out);
	if (plan->role == CFS_UC_STEP)
		return step_file(out, plan->param, root_out);
	return tensor_file(out, plan->param, plan->role, root_out);
}
