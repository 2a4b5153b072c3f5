/* Which flat tensors an optimizer holds and what lies where in them. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <string.h>

#include "store/util/arena.h"
#include "store/util/checked.h"
#include "store/util/error.h"

static const char *optim_name(const struct cfs_ds_layout *layout)
{
	return layout->rank->optim[0].name;
}

/* Refuses with the first rank's optimizer file named. */
#define refuse(layout, r, err, ...)                                            \
	(cfs_fail(err, r, __VA_ARGS__),                                        \
	 cfs_fail_prefix(err, r, "%s", optim_name(layout)))

static int read_class(struct cfs_ds_layout *layout, struct cfs_error *err)
{
	const struct cfs_node *inner = layout->rank->optim_state;

	if (!cfs_node_is_map(inner))
		return refuse(layout, -EBADMSG, err,
			      "optimizer_state_dict is no dictionary");
	layout->interleaved =
		cfs_node_get(inner, "local_sub_partitions_of_fp32_groups");
	if (layout->interleaved)
		layout->cls = CFS_OPT_ZERO12;
	else if (cfs_node_get(inner, "fp32_flat_groups"))
		layout->cls = CFS_OPT_ZERO3;
	else if (!cfs_node_get(inner, "single_partition_of_fp32_groups"))
		return refuse(layout, -ENOTSUP, err,
			      "neither single_partition_of_fp32_groups nor "
			      "fp32_flat_groups: not a layout of ZeRO that is "
			      "known");
	else if (cfs_node_get(inner, "zero_stage"))
		layout->cls = CFS_OPT_ZERO12;
	else
		layout->cls = CFS_OPT_BF16;
	return 0;
}

/* ---- shapes ---- */

static int read_shape(struct cfs_ds_layout *layout, const struct cfs_node *key,
		      const struct cfs_node *value, struct cfs_ds_shape *out,
		      struct cfs_error *err)
{
	uint64_t dims[CFS_TENSOR_DIMS_MAX], *copy;

	out->name = cfs_node_as_str(key);
	if (!out->name ||
	    !cfs_node_as_shape(value, CFS_TENSOR_DIMS_MAX, &out->ndim, dims))
		return cfs_fail(err, -EBADMSG,
				"param_shapes: %s has no shape that can be "
				"read",
				out->name ? out->name : "an entry");
	out->numel = 1;
	for (uint32_t d = 0; d < out->ndim; d++)
		if (!cfs_mul_u64(out->numel, dims[d], &out->numel) ||
		    out->numel > INT64_MAX)
			return cfs_fail(err, -EBADMSG,
					"param_shapes: %s is too large",
					out->name);
	copy = cfs_arena_alloc(layout->arena, out->ndim * sizeof(*copy) + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, dims, out->ndim * sizeof(*copy));
	out->shape = copy;
	return 0;
}

