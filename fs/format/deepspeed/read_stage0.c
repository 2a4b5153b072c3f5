/* Optimizers that are not partitioned: from matched states to the catalogue
 * and the groups. */
#include "fs/format/deepspeed/stage0.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"

/* ---- the catalogue ---- */

static int add_params(struct cfs_ds_stage0 *z)
{
	for (uint32_t i = 0; i < z->n_owned; i++) {
		struct cfs_ds_owned *o = &z->owned[i];
		int r = cfs_catalogue_add_param(z->cat, o->is->name,
						o->is->t.ndim, o->is->t.shape,
						o->group, &o->param);

		if (r < 0)
			return cfs_fail(z->err, r == -EEXIST ? -EINVAL : r,
					"%s cannot be catalogued", o->is->name);
	}
	return 0;
}

/* Elements [pos, pos + numel) of flat tensor @t are role @role of @o. */
static int add_slice(struct cfs_ds_stage0 *z, const struct cfs_ds_owned *o,
		     uint32_t role, const struct cfs_torch_tensor *t,
		     uint64_t pos)
{
	struct cfs_torch_tensor part = *t;

	if (!t->contiguous || !t->storage || !cfs_dtype_size(t->dtype))
		return cfs_fail(
			z->err, -ENOTSUP, "%s of %s does not lie in order",
			cfs_catalogue_role_name(z->cat, role), o->is->name);
	part.storage_offset += pos;
	part.numel = o->is->t.numel;
	return cfs_ds_add_tensor(z->step, z->mp, o->param, role, &part,
				 z->rank->model[0].index, z->file, z->err);
}

static bool is_scalar(const char *name, const struct cfs_torch_tensor *t,
		      uint64_t numel)
{
	return !t->ndim || (t->numel == 1 && numel != 1) ||
	       (t->numel == 1 && !strcmp(name, "step"));
}

