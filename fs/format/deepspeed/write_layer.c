/*
 * Weights by layer, for a step made of another one: a pipeline's layer files,
 * or the module of layers in sequence.  What the source has of a layer is its
 * layer file, or the part of its module behind "sequential.N.".
 */
#include "fs/format/deepspeed/write.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/deepspeed/remodel.h"
#include "store/util/error.h"
#include "store/util/grow.h"

/* What one source rank has of one layer. */
struct layer {
	const struct cfs_node *map;
	const char *prefix; /* of names in it that count */
	char text[32];
};

/* ---- the source's layers ---- */

static const struct cfs_ds_step *source_of(const struct cfs_ds_out *out)
{
	return out->step->remodel->from;
}

int cfs_ds_out_parse(struct cfs_ds_out *out, uint32_t row,
		     const struct cfs_node **root)
{
	const char *path = cfs_filetab_path(out->step->base.files, row);
	const char *slash = strrchr(path, '/');
	_cleanup_(cfs_freep) char *name = strdup(slash ? slash + 1 : path);
	struct cfs_ds_file file = {.name = name, .index = row};
	int r;

	if (!name || !CFS_GROW(out->parsed, out->n_parsed, out->cap_parsed))
		return -ENOMEM;
	r = cfs_ds_parse(&out->step->base, &file, &out->parsed[out->n_parsed],
			 out->err);
	if (r < 0)
		return r;
	*root = cfs_torchfile_root(out->parsed[out->n_parsed++]);
	return 0;
}

static int open_layer(struct cfs_ds_out *out, uint32_t number, uint32_t t,
		      struct layer *l)
{
	const struct cfs_ds_step *from = source_of(out);
	uint32_t row;

	*l = (struct layer){.prefix = ""};
	if (!out->step->remodel->model.pipeline) {
		l->map = cfs_node_get(from->ranks[t].model_root, "module");
		if (!out->step->remodel->model.prefixed &&
		    number != CFS_DS_NO_LAYER)
			(void)snprintf(l->text, sizeof(l->text),
				       "sequential.%u.", number);
		l->prefix = l->text;
		return cfs_node_is_map(l->map) ? 0 : -EBADMSG;
	}
	if (!cfs_ds_find_layer(from, number, t, &row))
		return cfs_fail(out->err, -ENOTSUP,
				"layer %u has no file of rank %u", number, t);
	return cfs_ds_out_parse(out, row, &l->map);
}

/* ---- tensors ---- */

static int find_tensor(const struct layer *l, const char *name,
		       struct cfs_node **node_out)
{
	char full[512];

	if ((size_t)snprintf(full, sizeof(full), "%s%s", l->prefix, name) >=
	    sizeof(full))
		return -ENAMETOOLONG;
	*node_out = cfs_node_get(l->map, full);
	return *node_out ? 0 : -ENOENT;
}

int cfs_ds_layer_tensor(struct cfs_ds_out *out, uint32_t number, uint32_t t,
			const char *name, struct cfs_node **node_out)
{
	struct layer l;
	uint32_t row;
	int r;

	if (out->step->remodel->model.pipeline &&
	    !cfs_ds_find_layer(source_of(out), number, t, &row))
		return -ENOENT;
	r = open_layer(out, number, t, &l);
	return r < 0 ? r : find_tensor(&l, name, node_out);
}

struct buffers {
	struct cfs_ds_out *out;
	uint32_t layer;
	const char *name;
};

/* Source rank @t's copy of a buffer. */
static int append_buffer(void *arg, uint32_t t, struct cfs_map *map)
{
	const struct buffers *b = arg;
	struct cfs_torch_tensor tensor;
	struct cfs_node *node;
	struct cfs_file *file = NULL;
	struct layer l;
	uint64_t off = 0, size;
	int r = open_layer(b->out, b->layer, t, &l);

	if (!r)
		r = find_tensor(&l, b->name, &node);
	if (!r)
		r = cfs_torch_tensor_get(node, &tensor);
	if (!r && (!tensor.contiguous || !tensor.storage))
		r = -ENOTSUP;
	if (!r)
		r = cfs_ds_out_open(b->out,
				    cfs_torchfile_index(tensor.storage->file),
				    &file);
	if (!r)
		r = cfs_torch_storage_extent(tensor.storage, file, &off,
					     b->out->err);
	if (r)
		return r;
	size = cfs_dtype_size(tensor.dtype);
	return cfs_map_add_range(map, cfs_torchfile_index(tensor.storage->file),
				 off + tensor.storage_offset * size,
				 tensor.numel * size);
}

const struct cfs_rule *cfs_ds_buffer_rule(const struct cfs_ds_step *step,
					  const char *name)
{
	const struct cfs_ds_remodel *rm = step->remodel;
	const struct cfs_ds_layer_name n = cfs_ds_layer_parse(name);
	const struct cfs_rule *rule = cfs_rules_find(rm->options.rules, n.name);

	if (!rule && rm->model.family)
		rule = cfs_rules_find(rm->model.family->rules, n.name);
	return rule;
}

