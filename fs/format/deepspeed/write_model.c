/*
 * Model states: the source's dict with what depends on the topology replaced.
 */
#include "fs/format/deepspeed/write_module.h"

#include <errno.h>
#include <string.h>

#include "fs/format/deepspeed/module_tree.h"
#include "fs/reslice/partition.h"
#include "store/util/error.h"

/* frozen_param_fragments of one parameter: whole, or this rank's part. */
static int frozen_fragment(struct cfs_ds_module *m, uint32_t param,
			   struct cfs_node **node_out)
{
	struct cfs_ds_out *out = m->out;
	const struct cfs_param *p = cfs_catalogue_param(out->cat, param);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	enum cfs_dtype dtype =
		cfs_catalogue_dtype(out->cat, param, CFS_ROLE_WEIGHT);
	struct cfs_node *have = m->entry[param];
	uint64_t part, start, count;
	int r;

	if (out->topo->zero_stage < 3 && m->weight[param])
		return cfs_ds_module_weight(m, param, dtype, node_out);
	if (out->topo->zero_stage < 3 && have) {
		*node_out = cfs_node_copy(out->doc, have);
		return *node_out ? 0 : -ENOMEM;
	}
	part = out->topo->zero_stage == 3
		       ? cfs_zero3_part(p->numel, out->topo->dp)
		       : p->numel;
	start = out->topo->zero_stage == 3 ? CFS_MIN(part * out->dp, p->numel)
					   : 0;
	count = CFS_MIN(part, p->numel - start);
	map = cfs_ds_out_map(out);
	if (!map)
		return -ENOMEM;
	r = cfs_catalogue_append(out->cat, param, CFS_ROLE_WEIGHT, start, count,
				 map);
	if (r >= 0)
		r = cfs_map_add_zero(map,
				     (part - count) * cfs_dtype_size(dtype));
	if (r < 0)
		return cfs_fail_prefix(out->err, r, "frozen parameter %s",
				       p->name);
	*node_out = cfs_ds_out_tensor(
		out, cfs_steal(map), dtype, p->ndim,
		out->topo->zero_stage == 3 ? NULL : p->shape, false);
	return *node_out ? 0 : -ENOMEM;
}

/* frozen_param_shapes and _fragments: None up to stage 1. */
static int replace_frozen(struct cfs_ds_module *m, struct cfs_node *root)
{
	struct cfs_ds_out *out = m->out;
	struct cfs_node *shapes = cfs_node_none(out->doc);
	struct cfs_node *fragments = cfs_node_none(out->doc);
	uint32_t n = cfs_catalogue_params(out->cat), n_frozen = 0;

	if (out->topo->zero_stage >= 2) {
		shapes = cfs_node_ordereddict(out->doc);
		fragments = cfs_node_ordereddict(out->doc);
	}
	for (uint32_t i = 0; i < n; i++) {
		const struct cfs_param *p = cfs_catalogue_param(out->cat, i);
		struct cfs_node *fragment = NULL;
		int r;

		if (p->group != CFS_GROUP_FROZEN || out->topo->zero_stage < 2)
			continue;
		r = frozen_fragment(m, i, &fragment);
		if (r < 0)
			return r;
		cfs_node_set_str(out->doc, shapes, p->name,
				 cfs_ds_out_size(out, p));
		cfs_node_set_str(out->doc, fragments, p->name, fragment);
		n_frozen++;
	}
	if (n_frozen || cfs_node_get(root, "frozen_param_shapes")) {
		cfs_node_replace(out->doc, root, "frozen_param_shapes", shapes);
		cfs_node_replace(out->doc, root, "frozen_param_fragments",
				 fragments);
	}
	return 0;
}

/* Filled by global rank 0 alone.  A source without ZeRO has None here: what is
 * tied shows in its storages. */
static struct cfs_node *shared_params(struct cfs_ds_module *m)
{
	struct cfs_node *have = cfs_node_get(m->root, "shared_params");
	struct cfs_node *map = cfs_node_dict(m->out->doc);

	if (m->out->mp || m->out->dp)
		return map;
	if (have && !cfs_node_is_none(have))
		return have;
	for (uint32_t i = 0; i < cfs_map_node_count(m->src); i++) {
		struct cfs_node *key, *value;
		const char *name;
		uint32_t param;

		cfs_map_node_pair(m->src, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name && !cfs_ds_module_is_buffer(m, name) &&
		    cfs_catalogue_find(m->out->cat, name, &param) == -ENOENT &&
		    cfs_ds_module_same(m, value, &param))
			cfs_node_set_str(
				m->out->doc, map, name,
				cfs_node_str(
					m->out->doc,
					cfs_catalogue_param(m->out->cat, param)
						->name));
	}
	return map;
}

/* Without ZeRO the optimizer's state is here, and nothing says how flat tensors
 * are made up. */
