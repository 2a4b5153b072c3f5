/*
 * The module of a model without pipeline, for other tensor-parallel ranks: the
 * source's, entry by entry in its order.  Parameters keep their names, also
 * those of no layer; what is no parameter goes by a rule, or is the same on all
 * ranks.
 */
#include "fs/format/deepspeed/write_module.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/remodel.h"
#include "fs/format/deepspeed/replicas.h"
#include "store/util/error.h"

/* Source rank @t's module. */
static struct cfs_node *module_of(const struct cfs_ds_step *step, uint32_t t)
{
	const struct cfs_ds_step *from = step->remodel->from;

	return cfs_node_get(from->ranks[t].model_root, "module");
}

bool cfs_ds_keeps_module(const struct cfs_ds_step *step)
{
	const struct cfs_ds_remodel *rm = step->remodel;

	return rm && !rm->like && !rm->pp && !rm->model.pipeline &&
	       !rm->from->only_masters;
}

/* Are all parameters of rank @mp in @module? */
static int check_complete(const struct cfs_ds_step *step, uint32_t mp,
			  const struct cfs_node *module, struct cfs_error *err)
{
	const struct cfs_catalogue *cat = step->base.ranks[mp].catalogue;

	for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
		const char *name = cfs_catalogue_param(cat, i)->name;

		if (!cfs_node_get(module, name))
			return cfs_fail(err, -ENOTSUP,
					"parameter %s: the module in the model "
					"states has no weight of that name",
					name);
	}
	return 0;
}

static int tensor_map(const struct cfs_ds_step *step,
		      const struct cfs_torch_tensor *t,
		      struct cfs_map **map_out, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(step->base.files);
	const uint32_t size = cfs_dtype_size(t->dtype);
	uint32_t row;
	struct cfs_file *file;
	uint64_t off;
	int r;

	if (!map)
		return -ENOMEM;
	if (t->numel) {
		row = cfs_torchfile_index(t->storage->file);
		r = cfs_ds_open(&step->base, row, &file, err);
		if (r < 0)
			return r;
		r = cfs_torch_storage_extent(t->storage, file, &off, err);
		cfs_filepool_put(step->base.pool, file);
		if (!r)
			r = cfs_map_add_range(map, row,
					      off + t->storage_offset * size,
					      t->numel * size);
		if (r < 0)
			return r;
	}
	*map_out = cfs_steal(map);
	return 0;
}

static bool in_order(const struct cfs_torch_tensor *t)
{
	return t->contiguous && (!t->numel || (t->storage && t->storage->file));
}

static int same_tensor(const struct cfs_ds_step *step,
		       const struct cfs_torch_tensor *a,
		       const struct cfs_torch_tensor *b, bool *same_out,
		       struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *x = NULL, *y = NULL;
	int r;

	*same_out = false;
	if (!in_order(a) || !in_order(b) || a->dtype != b->dtype ||
	    a->ndim != b->ndim ||
	    memcmp(a->shape, b->shape, a->ndim * sizeof(*a->shape)) != 0)
		return 0;
	r = tensor_map(step, a, &x, err);
	if (!r)
		r = tensor_map(step, b, &y, err);
	return r ? r : cfs_ds_same_bytes(step, x, y, same_out, err);
}

/* What is no parameter: by a rule, or as rank 0 has it. */
static int check_entry(const struct cfs_ds_module *m, uint32_t t,
		       const char *name, const struct cfs_node *value,
		       struct cfs_error *err)
{
	const struct cfs_ds_step *step = m->out->step;
	const struct cfs_node *first = cfs_node_get(module_of(step, 0), name);
	struct cfs_torch_tensor a, b;
	bool tensor = !cfs_torch_tensor_get(value, &a), same;
	uint32_t param;
	int r;