/* Where a buffer is, for messages. */
static int fail_buffer(struct cfs_ds_out *out, int r, uint32_t layer,
		       const char *name)
{
	return layer == CFS_DS_NO_LAYER
		       ? cfs_fail_prefix(out->err, r, "%s", name)
		       : cfs_fail_prefix(out->err, r, "layer %u: %s", layer,
					 name);
}

int cfs_ds_cut_buffer(struct cfs_ds_out *out, uint32_t layer, const char *name,
		      const struct cfs_torch_tensor *t, uint32_t tp_rank,
		      struct cfs_node **node_out)
{
	const struct cfs_ds_model *m = &out->step->remodel->model;
	const struct cfs_rule *rule = cfs_ds_buffer_rule(out->step, name);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_ds_out_map(out);
	struct buffers b = {out, layer, name};
	const struct cfs_tp_source source = {
		append_buffer, &b, m->step->base.topology.tp, t->dtype};
	struct cfs_tp_layout from, to;
	uint64_t shape[CFS_TP_DIMS_MAX];
	int r;

	if (!rule) {
		(void)cfs_fail(out->err, -ENOTSUP,
			       "no rule says how ranks share it");
		return fail_buffer(out, -ENOTSUP, layer, name);
	}
	r = cfs_rule_layout(rule, &m->facts, t->ndim, t->shape, source.tp,
			    out->topo->tp, &from, &to, out->err);
	if (!r)
		r = cfs_tp_local_shape(&to, out->topo->tp, shape);
	if (!r && !map)
		r = -ENOMEM;
	if (!r)
		r = cfs_tp_append(&from, &source, &to, out->topo->tp, tp_rank,
				  map);
	if (r < 0)
		return fail_buffer(out, r, layer, name);
	*node_out = cfs_ds_out_tensor(out, cfs_steal(map), t->dtype, to.ndim,
				      shape, false);
	return *node_out ? 0 : -ENOMEM;
}

int cfs_ds_write_weight(struct cfs_ds_out *out, uint32_t param,
			enum cfs_dtype dtype, struct cfs_node **node_out)
{
	const struct cfs_param *p = cfs_catalogue_param(out->cat, param);
	bool real = cfs_catalogue_has(out->cat, param, CFS_ROLE_WEIGHT);
	uint32_t role = real ? CFS_ROLE_WEIGHT : CFS_ROLE_MASTER;
	_cleanup_(cfs_map_unrefp) struct cfs_map *src = cfs_ds_out_map(out);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_ds_out_map(out);
	int r = src && map ? cfs_catalogue_append(out->cat, param, role, 0,
						  p->numel, src)
			   : -ENOMEM;

	if (!r)
		r = cfs_map_add_cast(map, src,
				     cfs_catalogue_dtype(out->cat, param, role),
				     dtype);
	if (r < 0)
		return cfs_fail_prefix(out->err, r, "weight of %s", p->name);
	*node_out = cfs_ds_out_tensor(out, cfs_steal(map), dtype, p->ndim,
				      p->shape, false);
	return *node_out ? 0 : -ENOMEM;
}

/* The parameter called @name in layer @number; tied ones are of the first. */
static bool find_param(const struct cfs_ds_out *out, uint32_t number,
		       const char *name, uint32_t *param_out)
{
	const struct cfs_ds_family *family = out->step->remodel->model.family;
	struct cfs_ds_layer_name n = {.form = out->topo->pipeline
						      ? CFS_DS_FORM_PIPELINE
						      : CFS_DS_FORM_SEQUENTIAL,
				      .layer = number,
				      .name = name};
	char full[512];

	if (out->step->remodel->model.prefixed)
		return !cfs_catalogue_find(out->cat, name, param_out);
	if (!cfs_ds_layer_format(&n, full, sizeof(full)) &&
	    !cfs_catalogue_find(out->cat, full, param_out))
		return true;
	if (!out->topo->pipeline || !family || !family->tied_key ||
	    number != family->embedding)
		return false;
	n.form = CFS_DS_FORM_TIED;
	n.key = family->tied_key;
	n.key_len = strlen(n.key);
	return !cfs_ds_layer_format(&n, full, sizeof(full)) &&
	       !cfs_catalogue_find(out->cat, full, param_out);
}

static int add_entry(struct cfs_ds_out *out, uint32_t number, uint32_t t,
		     const char *name, struct cfs_node *node,
		     const char *prefix, struct cfs_node *map)
{
	struct cfs_torch_tensor tensor;
	uint32_t param;
	char full[512];
	int r = 0;

	if ((size_t)snprintf(full, sizeof(full), "%s%s", prefix, name) >=
	    sizeof(full))
		return -ENAMETOOLONG;
	if (!cfs_torch_tensor_get(node, &tensor)) {
		if (find_param(out, number, name, &param))
			r = cfs_ds_write_weight(out, param, tensor.dtype,
						&node);
		else if (out->topo->tp != source_of(out)->base.topology.tp)
			r = cfs_ds_cut_buffer(out, number, name, &tensor, t,
					      &node);
	}
	if (!r)
		cfs_node_set_str(out->doc, map, full, node);
	return r;
}