static int replace_optimizer(struct cfs_ds_module *m, struct cfs_node *root)
{
	struct cfs_ds_out *out = m->out;
	struct cfs_node *shapes = cfs_node_none(out->doc), *shared = NULL;
	struct cfs_node *optim = cfs_node_none(out->doc);
	int r = 0;

	if (out->topo->optimizer == CFS_OPT_STAGE0) {
		shared = cfs_node_none(out->doc);
		r = cfs_ds_write_stage0(out, &optim);
	} else if (out->topo->optimizer != CFS_OPT_NONE) {
		shared = shared_params(m);
		r = cfs_ds_write_shapes(out, &shapes);
	}
	if (r < 0)
		return r;
	cfs_ds_out_replace(out, root, "optimizer", optim);
	cfs_ds_out_replace(out, root, "param_shapes", shapes);
	if (shared)
		cfs_ds_out_replace(out, root, "shared_params", shared);
	return 0;
}

/* What says how the state is laid out, where the source has the key. */
static int replace_layout(struct cfs_ds_module *m, struct cfs_node *root)
{
	struct cfs_ds_out *out = m->out;
	struct cfs_node *config;
	int r;

	r = cfs_ds_write_config(out, cfs_node_get(root, "ds_config"), &config);
	if (r >= 0)
		r = replace_frozen(m, root);
	if (r >= 0)
		r = replace_optimizer(m, root);
	if (r < 0)
		return r;
	cfs_node_replace(out->doc, root, "dp_world_size",
			 cfs_node_int(out->doc, out->topo->dp));
	if (config)
		cfs_node_replace(out->doc, root, "ds_config", config);
	if (out->tree->version)
		cfs_ds_out_replace(out, root, "ds_version",
				   cfs_node_str(out->doc, out->tree->version));
	return 0;
}

/* A pipeline's weights are in layer files. */
static int replace_module(struct cfs_ds_out *out, struct cfs_node *root)
{
	struct cfs_node *module = cfs_node_none(out->doc);
	int r = 0;

	if (!out->topo->pipeline)
		r = cfs_ds_write_sequence(out, &module);
	if (!r)
		cfs_node_replace(out->doc, root, "module", module);
	return r;
}

/* As the source had it, where its module is a tree. */
static int write_flat(struct cfs_ds_out *out, struct cfs_node *source,
		      struct cfs_node **root_out)
{
	bool from3 = out->step->base.topology.zero_stage == 3;
	bool to3 = out->topo->zero_stage == 3;
	struct cfs_node *root = cfs_node_copy(out->doc, source);
	uint32_t n = cfs_catalogue_params(out->cat);
	_cleanup_(cfs_freep) struct cfs_node **nodes =
		calloc(2 * ((size_t)n + 1), sizeof(*nodes));
	struct cfs_ds_module m = {.out = out,
				  .root = source,
				  .src = cfs_node_get(source, "module"),
				  .entry = nodes,
				  .weight = nodes ? nodes + n : NULL};
	int r;

	if (!root || !nodes)
		return -ENOMEM;
	if (out->step->remodel && !cfs_ds_is_filled(out)) {
		r = replace_module(out, root);
		if (r < 0)
			return r;
		m.src = cfs_node_get(root, "module");
		r = cfs_ds_write_client(out, root);
		if (r < 0)
			return r;
	}
	cfs_ds_module_entries(&m);
	/* a template's pipeline has its weights in layer files */
	if (to3 || (cfs_ds_is_filled(out) ? cfs_node_is_map(m.src)
					  : from3 && !out->step->remodel)) {
		struct cfs_node *module;

		if (!cfs_node_is_map(m.src))
			return cfs_fail(out->err, -ENOTSUP,
					"the weights lie in layer files, which "
					"stage 3 does not have");
		r = cfs_ds_module_convert(&m, &module);
		if (r < 0)
			return r;
		cfs_node_replace(out->doc, root, "module", module);
	}
	r = replace_layout(&m, root);
	if (r < 0)
		return r;
	*root_out = root;
	return 0;
}

int cfs_ds_write_model(struct cfs_ds_out *out, struct cfs_node *source,
		       struct cfs_node **root_out)
{
	const struct cfs_node *tree = out->rank->module_tree;
	struct cfs_node *flat = cfs_ds_module_flat_root(out->doc, source);
	struct cfs_node *nested;
	int r;

	if (!flat)
		return -ENOMEM;
	if (flat != source) /* of another rank than the one that was read */
		tree = cfs_node_get(source, "module");
	r = write_flat(out, flat, root_out);
	if (r < 0 || !tree)
		return r;
	nested = cfs_ds_module_nest(out->doc, tree,
				    cfs_node_get(*root_out, "module"));
	if (!nested)
		return cfs_fail(out->err, -EINVAL,
				"the module's tree has other names than its "
				"first rank's");
	cfs_node_replace(out->doc, *root_out, "module", nested);
	return 0;
}
