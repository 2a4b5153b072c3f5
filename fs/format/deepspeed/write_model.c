/*
 * Model states: the source's dict with what depends on the topology replaced.
 *
 *   source, target stage   module
 *   0-2 -> 0-2             as it is
 *   0-3 -> 3               empty placeholders; buffers as they are
 *   3 -> 0-2               rounded masters, whole frozen ones; buffers too
 */
#include "fs/format/deepspeed/template.h"
#include "fs/format/deepspeed/write.h"

#include <errno.h>
#include <string.h>

#include "fs/format/deepspeed/module_tree.h"
#include "fs/reslice/partition.h"
#include "store/util/error.h"

/* While one module is converted. */
struct module {
	struct cfs_ds_out *out;
	struct cfs_node *root;	  /* the source's model states */
	struct cfs_node *src;	  /* its module */
	struct cfs_node **entry;  /* by parameter: its value in src, or NULL */
	struct cfs_node **weight; /* by parameter: new tensors, or NULL */
	struct cfs_node *empty;	  /* the last new placeholder, or NULL */
	enum cfs_dtype empty_dtype;
};

/* Is it a template's, with another step's state? */
static bool is_filled(const struct cfs_ds_out *out)
{
	return out->step->remodel && out->step->remodel->like;
}

static bool is_buffer(const struct module *m, const char *name)
{
	struct cfs_node *names = cfs_node_get(m->root, "buffer_names");

	for (uint32_t i = 0; i < cfs_seq_node_count(names); i++) {
		const char *s = cfs_node_as_str(cfs_seq_node_item(names, i));

		if (s && !strcmp(s, name))
			return true;
	}
	return false;
}

/* shared_params is filled by global rank 0 alone, so the first file's counts
 * for the others too. */
static const char *shared_with(const struct module *m, const char *name)
{
	const struct cfs_ds_rank *first = &m->out->step->ranks[0];
	const char *target = cfs_node_as_str(
		cfs_node_get(cfs_node_get(m->root, "shared_params"), name));

	return target ? target
		      : cfs_node_as_str(
				cfs_node_get(cfs_node_get(first->model_root,
							  "shared_params"),
					     name));
}

/* Tied before shared_params existed, or saved without ZeRO: the same bytes as
 * a parameter. */
static bool same_tensor(const struct module *m, const struct cfs_node *node,
			uint32_t *param_out)
{
	struct cfs_torch_tensor a, b;

	if (cfs_torch_tensor_get(node, &a) < 0 || !a.numel)
		return false;
	for (uint32_t i = 0; i < cfs_map_node_count(m->src); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(m->src, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name || value == node ||
		    cfs_torch_tensor_get(value, &b) < 0 ||
		    a.storage != b.storage ||
		    a.storage_offset != b.storage_offset || a.numel != b.numel)
			continue;
		if (cfs_catalogue_find(m->out->cat, name, param_out) == 0)
			return true;
	}
	return false;
}

/* Which parameter an entry of the module is (also under another name)? */
static bool param_of(const struct module *m, const char *name,
		     const struct cfs_node *value, uint32_t *param_out)
{
	const char *shared;

	if (cfs_catalogue_find(m->out->cat, name, param_out) == 0)
		return true;
	shared = shared_with(m, name);
	if (shared && cfs_catalogue_find(m->out->cat, shared, param_out) == 0)
		return true;
	return !is_buffer(m, name) && same_tensor(m, value, param_out);
}

/* A whole parameter from a stage 3 source: once, however often it is named. */
static int whole_weight(struct module *m, uint32_t param, enum cfs_dtype dtype,
			struct cfs_node **node_out)
{
	struct cfs_ds_out *out = m->out;
	const struct cfs_param *p = cfs_catalogue_param(out->cat, param);
	bool real = cfs_catalogue_has(out->cat, param, CFS_ROLE_WEIGHT);
	uint32_t role = real ? CFS_ROLE_WEIGHT : CFS_ROLE_MASTER;
	_cleanup_(cfs_map_unrefp) struct cfs_map *src = cfs_ds_out_map(out);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_ds_out_map(out);
	int r;

	if (m->weight[param]) {
		/* another tensor over the same storage */
		*node_out = cfs_node_copy(out->doc, m->weight[param]);
		return *node_out ? 0 : -ENOMEM;
	}
	if (!src || !map)
		return -ENOMEM;
	r = cfs_catalogue_append(out->cat, param, role, 0, p->numel, src);
	if (r >= 0)
		r = cfs_map_add_cast(map, src,
				     cfs_catalogue_dtype(out->cat, param, role),
				     dtype);
	if (r < 0)
		return cfs_fail_prefix(out->err, r, "weight of %s", p->name);
	m->weight[param] = cfs_ds_out_tensor(out, cfs_steal(map), dtype,
					     p->ndim, p->shape, false);
	*node_out = m->weight[param];
	return *node_out ? 0 : -ENOMEM;
}

/*
 * Tensors of their own over one empty storage: nobody writes to it, and ten
 * thousand empty records would be most of the file.  Up to 0.5.9 they had one
 * element, which today's loader refuses.
 */
static int placeholder(struct module *m, enum cfs_dtype dtype,
		       struct cfs_node **node_out)
{
	if (!m->empty || m->empty_dtype != dtype) {
		m->empty = cfs_ds_out_tensor(m->out, cfs_ds_out_map(m->out),
					     dtype, 0, NULL, false);
		m->empty_dtype = dtype;
		*node_out = m->empty;
	} else {
		*node_out = cfs_node_copy(m->out->doc, m->empty);
	}
	return *node_out ? 0 : -ENOMEM;
}

