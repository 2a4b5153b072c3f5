/*
 * The module in the model states, entry by entry.
 *
 *   source, target stage   module
 *   0-2 -> 0-2             as it is
 *   0-3 -> 3               empty placeholders; buffers as they are
 *   3 -> 0-2               rounded masters, whole frozen ones; buffers too
 */
#include "fs/format/deepspeed/write_module.h"
#include "fs/format/deepspeed/template.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"

bool cfs_ds_is_filled(const struct cfs_ds_out *out)
{
	return out->step->remodel && out->step->remodel->like;
}

bool cfs_ds_module_is_buffer(const struct cfs_ds_module *m, const char *name)
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
static const char *shared_with(const struct cfs_ds_module *m, const char *name)
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
bool cfs_ds_module_same(const struct cfs_ds_module *m,
			const struct cfs_node *node, uint32_t *param_out)
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

bool cfs_ds_module_param(const struct cfs_ds_module *m, const char *name,
			 const struct cfs_node *value, uint32_t *param_out)
{
	const char *shared;

	if (cfs_catalogue_find(m->out->cat, name, param_out) == 0)
		return true;
	shared = shared_with(m, name);
	if (shared && cfs_catalogue_find(m->out->cat, shared, param_out) == 0)
		return true;
	return !cfs_ds_module_is_buffer(m, name) &&
	       cfs_ds_module_same(m, value, param_out);
}

/* A whole parameter from a stage 3 source: once, however often it is named. */
int cfs_ds_module_weight(struct cfs_ds_module *m, uint32_t param,
			 enum cfs_dtype dtype, struct cfs_node **node_out)
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
static int placeholder(struct cfs_ds_module *m, enum cfs_dtype dtype,
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
static bool is_placeholder(const struct cfs_ds_module *m,
			   const struct cfs_torch_tensor *t, const char *name)
{
	if (m->out->step->base.topology.zero_stage != 3 ||
	    cfs_ds_module_is_buffer(m, name))
		return false;
	/* up to 0.5.9 they had one element; and before 0.4.2 buffers were not
	 * listed */
	return t->numel <= 1 || cfs_node_get(m->root, "buffer_names");
}

/* A tensor that is no parameter can be a buffer. */
static int check_other(const struct cfs_ds_module *m,
		       const struct cfs_torch_tensor *t, const char *name)
{
	if (m->out->topo->zero_stage == 3 || !is_placeholder(m, t, name))
		return 0;
	return cfs_fail(m->out->err, -ENOTSUP,
			"%s is not whole in the stage 3 module, and neither a "
			"known parameter nor a buffer",
			name);
}

static int convert_entry(struct cfs_ds_module *m, const char *name,
			 struct cfs_node **slot)
{
	struct cfs_torch_tensor t;
	uint32_t param;

	if (cfs_torch_tensor_get(*slot, &t) < 0)
		return 0; /* extra state of a module: carried */
	if (!cfs_ds_module_param(m, name, *slot, &param))
		return cfs_ds_is_filled(m->out)
			       ? cfs_ds_template_buffer(m->out, name, slot)
			       : check_other(m, &t, name);
	if (m->out->topo->zero_stage < 3)
		return cfs_ds_module_weight(m, param, t.dtype, slot);
	return placeholder(m, t.dtype, slot);
}

/* In a fresh copy, values are changed in place: 10,000 look-ups by name would
 * take long. */
int cfs_ds_module_convert(struct cfs_ds_module *m, struct cfs_node **module_out)
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

void cfs_ds_module_entries(struct cfs_ds_module *m)
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
	struct cfs_ds_module m = {
		.out = &out,
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
		    cfs_ds_module_param(&m, name, value, &param))
			continue;
		r = check_other(&m, &t, name);
		if (r < 0)
			return r;
	}
	return 0;
}
