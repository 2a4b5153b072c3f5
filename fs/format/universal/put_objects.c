/* Objects that a universal checkpoint is made with: decoded, never executed. */
#include "fs/format/universal/put.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"

static int decode(const struct cfs_uc_putting *p, const char *name,
		  struct cfs_node **out)
{
	const struct cfs_puts *puts = p->puts;

	for (size_t i = 0; i < puts->n_objects; i++) {
		const struct cfs_put_object *o = &puts->objects[i];
		int r;

		if (strcmp(o->name, name) != 0)
			continue;
		r = cfs_pickle_decode(p->doc, o->data, o->len, out, NULL,
				      p->err);
		return r < 0 ? cfs_fail_prefix(p->err,
					       r == -ENOMEM ? r : -EINVAL,
					       "object %s: is no pickle", name)
			     : 0;
	}
	return 0;
}

static int decode_map(const struct cfs_uc_putting *p, const char *name,
		      struct cfs_node **out)
{
	int r = decode(p, name, out);

	if (!r && *out && !cfs_node_is_map(*out))
		return cfs_fail(p->err, -EINVAL,
				"object %s: is a pickle of something else "
				"than a dictionary",
				name);
	return r;
}

/* What the optimizer keeps beside tensors: the format makes the rest. */
static const char *const state_keys[] = {"loss_scaler", "dynamic_loss_scale",
					 "overflow", "clip_grad"};

static int check_state(const struct cfs_uc_putting *p)
{
	for (uint32_t i = 0; i < cfs_map_node_count(p->optimizer_state); i++) {
		struct cfs_node *key, *value;
		const char *name;
		bool known = false;

		cfs_map_node_pair(p->optimizer_state, i, &key, &value);
		name = cfs_node_as_str(key);
		for (size_t k = 0; name && k < CFS_ARRAY_SIZE(state_keys); k++)
			known |= !strcmp(name, state_keys[k]);
		if (!known)
			return cfs_fail(p->err, -EINVAL,
					"object optimizer_state: key %s is not "
					"one of loss_scaler, "
					"dynamic_loss_scale, overflow and "
					"clip_grad",
					name ? name : "(no string)");
	}
	return 0;
}

/* What model states have of themselves; the rest of them may be said. */
static const char *const made_keys[] = {"module",
					"buffer_names",
					"optimizer",
					"param_shapes",
					"frozen_param_shapes",
					"frozen_param_fragments",
					"dp_world_size",
					"mp_world_size",
					"ds_config",
					"ds_version",
					"checkpoint_parallel_dimensions"};

static int check_client(const struct cfs_uc_putting *p)
{
	for (uint32_t i = 0; i < cfs_map_node_count(p->client_state); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(p->client_state, i, &key, &value);
		name = cfs_node_as_str(key);
		for (size_t k = 0; name && k < CFS_ARRAY_SIZE(made_keys); k++)
			if (!strcmp(name, made_keys[k]))
				return cfs_fail(p->err, -EINVAL,
						"object client_state: key %s "
						"is the format's own",
						name);
	}
	return 0;
}

/* An object of its own, or a key of client_state: second names to first ones,
 * which are those that the optimizer has. */
static int take_shared(struct cfs_uc_putting *p)
{
	struct cfs_node *said = cfs_node_get(p->client_state, "shared_params");
	int r = decode_map(p, "shared_params", &p->shared);

	if (r < 0)
		return r;
	if (p->shared && said)
		return cfs_fail(p->err, -EINVAL,
				"shared_params: is an object and a key of "
				"client_state: put one of them");
	if (!p->shared)
		p->shared = said;
	for (uint32_t i = 0; i < cfs_map_node_count(p->shared); i++) {
		struct cfs_node *key, *value;
		const char *name, *of;

		cfs_map_node_pair(p->shared, i, &key, &value);
		name = cfs_node_as_str(key);
		of = cfs_node_as_str(value);
		if (!name || !of)
			return cfs_fail(p->err, -EINVAL,
					"shared_params: is no dictionary of "
					"names");
		if (!cfs_put_tensors_find(p->tensors, of, CFS_PUT_WEIGHT) &&
		    !cfs_put_tensors_find(p->tensors, of, CFS_PUT_MASTER))
			return cfs_fail(p->err, -EINVAL,
					"shared_params: %s is to be another "
					"name of %s, which was not put",
					name, of);
	}
	return 0;
}

int cfs_uc_put_objects(struct cfs_uc_putting *p)
{
	int r = decode(p, "param_groups", &p->param_groups);

	if (!r && p->param_groups && !cfs_node_is_seq(p->param_groups))
		r = cfs_fail(p->err, -EINVAL,
			     "object param_groups: is a pickle of something "
			     "else than a list");
	if (!r)
		r = decode_map(p, "ds_config", &p->ds_config);
	if (!r)
		r = decode_map(p, "client_state", &p->client_state);
	if (!r)
		r = decode_map(p, "optimizer_state", &p->optimizer_state);
	if (!r)
		r = decode_map(p, "universal_checkpoint_info",
			       &p->universal_info);
	if (!r)
		r = take_shared(p);
	if (!r)
		r = check_state(p);
	return r < 0 ? r : check_client(p);
}