static int add_state(struct cfs_ds_stage0 *z, const struct cfs_ds_owned *o,
		     const struct cfs_node *state, uint64_t numel)
{
	for (uint32_t i = 0; i < cfs_map_node_count(state); i++) {
		struct cfs_node *key, *value;
		struct cfs_torch_tensor t;
		const char *name;
		uint32_t role;
		int r;

		cfs_map_node_pair(state, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name)
			return cfs_fail(z->err, -ENOTSUP,
					"an optimizer state has no name");
		if (!cfs_torch_is_tensor(value))
			continue;
		if (cfs_torch_tensor_get(value, &t) < 0)
			return cfs_fail(z->err, -ENOTSUP,
					"optimizer state %s: a kind of tensor "
					"that is not supported",
					name);
		if (is_scalar(name, &t, numel))
			continue;
		if (t.numel != numel)
			return cfs_fail(z->err, -ENOTSUP,
					"optimizer state %s of %s has %llu "
					"elements instead of %llu",
					name, o->is->name,
					(unsigned long long)t.numel,
					(unsigned long long)numel);
		r = cfs_catalogue_add_role(z->cat, name, &role);
		if (!r)
			r = add_slice(z, o, role, &t, o->pos);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Flat state of the group a fused parameter is in. */
static struct cfs_node *group_state(const struct cfs_ds_stage0 *z, uint32_t g)
{
	const struct cfs_node *params =
		cfs_node_get(cfs_seq_node_item(z->groups, g), "params");
	int64_t id = g;

	if (!cfs_node_as_int(cfs_seq_node_item(params, 0), &id))
		return NULL;
	return cfs_node_get_int(cfs_node_get(z->torch, "state"), id);
}

static int add_extents(struct cfs_ds_stage0 *z)
{
	const struct cfs_node *flats =
		cfs_node_get(z->optimizer, "fp32_groups_flat");
	int r = 0;

	for (uint32_t i = 0; !r && i < z->n_owned; i++) {
		const struct cfs_ds_owned *o = &z->owned[i];
		struct cfs_torch_tensor t = o->master;

		if (z->fused) {
			r = cfs_torch_tensor_get(
				cfs_seq_node_item(flats, o->group), &t);
			if (!r)
				r = add_slice(z, o, CFS_ROLE_MASTER, &t,
					      o->pos);
			if (!r)
				r = add_state(z, o, group_state(z, o->group),
					      t.numel);
			continue;
		}
		/* fp32 runs train the weights themselves. */
		if (!o->has_master)
			t = o->is->t;
		r = add_slice(z, o, CFS_ROLE_MASTER, &t, 0);
		if (!r)
			r = add_state(z, o, o->state, o->is->t.numel);
	}
	return r;
}

/* ---- groups ---- */

/*
 * Scalars of all a group's parameters must be equal.  `step` need not: under
 * FusedAdam in fp32 only the group's last parameter counts, the others stay
 * at 0, and that one is meant.
 */
static int fold_scalar(struct cfs_ds_stage0 *z, struct cfs_ds_group *group,
		       struct cfs_node *key, struct cfs_node *value)
{
	struct cfs_pickle *doc = z->step->scratch;
	const char *name = cfs_node_as_str(key);
	struct cfs_node *old = cfs_node_get(group->scalars, name);
	int64_t v;

	if (!old) {
		cfs_node_set(doc, group->scalars, key, value);
		return 0;
	}
	if (cfs_ds_same_value(old, z->file, value, z->file))
		return 0;
	if (!strcmp(name, "step") && cfs_node_as_int(old, &v) && !v &&
	    cfs_node_as_int(value, &v)) {
		cfs_node_replace(doc, group->scalars, name, value);
		return 0;
	}
	return cfs_fail(z->err, -ENOTSUP,
			"optimizer state %s differs between parameters of one "
			"group, which a partitioned optimizer cannot hold",
			name);
}

static int fold_state(struct cfs_ds_stage0 *z, uint32_t g,
		      const struct cfs_node *state, uint64_t numel)
{
	struct cfs_ds_group *group = &z->rank->groups[g];
	struct cfs_pickle *doc = z->step->scratch;
	bool first = !cfs_seq_node_count(group->state_order);

	for (uint32_t i = 0; i < cfs_map_node_count(state); i++) {
		struct cfs_node *key, *value;
		struct cfs_torch_tensor t;
		int r;

		cfs_map_node_pair(state, i, &key, &value);
		if (!cfs_node_as_str(key))
			continue;
		if (first)
			cfs_node_append(doc, group->state_order, key);
		/* What has dimensions is sharded, judged by add_state(). */
		if (!cfs_torch_tensor_get(value, &t) &&
		    !is_scalar(cfs_node_as_str(key), &t, numel))
			continue;
		r = fold_scalar(z, group, key, value);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_groups(struct cfs_ds_stage0 *z)
{
	struct cfs_pickle *doc = z->step->scratch;
	int r = 0;

	z->rank->groups =
		calloc((size_t)z->n_groups + 1, sizeof(*z->rank->groups));
	if (!z->rank->groups)
		return -ENOMEM;
	z->rank->n_groups = z->n_groups;
	for (uint32_t g = 0; g < z->n_groups; g++) {
		struct cfs_ds_group *group = &z->rank->groups[g];

		group->hyper = cfs_seq_node_item(z->groups, g);
		group->scalars = cfs_node_dict(doc);
		group->state_order = cfs_node_list(doc);
		if (!cfs_node_is_map(group->hyper))
			return cfs_fail(z->err, -EBADMSG, "param_groups[%u]",
					g);
		if (z->fused)
			r = fold_state(z, g, group_state(z, g), UINT64_MAX);
		if (r < 0)
			return r;
	}
	for (uint32_t i = 0; !z->fused && !r && i < z->n_owned; i++)
		r = fold_state(z, z->owned[i].group, z->owned[i].state,
			       z->owned[i].is->t.numel);
	return r < 0 ? r : cfs_pickle_failed(doc) ? -ENOMEM : 0;
}

/* ---- all of it ---- */

static int read_all(struct cfs_ds_stage0 *z)
{
	int r;

	z->torch = cfs_node_get(z->optimizer, "optimizer_state_dict");
	if (!z->torch)
		z->torch = z->optimizer;
	z->groups = cfs_node_get(z->torch, "param_groups");
	z->n_groups = cfs_seq_node_count(z->groups);
	if (!z->n_groups)
		return cfs_fail(z->err, -ENOTSUP,
				"optimizer: no param_groups in it");
	z->fused = cfs_node_get(z->optimizer, "fp32_groups_flat");
	r = cfs_ds_stage0_match(z);
	if (!r)
		r = add_params(z);
	if (!r)
		r = add_extents(z);
	return r < 0 ? r : read_groups(z);
}

int cfs_ds_stage0_read(struct cfs_ds_step *step, uint32_t mp,
		       struct cfs_error *err)
{
	struct cfs_ds_stage0 z = {.step = step,
				  .mp = mp,
				  .rank = &step->ranks[mp],
				  .cat = step->base.ranks[mp].catalogue,
				  .err = err};
	int r;

	z.optimizer = cfs_node_get(z.rank->model_root, "optimizer");
	if (!cfs_node_is_map(z.optimizer)) {
		step->base.topology.optimizer = CFS_OPT_NONE;
		return 0;
	}
	step->base.topology.optimizer = CFS_OPT_STAGE0;
	r = cfs_ds_open(&step->base, z.rank->model[0].index, &z.file, err);
	if (r < 0)
		return r;
	r = read_all(&z);
	cfs_filepool_put(step->base.pool, z.file);
	for (uint32_t i = 0; i < z.n_candidates; i++)
		free(z.candidates[i].head);
	free(z.candidates);
	free(z.owned);
	cfs_ds_layer_files_fini(&z.layers);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", z.rank->model[0].name) : 0;
}
