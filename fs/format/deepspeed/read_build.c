/* From layouts and parts to the catalogue and the groups. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/log.h"

/* ---- round robin ---- */

struct verdict {
	bool mapped, plain, shuffled; /* what all mappings agree with */
	bool same;		      /* the two orders are one and the same */
};

static void judge(const struct cfs_ds_layout *layout, struct verdict *v)
{
	for (uint32_t r = 0; r < layout->dp; r++) {
		v->mapped &= layout->parts[r].mapped;
		v->plain &= layout->parts[r].maps_plain;
		v->shuffled &= layout->parts[r].maps_shuffled;
	}
	for (uint32_t u = 0; u < layout->n_units; u++)
		for (uint32_t i = 0; i < layout->units[u].n; i++)
			v->same &= layout->units[u].own[i] == i;
}

/*
 * param_shapes has the shuffled order, param_slice_mappings (>= 0.7.4) the
 * group's own, so that together they tell whether there was any shuffling;
 * ds_config only decides where both orders are the same.  Without mappings the
 * flag counts for stage 2 alone: such old releases ignored it in stage 1.
 */
int cfs_ds_settle_order(struct cfs_ds_step *step,
			const struct cfs_ds_layout *layouts, uint32_t n,
			struct cfs_error *err)
{
	struct verdict v = {true, true, true, true};
	bool flag = false;

	if (layouts[0].cls == CFS_OPT_ZERO3)
		return 0;
	if (layouts[0].cls == CFS_OPT_ZERO12 &&
	    !cfs_node_as_bool(
		    cfs_ds_config_get(
			    step->ds_config,
			    "zero_optimization.round_robin_gradients"),
		    &flag))
		flag = false;
	for (uint32_t i = 0; i < n; i++)
		judge(&layouts[i], &v);
	if (!v.mapped)
		step->base.topology.round_robin =
			flag && (v.same || step->base.topology.zero_stage == 2);
	else if (v.same || (v.plain && v.shuffled))
		step->base.topology.round_robin = flag;
	else
		step->base.topology.round_robin = v.shuffled;
	if (v.mapped && !v.plain && !v.shuffled)
		return cfs_fail(err, -EINVAL,
				"%s: param_slice_mappings and param_shapes "
				"contradict each other, with round robin or "
				"without",
				layouts[0].rank->optim[0].name);
	if (v.mapped && step->base.topology.round_robin != flag)
		cfs_log(CFS_LOG_WARN,
			"%s: round_robin_gradients is %s in ds_config, but the "
			"optimizer's files say otherwise",
			step->base.path, flag ? "on" : "off");
	return 0;
}

/* ---- catalogue ---- */

static int add_params(struct cfs_ds_layout *layout, struct cfs_ds_unit *unit,
		      struct cfs_catalogue *cat, struct cfs_error *err)
{
	bool shuffled = layout->step->base.topology.round_robin;

	for (uint32_t i = 0; i < unit->n; i++) {
		struct cfs_ds_shape *s =
			&unit->shapes[shuffled ? unit->own[i] : i];
		int r = cfs_catalogue_add_param(cat, s->name, s->ndim, s->shape,
						unit->group, &s->param);

		if (r < 0)
			return cfs_fail(err, r == -EEXIST ? -EINVAL : r,
					"%s: parameter %s %s",
					layout->rank->model[0].name, s->name,
					r == -EEXIST ? "is there twice"
						     : "cannot be catalogued");
	}
	return 0;
}

/* The part of @s that rank @dp holds: elements [*from, *to) of the parameter
 * start at element *at of the rank's flat tensor, or its @cut-th. */
static bool share(const struct cfs_ds_layout *layout,
		  const struct cfs_ds_unit *unit, const struct cfs_ds_shape *s,
		  uint32_t dp, uint32_t cut, uint64_t *from, uint64_t *to,
		  uint64_t *at)
{
	uint64_t begin;

	if (layout->cls == CFS_OPT_ZERO3) {
		uint64_t part = cfs_zero3_part(s->numel, layout->dp);

		*from = CFS_MIN(part * dp, s->numel);
		*to = CFS_MIN(part * dp + part, s->numel);
		*at = s->pos;
		return *from < *to;
	}
	begin = unit->len * ((uint64_t)cut * layout->dp + dp);
	if (s->pos >= begin + unit->len || s->pos + s->numel <= begin)
		return false;
	*from = CFS_MAX(s->pos, begin) - s->pos;
	*to = CFS_MIN(s->pos + s->numel, begin + unit->len) - s->pos;
	*at = s->pos + *from - begin;
	return *from < *to;
}

static int add_share(struct cfs_ds_layout *layout, struct cfs_catalogue *cat,
		     uint32_t u, const struct cfs_ds_shape *s, uint32_t role,
		     uint32_t dp, uint32_t cut)
{
	const struct cfs_ds_unit *unit = &layout->units[u];
	const struct cfs_ds_piece *piece =
		cfs_ds_piece_of(layout, dp, u, cut, role);
	uint64_t from, to, at;
	struct cfs_extent e;
	int r;

	r = cfs_catalogue_set_dtype(cat, s->param, role, piece->dtype);
	if (r < 0 || !share(layout, unit, s, dp, cut, &from, &to, &at))
		return r;
	if (at + (to - from) > piece->numel)
		return -EINVAL;
	e = (struct cfs_extent){
		.start = from,
		.count = to - from,
		.offset = piece->off + at * cfs_dtype_size(piece->dtype),
		.file = layout->rank->optim[dp].index,
	};
	return cfs_catalogue_add_extent(cat, s->param, role, &e);
}

