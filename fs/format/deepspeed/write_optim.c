/* Optimizer files: the outer dict, and what the optimizer classes share. */
#include "fs/format/deepspeed/template.h"
#include "fs/format/deepspeed/write.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"

/* The role of a state entry that is kept per element of @group, or 0. */
static uint32_t state_role(const struct cfs_ds_out *out, uint32_t group,
			   const char *name)
{
	uint32_t first, n;

	cfs_catalogue_group(out->cat, group, &first, &n);
	for (uint32_t k = CFS_ROLE_STATE0; k < cfs_catalogue_roles(out->cat);
	     k++)
		if (!strcmp(cfs_catalogue_role_name(out->cat, k), name))
			return n && cfs_catalogue_has(out->cat, first, k) ? k
									  : 0;
	return 0;
}

static int filled_tensor(struct cfs_ds_out *out, uint32_t role,
			 enum cfs_dtype dtype, const struct cfs_param *param,
			 cfs_ds_fill_fn *fill, void *arg, bool requires_grad,
			 struct cfs_node **node_out)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_ds_out_map(out);
	int r;

	if (!map)
		return -ENOMEM;
	r = fill(arg, role, map);
	if (r < 0)
		return r;
	*node_out = cfs_ds_out_tensor(
		out, cfs_steal(map), dtype, param ? param->ndim : 0,
		param ? param->shape : NULL, requires_grad);
	return *node_out ? 0 : -ENOMEM;
}

int cfs_ds_write_master(struct cfs_ds_out *out, const struct cfs_param *param,
			cfs_ds_fill_fn *fill, void *arg,
			struct cfs_node **node_out)
{
	int r = filled_tensor(out, CFS_ROLE_MASTER, CFS_F32, param, fill, arg,
			      true, node_out);

	return r < 0 ? cfs_fail_prefix(out->err, r, "fp32 copy") : 0;
}

static int scalar(struct cfs_ds_out *out, uint32_t group, const char *name,
		  struct cfs_node **value_out)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *value =
		cfs_node_get(out->rank->groups[group].scalars, name);
	int r = cfs_ds_out_fresh(out, value, value_out);

	return !r && rm && rm->like
		       ? cfs_ds_template_scalar(out, group, name, value_out)
		       : r;
}

int cfs_ds_write_state(struct cfs_ds_out *out, uint32_t group,
		       const struct cfs_param *param, cfs_ds_fill_fn *fill,
		       void *arg, struct cfs_node **state_out)
{
	const struct cfs_ds_group *g = &out->rank->groups[group];
	struct cfs_node *state = cfs_node_dict(out->doc);
	uint32_t first, n;

	cfs_catalogue_group(out->cat, group, &first, &n);
	for (uint32_t i = 0; i < cfs_seq_node_count(g->state_order); i++) {
		struct cfs_node *key = cfs_seq_node_item(g->state_order, i);
		const char *name = cfs_node_as_str(key);
		uint32_t role = name ? state_role(out, group, name) : 0;
		struct cfs_node *value;
		int r;

		if (!name)
			return -EINVAL;
		if (role)
			r = filled_tensor(
				out, role,
				cfs_catalogue_dtype(out->cat, first, role),
				param, fill, arg, false, &value);
		else
			r = scalar(out, group, name, &value);
		if (r < 0)
			return cfs_fail_prefix(out->err, r,
					       "optimizer state %s of group %u",
					       name, group);
		cfs_node_set(out->doc, state, key, value);
	}
	if (out->tree->lost_step)
		cfs_node_set_str(out->doc, state, "step",
				 cfs_node_int(out->doc, out->tree->lost_step));
	*state_out = state;
	return state ? 0 : -ENOMEM;
}

bool cfs_ds_has_state(const struct cfs_ds_out *out, uint32_t group)
{
	return cfs_seq_node_count(out->rank->groups[group].state_order) != 0;
}

int cfs_ds_write_hyper(struct cfs_ds_out *out, uint32_t group, uint32_t first,
		       uint32_t n, struct cfs_node **hyper_out)
{
	const struct cfs_ds_group *g = &out->rank->groups[group];
	struct cfs_node *params = cfs_node_list(out->doc), *hyper;

	for (uint32_t i = 0; i < n; i++)
		cfs_node_append(out->doc, params,
				cfs_node_int(out->doc, first + i));
	hyper = cfs_node_copy(out->doc, g->hyper);
	cfs_node_replace(out->doc, hyper, "params", params);
	*hyper_out = hyper;
	return hyper ? 0 : -ENOMEM;
}

struct cfs_node *cfs_ds_write_stage(struct cfs_ds_out *out)
{
	struct cfs_node *stage = cfs_node_int(out->doc, out->topo->zero_stage);
	struct cfs_node *src =
		cfs_node_get(out->rank->optim_state, "zero_stage");
	int64_t plain;