/* What stage 3 has in the place of something that is not known is no weight. */
static bool is_placeholder(const struct module *m,
			   const struct cfs_torch_tensor *t, const char *name)
{
	if (m->out->step->base.topology.zero_stage != 3 || is_buffer(m, name))
		return false;
	/* up to 0.5.9 they had one element; and before 0.4.2 buffers were not
	 * listed */
	return t->numel <= 1 || cfs_node_get(m->root, "buffer_names");
}

/* A tensor that is no parameter can be a buffer. */
static int check_other(const struct module *m, const struct cfs_torch_tensor *t,
		       const char *name)
{
	if (m->out->topo->zero_stage == 3 || !is_placeholder(m, t, name))
		return 0;
	return cfs_fail(m->out->err, -ENOTSUP,
			"%s is not whole in the stage 3 module, and neither a "
			"known parameter nor a buffer",
			name);
}

static int convert_entry(struct module *m, const char *name,
			 struct cfs_node **slot)
{
	struct cfs_torch_tensor t;
	uint32_t param;

	if (cfs_torch_tensor_get(*slot, &t) < 0)
		return 0; /* extra state of a module: carried */
	if (!param_of(m, name, *slot, &param))
		return is_filled(m->out)
			       ? cfs_ds_template_buffer(m->out, name, slot)
			       : check_other(m, &t, name);
	if (m->out->topo->zero_stage < 3)
		return whole_weight(m, param, t.dtype, slot);
	return placeholder(m, t.dtype, slot);
}

/* In a fresh copy, values are changed in place: 10,000 look-ups by name would
 * take long. */
static int convert_module(struct module *m, struct cfs_node **module_out)
{
	struct cfs_node *copy = cfs_node_copy(m->out->doc, m->src);
	bool dict = copy && copy->kind == CFS_NODE_DICT;
	uint32_t n = !copy ? 0 : dict ? copy->n : copy->u.object->n_ops;

	for (uint32_t i = 0; i < n; i++) {
		struct cfs_node_op *op = dict ? NULL : &copy->u.object->ops[i];
		struct cfs_node **slot =
			dict ? &copy->u.items[2 * i + 1] : &op->b;
		const char *name =
			cfs_node_as_str(dict ? copy->u.items[2 * i] : op->a);
		int r;

		if (!name || (op && op->kind != CFS_OP_SETITEM))
			continue;
		r = convert_entry(m, name, slot);
		if (r < 0)
			return r;
	}
	*module_out = copy;
	return copy ? 0 : -ENOMEM;
}

static void find_entries(struct module *m)
{
	for (uint32_t i = 0; i < cfs_map_node_count(m->src); i++) {
		struct cfs_node *key, *value;
		const char *name;
		uint32_t param;

		cfs_map_node_pair(m->src, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name && cfs_catalogue_find(m->out->cat, name, &param) == 0)
			m->entry[param] = value;
	}
}

/* frozen_param_fragments of one parameter: whole, or this rank's part. */
static int frozen_fragment(struct module *m, uint32_t param,
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
		return whole_weight(m, param, dtype, node_out);
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
static int replace_frozen(struct module *m, struct cfs_node *root)
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
static struct cfs_node *shared_params(struct module *m)
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
		if (name && !is_buffer(m, name) &&
		    cfs_catalogue_find(m->out->cat, name, &param) == -ENOENT &&
		    same_tensor(m, value, &param))
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
static int replace_optimizer(struct module *m, struct cfs_node *root)
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
static int replace_layout(struct module *m, struct cfs_node *root)
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
	struct module m = {.out = out,
			   .root = source,
			   .src = cfs_node_get(source, "module"),
			   .entry = nodes,
			   .weight = nodes ? nodes + n : NULL};
	int r;

	if (!root || !nodes)
		return -ENOMEM;
	if (out->step->remodel && !is_filled(out)) {
		r = replace_module(out, root);
		if (r < 0)
			return r;
		m.src = cfs_node_get(root, "module");
		r = cfs_ds_write_client(out, root);
		if (r < 0)
			return r;
	}
	find_entries(&m);
	/* a template's pipeline has its weights in layer files */
	if (to3 || (is_filled(out) ? cfs_node_is_map(m.src)
				   : from3 && !out->step->remodel)) {
		struct cfs_node *module;

		if (!cfs_node_is_map(m.src))
			return cfs_fail(out->err, -ENOTSUP,
					"the weights lie in layer files, which "
					"stage 3 does not have");
		r = convert_module(&m, &module);
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

int cfs_ds_model_possible(const struct cfs_ds_step *step, uint32_t mp,
			  const struct cfs_topology *topo,
			  struct cfs_error *err)
{
	struct cfs_ds_out out = {.step = step,
				 .topo = topo,
				 .rank = &step->ranks[mp],
				 .cat = step->base.ranks[mp].catalogue,
				 .mp = mp,
				 .err = err};
	struct module m = {.out = &out,
			   .root = out.rank->model_root,
			   .src = cfs_node_get(out.rank->model_root, "module")};

	/* of a step made of another one every entry is looked at as it is made
	 */
	if (step->base.topology.zero_stage != 3 || topo->zero_stage == 3 ||
	    step->remodel)
		return 0;
	if (!cfs_node_is_map(m.src))
		return cfs_fail(err, -ENOTSUP,
				"%s: the model states have no module",
				step->base.path);
	for (uint32_t i = 0; i < cfs_map_node_count(m.src); i++) {
		struct cfs_node *key, *value;
		struct cfs_torch_tensor t;
		const char *name;
		uint32_t param;
		int r;

		cfs_map_node_pair(m.src, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name || cfs_torch_tensor_get(value, &t) < 0 ||
		    param_of(&m, name, value, &param))
			continue;
		r = check_other(&m, &t, name);
		if (r < 0)
			return r;
	}
	return 0;
}