	if (tensor && (cfs_ds_module_param(m, name, value, &param) ||
		       cfs_ds_buffer_rule(step, name)))
		return 0;
	if (!tensor || cfs_torch_tensor_get(first, &b)) {
		same = first && cfs_node_equal(value, first);
	} else {
		r = same_tensor(step, &a, &b, &same, err);
		if (r < 0)
			return r;
	}
	return same ? 0
		    : cfs_fail(err, -ENOTSUP,
			       "%s in the module is no parameter, and tensor-"
			       "parallel ranks 0 and %u do not have the same: "
			       "no rule says how they share it (view add "
			       "--rules)",
			       name, t);
}

static int check_module(const struct cfs_ds_step *step, uint32_t mp, uint32_t t,
			struct cfs_error *err)
{
	struct cfs_ds_out out = {.step = step,
				 .rank = &step->ranks[mp],
				 .cat = step->base.ranks[mp].catalogue,
				 .mp = mp,
				 .err = err};
	const struct cfs_ds_module m = {
		.out = &out,
		.root = step->remodel->from->ranks[t].model_root,
		.src = module_of(step, t)};
	const uint32_t tp = step->remodel->from->base.topology.tp;
	int r;

	if (!cfs_node_is_map(m.src))
		return cfs_fail(err, -ENOTSUP,
				"%s: the model states have no module",
				step->base.path);
	r = check_complete(step, mp, m.src, err);
	for (uint32_t i = 0; !r && i < cfs_map_node_count(m.src); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(m.src, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name && t && step->remodel->tp != tp)
			r = check_entry(&m, t, name, value, err);
	}
	if (!r && step->remodel->tp != tp &&
	    cfs_map_node_count(m.src) != cfs_map_node_count(module_of(step, 0)))
		r = cfs_fail(err, -ENOTSUP,
			     "the modules of tensor-parallel ranks 0 and %u "
			     "have not the same entries",
			     t);
	return r;
}

/* Between all calls each rank of the source is looked at once. */
int cfs_ds_module_possible(const struct cfs_ds_step *step, uint32_t mp,
			   struct cfs_error *err)
{
	const uint32_t tp = step->remodel->from->base.topology.tp;
	int r = 0;

	for (uint32_t t = mp; !r && t < tp; t += step->remodel->tp)
		r = check_module(step, mp, t, err);
	return r;
}

static int add_entry(struct cfs_ds_module *m, const char *name,
		     struct cfs_node *value, struct cfs_node *map)
{
	const struct cfs_ds_step *step = m->out->step;
	const uint32_t tp = step->remodel->from->base.topology.tp;
	struct cfs_torch_tensor t;
	uint32_t param;
	int r = 0;

	if (cfs_torch_tensor_get(value, &t) < 0)
		r = 0; /* all have it: it was looked at */
	else if (cfs_ds_module_param(m, name, value, &param))
		r = cfs_ds_module_weight(m, param, t.dtype, &value);
	else if (step->remodel->tp != tp && cfs_ds_buffer_rule(step, name))
		r = cfs_ds_cut_buffer(m->out, CFS_DS_NO_LAYER, name, &t,
				      m->out->mp % m->out->topo->tp, &value);
	if (!r)
		cfs_node_set_str(m->out->doc, map, name, value);
	return r;
}

int cfs_ds_write_module(struct cfs_ds_out *out, struct cfs_node *map)
{
	const struct cfs_ds_step *from = out->step->remodel->from;
	const uint32_t t = out->mp % out->topo->tp % from->base.topology.tp;
	uint32_t n = cfs_catalogue_params(out->cat);
	_cleanup_(cfs_freep) struct cfs_node **weights =
		calloc((size_t)n + 1, sizeof(struct cfs_node *));
	struct cfs_ds_module m = {.out = out,
				  .root = from->ranks[t].model_root,
				  .src = module_of(out->step, t),
				  .weight = weights};
	int r = 0;

	if (!weights)
		return -ENOMEM;
	for (uint32_t i = 0; !r && i < cfs_map_node_count(m.src); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(m.src, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name)
			r = add_entry(&m, name, value, map);
	}
	return r ? r : check_complete(out->step, out->mp, map, out->err);
}