	/* once, stage 1 called itself 2 */
	if (src && out->topo->zero_stage == out->step->base.topology.zero_stage)
		return src;
	if (cfs_node_as_int(src, &plain) ||
	    (!src && !cfs_ds_out_since(out, "0.7.0")))
		return stage;
	return cfs_node_call(out->doc, "deepspeed.runtime.zero.config",
			     "ZeroStageEnum",
			     cfs_node_tuple(out->doc, &stage, 1));
}

/* Every key that some class writes itself; others are carried along. */
static const char *const inner_keys[] = {
	"loss_scaler",
	"dynamic_loss_scale",
	"overflow",
	"clip_grad",
	"base_optimizer_state",
	"base_optimizer_state_step",
	"single_partition_of_fp32_groups",
	"zero_stage",
	"group_paddings",
	"param_alignment_paddings",
	"partition_count",
	"ds_version",
	"param_slice_mappings",
	"optimizer_state_dict",
	"fp32_flat_groups",
	"ds_zero_partition_groups",
	"local_sub_partitions_of_fp32_groups",
	"num_comm_intervals_per_group",
	"param_groups", /* of a universal checkpoint */
};

static bool inner_is_ours(const char *key)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(inner_keys); i++)
		if (!strcmp(inner_keys[i], key))
			return true;
	return false;
}

/* What a loader of today needs, though the source's version had it not. */
static bool inner_is_needed(const struct cfs_ds_out *out, const char *key)
{
	if (!strcmp(key, "ds_version"))
		return out->topo->optimizer != CFS_OPT_ZERO3;
	return out->tree->elastic &&
	       (!strcmp(key, "base_optimizer_state_step") ||
		!strcmp(key, "group_paddings"));
}

/*
 * The inner dict as this version writes it.  Under another class that is what
 * was made; under the same one the source tells which keys there are, and in
 * which order: both changed over the years.
 */
static struct cfs_node *inner_like_source(struct cfs_ds_out *out,
					  struct cfs_node *made)
{
	const struct cfs_node *src = out->rank->optim_state;
	const struct cfs_topology *from = &out->step->base.topology;
	bool same = from->optimizer == out->topo->optimizer && !from->universal;
	struct cfs_node *inner = same ? cfs_node_dict(out->doc) : made;
	struct cfs_node *key, *value;
	const char *name;

	for (uint32_t i = 0; i < cfs_map_node_count(src); i++) {
		cfs_map_node_pair(src, i, &key, &value);
		name = cfs_node_as_str(key);
		/* stage 1 up to 0.3.16 has its masters under this name */
		if (name && same &&
		    !strcmp(name, "local_sub_partitions_of_fp32_groups")) {
			name = "single_partition_of_fp32_groups";
			key = cfs_node_str(out->doc, name);
		}
		if (!name || !inner_is_ours(name))
			cfs_node_set(out->doc, inner, key, value);
		else if (same && cfs_node_get(made, name))
			cfs_node_set(out->doc, inner, key,
				     cfs_node_get(made, name));
	}
	for (uint32_t i = 0; same && i < cfs_map_node_count(made); i++) {
		cfs_map_node_pair(made, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!cfs_node_get(inner, name) && inner_is_needed(out, name))
			cfs_node_set(out->doc, inner, key, value);
	}
	return inner;
}

/* The outer dict: the source's own, with the new state; a stage 0 source, which
 * has no such file, and the oldest versions get what the model file says. */
static int outer_of(struct cfs_ds_out *out, struct cfs_node *inner,
		    struct cfs_node **root_out)
{
	const struct cfs_ds_rank *rank = out->rank;
	struct cfs_node *config, *root, *shapes = NULL;
	int r = 0;

	/* up to 0.5.9 they were here, not in the model states */
	if (cfs_node_get(rank->optim_root, "param_shapes"))
		r = cfs_ds_write_shapes(out, &shapes);
	if (r < 0)
		return r;
	r = cfs_ds_write_config(
		out, cfs_node_get(rank->optim_root, "ds_config"), &config);
	if (r >= 0 && !config)
		r = cfs_ds_write_config(
			out, cfs_node_get(rank->model_root, "ds_config"),
			&config);
	if (r < 0)
		return r;
	if (rank->optim_root) {
		root = cfs_node_copy(out->doc, rank->optim_root);
		if (shapes)
			cfs_node_replace(out->doc, root, "param_shapes",
					 shapes);
	} else {
		root = cfs_node_dict(out->doc);
	}
	cfs_node_replace(out->doc, root, "optimizer_state_dict", inner);
	if (config)
		cfs_node_replace(out->doc, root, "ds_config", config);
	cfs_node_replace(out->doc, root, "ds_version",
			 cfs_node_str(out->doc, cfs_ds_out_version(out)));
	*root_out = root;
	return root ? 0 : -ENOMEM;
}

int cfs_ds_write_optim(struct cfs_ds_out *out, struct cfs_node **root_out)
{
	struct cfs_node *inner;
	int r;

	r = out->topo->optimizer == CFS_OPT_ZERO3
		    ? cfs_ds_write_zero3(out, &inner)
		    : cfs_ds_write_flat(out, &inner);
	if (r < 0)
		return r;
	return outer_of(out, inner_like_source(out, inner), root_out);
}
