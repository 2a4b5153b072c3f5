/*
 * Model states as the framework's loader wants them: weights and buffers,
 * counters, configuration, and what the client said.
 */
#include "fs/format/universal/put.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"

static void set(struct cfs_uc_putting *p, struct cfs_node *map, const char *key,
		struct cfs_node *value)
{
	cfs_node_set_str(p->doc, map, key, value);
}

/* ---- module ---- */

static bool is_role(const struct cfs_put_tensor *t, const char *role)
{
	return !strcmp(t->first->role, role);
}

static int check_buffer(const struct cfs_uc_putting *p, const char *name)
{
	if (cfs_put_tensors_find(p->tensors, name, CFS_PUT_WEIGHT) ||
	    cfs_put_tensors_find(p->tensors, name, CFS_PUT_MASTER))
		return cfs_fail(p->err, -EINVAL,
				"tensor %s: was put as a parameter and as a "
				"buffer",
				name);
	return 0;
}

/* Parameters whose weight was not put are behind all others. */
static void add_rounded(struct cfs_uc_putting *p, struct cfs_node *module)
{
	for (uint32_t i = 0; i < p->n_params; i++) {
		const struct cfs_uc_param *m = &p->params[i];

		if (!m->weight)
			set(p, module, m->name,
			    cfs_uc_put_tensor(p, m->master->first,
					      m->weight_dtype, m->weight_map));
	}
}

/* Second names of parameters that were put under their first one alone. */
static void add_shared(struct cfs_uc_putting *p, struct cfs_node *module)
{
	for (uint32_t i = 0; i < cfs_map_node_count(p->shared); i++) {
		struct cfs_node *key, *value, *first;

		cfs_map_node_pair(p->shared, i, &key, &value);
		first = cfs_node_as_str(value)
				? cfs_node_get(module, cfs_node_as_str(value))
				: NULL;
		if (first && cfs_node_as_str(key) &&
		    !cfs_node_get(module, cfs_node_as_str(key)))
			cfs_node_set(p->doc, module, key,
				     cfs_node_copy(p->doc, first));
	}
}

/* In the order in which they were put. */
static int make_module(struct cfs_uc_putting *p, struct cfs_node **module_out,
		       struct cfs_node **names_out)
{
	struct cfs_node *module = cfs_node_ordereddict(p->doc);
	struct cfs_node *names = cfs_node_list(p->doc);
	int r = 0;

	for (size_t i = 0; !r && i < p->tensors->n; i++) {
		const struct cfs_put_tensor *t = &p->tensors->v[i];
		const char *name = t->first->name;
		bool buffer = is_role(t, CFS_PUT_BUFFER);

		if (!buffer && !is_role(t, CFS_PUT_WEIGHT))
			continue;
		set(p, module, name,
		    cfs_uc_put_tensor(p, t->first, t->first->dtype, t->map));
		if (!buffer)
			continue;
		r = check_buffer(p, name);
		cfs_node_append(p->doc, names, cfs_node_str(p->doc, name));
	}
	add_rounded(p, module);
	add_shared(p, module);
	*module_out = module;
	*names_out = names;
	return r;
}

/* ---- configuration ---- */

static struct cfs_node *enabled(struct cfs_uc_putting *p)
{
	struct cfs_node *map = cfs_node_dict(p->doc);

	set(p, map, "enabled", cfs_node_bool(p->doc, true));
	return map;
}

/* No more than is known: CFS_DS_CONFIG_MADE keeps anybody from taking what it
 * lacks for the release's default. */
static struct cfs_node *make_config(struct cfs_uc_putting *p)
{
	struct cfs_node *config = cfs_node_dict(p->doc);
	struct cfs_node *zero = cfs_node_dict(p->doc);

	set(p, zero, "stage",
	    cfs_node_int(p->doc, p->step->base.topology.zero_stage));
	set(p, config, "zero_optimization", zero);
	if (p->step->base.dtype == CFS_BF16)
		set(p, config, "bf16", enabled(p));
	else if (p->step->base.dtype == CFS_F16)
		set(p, config, "fp16", enabled(p));
	set(p, config, CFS_DS_CONFIG_MADE, cfs_node_bool(p->doc, true));
	return config;
}

/* ---- the client's ---- */

static int add_steps(struct cfs_uc_putting *p, struct cfs_node *root)
{
	struct cfs_node *samples =
		cfs_node_get(p->client_state, "global_samples");
	int64_t n = p->puts->step;

	if (!cfs_node_get(p->client_state, "global_steps") && n < 0)
		return cfs_fail(p->err, -EINVAL,
				"the step's name has no number: say how many "
				"steps were taken as global_steps of object "
				"client_state");
	set(p, root, "skipped_steps", cfs_node_int(p->doc, 0));
	set(p, root, "global_steps", cfs_node_int(p->doc, CFS_MAX(n, 0)));
	/* without, the loader takes steps times its own batch */
	if (samples)
		set(p, root, "global_samples", samples);
	return 0;
}

static void add_client(struct cfs_uc_putting *p, struct cfs_node *root)
{
	for (uint32_t i = 0; i < cfs_map_node_count(p->client_state); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(p->client_state, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name)
			cfs_node_replace(p->doc, root, name, value);
		else
			cfs_node_set(p->doc, root, key, value);
	}
	if (p->universal_info)
		cfs_node_replace(p->doc, root, "universal_checkpoint_info",
				 p->universal_info);
}

static struct cfs_node *one_rank(struct cfs_uc_putting *p)
{
	struct cfs_node *map = cfs_node_dict(p->doc);

	set(p, map, "pp_degree", cfs_node_int(p->doc, 1));
	set(p, map, "tp_degree", cfs_node_int(p->doc, 1));
	return map;
}

int cfs_uc_put_model(struct cfs_uc_putting *p, struct cfs_node **root_out)
{
	static const char *const none_before[] = {"optimizer", "param_shapes",
						  "frozen_param_shapes"};
	static const char *const none_behind[] = {"frozen_param_fragments",
						  "lr_scheduler",
						  "data_sampler", "random_ltd"};
	struct cfs_node *root = cfs_node_dict(p->doc), *module, *names;
	int r = make_module(p, &module, &names);

	if (r < 0)
		return r;
	if (!p->ds_config)
		p->ds_config = make_config(p);
	set(p, root, "module", module);
	set(p, root, "buffer_names", names);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(none_before); i++)
		set(p, root, none_before[i], cfs_node_none(p->doc));
	set(p, root, "shared_params",
	    p->shared ? p->shared : cfs_node_dict(p->doc));
	for (size_t i = 0; i < CFS_ARRAY_SIZE(none_behind); i++)
		set(p, root, none_behind[i], cfs_node_none(p->doc));
	r = add_steps(p, root);
	if (r < 0)
		return r;
	set(p, root, "dp_world_size",
	    cfs_node_int(p->doc, p->step->base.topology.dp));
	set(p, root, "mp_world_size", cfs_node_int(p->doc, 1));
	set(p, root, "checkpoint_parallel_dimensions", one_rank(p));
	set(p, root, "ds_config", p->ds_config);
	set(p, root, "ds_version", cfs_node_str(p->doc, CFS_UC_PUT_VERSION));
	add_client(p, root);
	*root_out = root;
	return 0;
}