static int add_role(struct cfs_ds_layout *layout, struct cfs_catalogue *cat,
		    uint32_t u, uint32_t role, struct cfs_error *err)
{
	const struct cfs_ds_unit *unit = &layout->units[u];

	if (!cfs_ds_piece_of(layout, 0, u, 0, role)->dtype)
		return 0;
	for (uint32_t i = 0; i < unit->n; i++) {
		for (uint32_t k = 0; k < unit->cuts * layout->dp; k++) {
			uint32_t dp = k % layout->dp;
			int r = add_share(layout, cat, u, &unit->shapes[i],
					  role, dp, k / layout->dp);

			if (r < 0)
				return cfs_fail(
					err, r,
					"%s: %s of %s has another type or "
					"length than on the first rank",
					layout->rank->optim[dp].name,
					layout->roles[role],
					unit->shapes[i].name);
		}
	}
	return 0;
}

int cfs_ds_build(struct cfs_ds_layout *layout, struct cfs_error *err)
{
	struct cfs_catalogue *cat =
		layout->step->base.ranks[layout->mp].catalogue;
	uint32_t role;
	int r = 0;

	for (uint32_t u = 0; !r && u < layout->n_units; u++)
		r = add_params(layout, &layout->units[u], cat, err);
	/* The catalogue numbers roles in the same order. */
	for (uint32_t k = CFS_ROLE_STATE0; !r && k < layout->n_roles; k++)
		r = cfs_catalogue_add_role(cat, layout->roles[k], &role);
	for (uint32_t u = 0; !r && u < layout->n_units; u++)
		for (uint32_t k = CFS_ROLE_MASTER; !r && k < layout->n_roles;
		     k++)
			r = add_role(layout, cat, u, k, err);
	return r;
}

/* ---- groups ---- */

static int read_entry(struct cfs_ds_layout *layout, uint32_t u,
		      struct cfs_ds_group *group, struct cfs_node *key,
		      struct cfs_node *value, struct cfs_error *err)
{
	struct cfs_pickle *doc = layout->step->scratch;
	int r;

	cfs_node_append(doc, group->state_order, key);
	r = cfs_ds_is_sharded(layout, &layout->units[u], cfs_node_as_str(key),
			      value, err);
	if (r < 0)
		return r;
	if (!r || !cfs_ds_layout_role(layout, cfs_node_as_str(key)))
		cfs_node_set(doc, group->scalars, key, value);
	return 0;
}

/* Another sub-group of the same group: the scalars must be those. */
static int compare_entry(struct cfs_ds_layout *layout, uint32_t u,
			 const struct cfs_ds_group *group,
			 const struct cfs_node *key,
			 const struct cfs_node *value, struct cfs_file *file,
			 struct cfs_error *err)
{
	const char *name = cfs_node_as_str(key);
	int r = cfs_ds_is_sharded(layout, &layout->units[u], name, value, err);

	if (r)
		return r < 0 ? r : 0;
	if (cfs_ds_same_value(cfs_node_get(group->scalars, name), file, value,
			      file))
		return 0;
	return cfs_fail(err, -ENOTSUP,
			"%s: optimizer state %s of sub-group %u differs from "
			"that of the group's first, so sub-groups cannot be "
			"cut anew",
			layout->rank->optim[0].name, name, u);
}

static int read_group(struct cfs_ds_layout *layout, uint32_t u,
		      struct cfs_file *file, struct cfs_error *err)
{
	const struct cfs_ds_unit *unit = &layout->units[u];
	struct cfs_ds_group *group = &layout->rank->groups[unit->group];
	bool first = !group->scalars;
	int r = 0;

	if (first) {
		group->scalars = cfs_node_dict(layout->step->scratch);
		group->state_order = cfs_node_list(layout->step->scratch);
	}
	for (uint32_t i = 0; !r && i < cfs_map_node_count(unit->state); i++) {
		struct cfs_node *key, *value;

		cfs_map_node_pair(unit->state, i, &key, &value);
		r = first ? read_entry(layout, u, group, key, value, err)
			  : compare_entry(layout, u, group, key, value, file,
					  err);
	}
	return r;
}

int cfs_ds_groups_read(struct cfs_ds_layout *layout, struct cfs_error *err)
{
	struct cfs_ds_rank *rank = layout->rank;
	const struct cfs_node *hyper = cfs_node_get(
		cfs_ds_base_state(layout, rank->optim_state), "param_groups");
	struct cfs_pickle *doc = layout->step->scratch;
	struct cfs_file *file;
	int r;

	rank->groups =
		calloc((size_t)layout->n_groups + 1, sizeof(*rank->groups));
	if (!rank->groups)
		return -ENOMEM;
	rank->n_groups = layout->n_groups;
	r = cfs_ds_open(&layout->step->base, rank->optim[0].index, &file, err);
	if (r < 0)
		return r;
	for (uint32_t u = 0; !r && u < layout->n_units; u++)
		r = read_group(layout, u, file, err);
	cfs_filepool_put(layout->step->base.pool, file);
	if (r < 0)
		return r;
	for (uint32_t g = 0; g < rank->n_groups; g++) {
		struct cfs_ds_group *group = &rank->groups[g];

		group->hyper = cfs_seq_node_item(hyper, g);
		if (!group->scalars)
			group->scalars = cfs_node_dict(doc);
		if (!group->state_order)
			group->state_order = cfs_node_list(doc);
		if (hyper && !cfs_node_is_map(group->hyper))
			return cfs_fail(err, -EBADMSG,
					"%s: param_groups[%u] is no dictionary",
					rank->optim[0].name, g);
	}
	return cfs_pickle_failed(doc) ? -ENOMEM : 0;
}