/* There is no file to go by: what the stage's parameters are called. */
static int write_params(struct cfs_ds_out *out, uint32_t number,
			const char *prefix, struct cfs_node *map)
{
	const struct cfs_ds_family *family = out->step->remodel->model.family;
	int r = 0;

	for (uint32_t i = 0; !r && i < cfs_catalogue_params(out->cat); i++) {
		struct cfs_ds_layer_name n = cfs_ds_layer_parse(
			cfs_catalogue_param(out->cat, i)->name);
		struct cfs_node *node = NULL;
		char full[512];

		if (n.form == CFS_DS_FORM_PREFIXED)
			n.name = n.key; /* the whole */
		if (n.form == CFS_DS_FORM_TIED)
			n.layer = family ? family->embedding : 0;
		if (n.layer != number)
			continue;
		if ((size_t)snprintf(full, sizeof(full), "%s%s",
				     n.form == CFS_DS_FORM_PLAIN ? "" : prefix,
				     n.name) >= sizeof(full))
			return -ENAMETOOLONG;
		r = cfs_ds_write_weight(out, i, out->step->base.dtype, &node);
		if (!r)
			cfs_node_set_str(out->doc, map, full, node);
	}
	return r;
}

/* Are all parameters of the layer among what was added? */
static int check_layer(const struct cfs_ds_out *out, uint32_t number,
		       const char *prefix, const struct cfs_node *map)
{
	for (uint32_t i = 0; i < cfs_catalogue_params(out->cat); i++) {
		const char *name = cfs_catalogue_param(out->cat, i)->name;
		const struct cfs_ds_layer_name n = cfs_ds_layer_parse(name);
		char full[512];

		if (n.layer != number || (n.form != CFS_DS_FORM_PIPELINE &&
					  n.form != CFS_DS_FORM_SEQUENTIAL))
			continue;
		if ((size_t)snprintf(full, sizeof(full), "%s%s", prefix,
				     n.name) >= sizeof(full))
			return -ENAMETOOLONG;
		if (!cfs_node_get(map, full))
			return cfs_fail(out->err, -ENOTSUP,
					"parameter %s: what the step has of "
					"layer %u has no weight of that name",
					name, number);
	}
	return 0;
}

int cfs_ds_write_layer(struct cfs_ds_out *out, uint32_t number,
		       const char *prefix, struct cfs_node *map)
{
	uint32_t tp = source_of(out)->base.topology.tp;
	uint32_t t = out->mp % out->topo->tp;
	struct layer l;
	int r;

	if (source_of(out)->only_masters)
		return write_params(out, number, prefix, map);
	r = open_layer(out, number, t % tp, &l);
	for (uint32_t i = 0; !r && i < cfs_map_node_count(l.map); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(l.map, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name || strncmp(name, l.prefix, strlen(l.prefix)) != 0)
			continue;
		r = add_entry(out, number, t, name + strlen(l.prefix), value,
			      prefix, map);
	}
	return r ? r : check_layer(out, number, prefix, map);
}

/* torch's note of module versions (`_metadata`) is by the modules' names, which
 * stay.  Layer files have none. */
static void keep_notes(struct cfs_ds_out *out, struct cfs_node *map)
{
	const struct cfs_ds_step *from = source_of(out);
	const struct cfs_node *module =
		cfs_node_get(from->ranks[0].model_root, "module");

	if (from->base.topology.pipeline || from->only_masters || !module ||
	    module->kind != CFS_NODE_OBJECT)
		return;
	for (uint32_t i = 0; i < module->u.object->n_ops; i++)
		if (module->u.object->ops[i].kind == CFS_OP_BUILD)
			cfs_node_build(out->doc, map,
				       module->u.object->ops[i].a);
}

int cfs_ds_write_sequence(struct cfs_ds_out *out, struct cfs_node **module_out)
{
	struct cfs_node *map = cfs_node_ordereddict(out->doc);
	const struct cfs_ds_layers *layers = &out->step->remodel->layers;
	bool kept = cfs_ds_keeps_module(out->step);
	int r = map ? 0 : -ENOMEM;

	if (!r && kept)
		r = cfs_ds_write_module(out, map);
	for (uint32_t i = 0; !r && !kept && i < layers->n; i++) {
		char prefix[32] = "";

		if (!out->step->remodel->model.prefixed)
			(void)snprintf(prefix, sizeof(prefix), "sequential.%u.",
				       layers->v[i]);
		r = cfs_ds_write_layer(out, layers->v[i], prefix, map);
	}
	if (!r)
		keep_notes(out, map);
	*module_out = map;
	return r;
}