static int read_shapes(struct cfs_ds_layout *layout, struct cfs_ds_unit *unit,
		       const struct cfs_node *map, struct cfs_error *err)
{
	uint32_t n = cfs_map_node_count(map);

	if (!cfs_node_is_map(map))
		return cfs_fail(err, -EBADMSG,
				"param_shapes: an entry is no dictionary");
	unit->shapes =
		cfs_arena_alloc(layout->arena, n * sizeof(*unit->shapes) + 1);
	unit->own = cfs_arena_alloc(layout->arena, n * sizeof(*unit->own) + 1);
	if (!unit->shapes || !unit->own)
		return -ENOMEM;
	unit->n = n;
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_node *key, *value;
		int r;

		cfs_map_node_pair(map, i, &key, &value);
		r = read_shape(layout, key, value, &unit->shapes[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* param_alignment_paddings[g]: one count a parameter, in flat order. */
static int read_pads(struct cfs_ds_layout *layout, uint32_t u,
		     struct cfs_error *err)
{
	const struct cfs_node *all = cfs_node_get(layout->rank->optim_state,
						  "param_alignment_paddings");
	const struct cfs_node *list = cfs_seq_node_item(all, u);
	struct cfs_ds_unit *unit = &layout->units[u];

	if (layout->cls != CFS_OPT_ZERO12 || !cfs_node_is_seq(all))
		return 0;
	if (cfs_seq_node_count(list) != unit->n)
		return refuse(layout, -EINVAL, err,
			      "param_alignment_paddings of group %u has %u "
			      "entries for %u parameters",
			      u, cfs_seq_node_count(list), unit->n);
	for (uint32_t i = 0; i < unit->n; i++) {
		uint64_t pad;

		if (!cfs_node_as_u64(cfs_seq_node_item(list, i), &pad) ||
		    pad > 16)
			return refuse(layout, -EBADMSG, err,
				      "param_alignment_paddings of %s",
				      unit->shapes[i].name);
		unit->shapes[i].pad = pad;
		layout->aligned |= pad != 0;
	}
	return 0;
}

/* Positions in flat order, and those the unshuffled order would give. */
static int place_params(struct cfs_ds_layout *layout, struct cfs_ds_unit *unit,
			uint64_t *total_out)
{
	_cleanup_(cfs_freep) uint32_t *order = NULL;
	uint64_t at = 0, own_at = 0, pads = 0;

	for (uint32_t i = 0; i < unit->n; i++) {
		struct cfs_ds_shape *s = &unit->shapes[i];
		uint64_t len = layout->cls == CFS_OPT_ZERO3
				       ? cfs_zero3_part(s->numel, layout->dp)
				       : s->numel + s->pad;

		s->pos = at;
		pads += s->pad;
		if (!cfs_add_u64(at, len, &at) || at > INT64_MAX)
			return -EOVERFLOW;
	}
	order = calloc((size_t)unit->n + 1, sizeof(*order));
	if (!order)
		return -ENOMEM;
	cfs_round_robin(unit->n, layout->cls == CFS_OPT_ZERO12 ? layout->dp : 1,
			order);
	for (uint32_t i = 0; i < unit->n; i++)
		unit->own[order[i]] = i;
	for (uint32_t j = 0; j < unit->n; j++) {
		struct cfs_ds_shape *s = &unit->shapes[unit->own[j]];

		/* Where parameters are padded the framework maps by true
		 * position, though it lists in the group's order. */
		s->own_pos = pads ? s->pos : own_at;
		own_at += s->numel;
	}
	*total_out = at;
	return 0;
}

/* ---- groups ---- */

/* Stage 3: `params` of each group lists its sub-groups, counted through. */
static int group_units(struct cfs_ds_layout *layout, struct cfs_error *err)
{
	const struct cfs_node *groups = cfs_node_get(
		cfs_ds_base_state(layout, layout->rank->optim_state),
		"param_groups");
	uint32_t n = cfs_seq_node_count(groups), next = 0;

	for (uint32_t g = 0; g < n; g++) {
		const struct cfs_node *params =
			cfs_node_get(cfs_seq_node_item(groups, g), "params");
		uint32_t count = cfs_seq_node_count(params);

		for (uint32_t i = 0; i < count; i++, next++) {
			uint64_t id;

			if (!cfs_node_as_u64(cfs_seq_node_item(params, i),
					     &id) ||
			    id != next || next >= layout->n_units)
				return refuse(layout, -EINVAL, err,
					      "param_groups do not list the "
					      "%u sub-groups in order",
					      layout->n_units);
			layout->units[next].group = g;
		}
	}
	if (next != layout->n_units)
		return refuse(layout, -EINVAL, err,
			      "param_groups list %u of %u sub-groups", next,
			      layout->n_units);
	layout->n_groups = n;
	return 0;
}

static int read_groups(struct cfs_ds_layout *layout, struct cfs_error *err)
{
	const struct cfs_node *base =
		cfs_ds_base_state(layout, layout->rank->optim_state);
	uint32_t n;

	if (layout->cls == CFS_OPT_ZERO3)
		return group_units(layout, err);
	for (uint32_t u = 0; u < layout->n_units; u++)
		layout->units[u].group = u;
	layout->n_groups = layout->n_units;
	if (cfs_node_is_seq(base)) {
		layout->step->elastic = true;
		n = cfs_seq_node_count(base);
	} else {
		n = cfs_seq_node_count(cfs_node_get(base, "param_groups"));
	}
	if (n == layout->n_groups)
		return 0;
	return refuse(layout, -EINVAL, err,
		      "base_optimizer_state has %u groups, the master weights "
		      "%u",
		      n, layout->n_groups);
}

/* partition_count: N, or a list of N for each group. */
static int check_count(const struct cfs_ds_layout *layout,
		       const struct cfs_node *counts, struct cfs_error *err)
{
	uint32_t n = cfs_node_is_seq(counts) ? cfs_seq_node_count(counts) : 1;

	for (uint32_t i = 0; i < n; i++) {
		const struct cfs_node *count =
			cfs_node_is_seq(counts) ? cfs_seq_node_item(counts, i)
						: counts;
		uint64_t v;

		if (!cfs_node_as_u64(count, &v) || v == layout->dp)
			continue;
		return refuse(layout, v < layout->dp ? -EINVAL : -ENOENT, err,
			      "partition_count is %llu, but there are files of "
			      "%u ranks",
			      (unsigned long long)v, layout->dp);
	}
	return 0;
}

/* Of interleaved groups each rank has several sub-partitions. */
static int count_cuts(struct cfs_ds_layout *layout, struct cfs_error *err)
{
	const struct cfs_node *inner = layout->rank->optim_state;
	const struct cfs_node *counts =
		cfs_node_get(inner, "num_comm_intervals_per_group");
	uint32_t next = 0;

	for (uint32_t u = 0; u < layout->n_units; u++) {
		struct cfs_ds_unit *unit = &layout->units[u];
		uint64_t count;

		unit->first_cut = next;
		unit->cuts = 1;
		if (layout->interleaved)
			unit->cuts = cfs_seq_node_count(cfs_seq_node_item(
				cfs_ds_masters(layout, inner), u));
		next += unit->cuts;
		if (!unit->cuts)
			return refuse(layout, -EINVAL, err,
				      "group %u has no sub-partitions", u);
		if (layout->interleaved && counts &&
		    (!cfs_node_as_u64(cfs_seq_node_item(counts, u), &count) ||
		     count != unit->cuts))
			return refuse(layout, -EINVAL, err,
				      "group %u has %u sub-partitions, which "
				      "is not what "
				      "num_comm_intervals_per_group says",
				      u, unit->cuts);
	}
	return 0;
}

/* ---- all together ---- */

static int read_unit(struct cfs_ds_layout *layout, uint32_t u,
		     const struct cfs_node *shapes, struct cfs_error *err)
{
	struct cfs_ds_unit *unit = &layout->units[u];
	uint64_t total;
	int r;

	r = read_shapes(layout, unit, shapes, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s",
				       layout->rank->model[0].name);
	r = read_pads(layout, u, err);
	if (r < 0)
		return r;
	r = place_params(layout, unit, &total);
	if (r < 0)
		return r;
	r = cfs_ds_fit(layout, u, total, err);
	if (r < 0)
		return r;
	unit->state =
		cfs_ds_unit_state(layout, layout->rank->optim_state, u, 0);
	r = cfs_ds_read_roles(layout, unit, err);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", optim_name(layout)) : 0;
}

/* param_shapes: in model states, in 0.3.14 and a little later beside the
 * optimizer; a list, except where it is one dictionary of everything. */
static int find_shapes(struct cfs_ds_layout *layout,
		       struct cfs_node **shapes_out, struct cfs_error *err)
{
	struct cfs_node *shapes =
		cfs_node_get(layout->rank->model_root, "param_shapes");

	if (!shapes || cfs_node_is_none(shapes))
		shapes = cfs_node_get(layout->rank->optim_root, "param_shapes");
	if (!cfs_node_is_map(shapes) && !cfs_node_is_seq(shapes) &&
	    cfs_ds_is_twice(layout->rank))
		return cfs_ds_unnamed_shapes(layout, shapes_out, err);
	if (!cfs_node_is_map(shapes) && !cfs_node_is_seq(shapes))
		return cfs_fail(err, -ENOTSUP,
				"%s: no param_shapes, so the order of the "
				"parameters is not known",
				layout->rank->model[0].name);
	if (cfs_node_is_map(shapes) && layout->cls != CFS_OPT_ZERO3)
		return cfs_ds_members(layout, shapes, shapes_out, err);
	if (cfs_node_is_map(shapes) && layout->n_units != 1)
		return cfs_fail(err, -ENOTSUP,
				"%s: param_shapes of an old release does not "
				"tell which of %u sub-groups a parameter is in",
				layout->rank->model[0].name, layout->n_units);
	if (cfs_node_is_seq(shapes) &&
	    cfs_seq_node_count(shapes) != layout->n_units)
		return cfs_fail(err, -EINVAL,
				"%s: param_shapes has %u groups, the optimizer "
				"%u",
				layout->rank->model[0].name,
				cfs_seq_node_count(shapes), layout->n_units);
	*shapes_out = shapes;
	return 0;
}

static int parts_new(struct cfs_ds_layout *layout)
{
	const struct cfs_ds_unit *last = &layout->units[layout->n_units - 1];
	size_t n = (size_t)(last->first_cut + last->cuts) * layout->n_roles;

	layout->parts = calloc(layout->dp, sizeof(*layout->parts));
	if (!layout->parts)
		return -ENOMEM;
	for (uint32_t r = 0; r < layout->dp; r++) {
		layout->parts[r].pieces =
			calloc(n, sizeof(struct cfs_ds_piece));
		if (!layout->parts[r].pieces)
			return -ENOMEM;
	}
	return 0;
}

int cfs_ds_layout_read(struct cfs_ds_layout *layout, struct cfs_error *err)
{
	const struct cfs_node *inner = layout->rank->optim_state;
	struct cfs_node *shapes = NULL;
	int r;

	layout->dp = layout->rank->n_optim;
	layout->roles[CFS_ROLE_WEIGHT] = "weight";
	layout->roles[CFS_ROLE_MASTER] = "master";
	layout->n_roles = CFS_ROLE_STATE0;
	layout->arena = cfs_arena_new(0);
	if (!layout->arena)
		return -ENOMEM;
	r = read_class(layout, err);
	if (r < 0)
		return r;
	layout->n_units = cfs_seq_node_count(cfs_ds_masters(layout, inner));
	if (!layout->n_units)
		return refuse(layout, -ENOTSUP, err, "no master weights");
	layout->units = cfs_arena_alloc(
		layout->arena, layout->n_units * sizeof(*layout->units));
	if (!layout->units)
		return -ENOMEM;
	r = count_cuts(layout, err);
	if (!r)
		r = check_count(layout, cfs_node_get(inner, "partition_count"),
				err);
	if (!r)
		r = read_groups(layout, err);
	if (!r)
		r = find_shapes(layout, &shapes, err);
	for (uint32_t u = 0; !r && u < layout->n_units; u++)
		r = read_unit(layout, u,
			      cfs_node_is_map(shapes)
				      ? shapes
				      : cfs_seq_node_item(shapes, u),
			      err);
	return r < 0 ? r : parts_new(layout);
}

void cfs_ds_layout_fini(struct cfs_ds_layout *layout)
{
	for (uint32_t r = 0; layout->parts && r < layout->dp; r++)
		free(layout->parts[r].pieces);
	free(layout->parts);
	cfs_arena_free(layout->arena);
	memset(layout, 0, sizeof(*layout));
}
