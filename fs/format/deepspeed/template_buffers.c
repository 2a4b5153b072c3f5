/*
 * What a template has besides parameters: running statistics, a stage's copies
 * of what is tied.  Training made them, so they are the step's as well.
 */
#include "fs/format/deepspeed/template.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/write.h"
#include "fs/format/deepspeed/write_module.h"
#include "store/util/error.h"

/* What a model computes from its configuration, in the type it computes in:
 * kept in the template's. */
bool cfs_ds_template_is_constant(const char *name)
{
	static const char *const last[] = {
		"inv_freq",
		"original_inv_freq",
		"slopes",
	};
	const char *dot = strrchr(name, '.');

	name = dot ? dot + 1 : name;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(last); i++)
		if (!strcmp(last[i], name))
			return true;
	return false;
}

/* ---- one of them ---- */

/* The step's tensor called @name, of rank @t of the template; -ENOENT. */
static int find_buffer(struct cfs_ds_out *out,
		       const struct cfs_ds_layer_name *name,
		       struct cfs_node **node)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	const struct cfs_ds_step *run = rm->from;
	bool prefixed = name->form == CFS_DS_FORM_PREFIXED;
	const struct cfs_node *module;

	if (run->only_masters)
		return -ENOENT;
	if (name->form != CFS_DS_FORM_PLAIN && !prefixed)
		return cfs_ds_layer_tensor(out, name->layer,
					   out->mp % run->base.topology.tp,
					   name->name, node);
	if (rm->tp != run->base.topology.tp)
		return -ENOENT;
	module = cfs_node_get(
		run->ranks[cfs_ds_template_rank(rm, out->mp)].model_root,
		"module");
	*node = cfs_node_get(module, prefixed ? name->key : name->name);
	return *node ? 0 : -ENOENT;
}

static bool same_shape(const struct cfs_torch_tensor *a,
		       const struct cfs_torch_tensor *b)
{
	return a->ndim == b->ndim &&
	       !memcmp(a->shape, b->shape, a->ndim * sizeof(a->shape[0]));
}

/* @node, which lies in a file of the step, in another type. */
static int cast(struct cfs_ds_out *out, const struct cfs_torch_tensor *t,
		enum cfs_dtype dtype, struct cfs_node **slot)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *src = cfs_ds_out_map(out);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_ds_out_map(out);
	uint64_t off, size = cfs_dtype_size(t->dtype);
	struct cfs_file *file;
	uint32_t row;
	int r;

	if (!src || !map)
		return -ENOMEM;
	row = cfs_torchfile_index(t->storage->file);
	r = cfs_ds_out_open(out, row, &file);
	if (!r)
		r = cfs_torch_storage_extent(t->storage, file, &off, out->err);
	if (!r)
		r = cfs_map_add_range(src, row, off + t->storage_offset * size,
				      t->numel * size);
	if (!r)
		r = cfs_map_add_cast(map, src, t->dtype, dtype);
	if (r < 0)
		return r;
	*slot = cfs_ds_out_tensor(out, cfs_steal(map), dtype, t->ndim, t->shape,
				  false);
	return *slot ? 0 : -ENOMEM;
}

static bool can_cast(const struct cfs_torch_tensor *t,
		     const struct cfs_torch_tensor *want)
{
	return cfs_dtype_is_float(t->dtype) &&
	       cfs_dtype_is_float(want->dtype) && t->contiguous && t->storage &&
	       t->storage->file;
}

static int take(struct cfs_ds_out *out, const struct cfs_ds_layer_name *name,
		const struct cfs_torch_tensor *want, struct cfs_node **slot,
		enum cfs_ds_verdict *verdict)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	bool constant = cfs_ds_template_is_constant(name->name);
	bool cut = rm->tp != rm->from->base.topology.tp;
	struct cfs_torch_tensor t;
	struct cfs_node *node;
	int r = find_buffer(out, name, &node);

	*verdict = CFS_DS_MISSING;
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	*verdict = CFS_DS_SHAPED;
	if (cfs_torch_tensor_get(node, &t) < 0 ||
	    (t.dtype != want->dtype && (constant || !can_cast(&t, want))))
		return 0;
	if (cut) {
		r = cfs_ds_cut_buffer(out, name->layer, name->name, &t,
				      out->mp % rm->tp, &node);
		if (!r)
			r = cfs_torch_tensor_get(node, &t);
		if (r < 0)
			return r;
	}
	if (!same_shape(&t, want) || (cut && t.dtype != want->dtype))
		return 0;
	*verdict = CFS_DS_TAKEN;
	if (t.dtype != want->dtype)
		return cast(out, &t, want->dtype, slot);
	*slot = node;
	return 0;
}

int cfs_ds_template_take(struct cfs_ds_out *out,
			 const struct cfs_ds_layer_name *name,
			 const struct cfs_torch_tensor *want,
			 struct cfs_node **slot, enum cfs_ds_verdict *verdict)
{
	enum cfs_ds_verdict ignored;

	return take(out, name, want, slot, verdict ? verdict : &ignored);
}

int cfs_ds_template_buffer(struct cfs_ds_out *out, const char *name,
			   struct cfs_node **slot)
{
	const struct cfs_ds_layer_name n = cfs_ds_layer_parse(name);
	struct cfs_torch_tensor want;

	if (cfs_torch_tensor_get(*slot, &want) < 0)
		return 0;
	return cfs_ds_template_take(out, &n, &want, slot, NULL);
}

/* ---- all of them, at planning ---- */

struct walk {
	struct cfs_ds_out out;
	cfs_ds_buffer_fn *each;
	void *arg;
	bool run; /* the step's, not the template's */
};

static int walk_begin(struct walk *w, const struct cfs_ds_step *made,
		      struct cfs_error *err)
{
	w->out.step = made;
	w->out.topo = &made->base.topology;
	w->out.err = err;
	w->out.open = calloc((size_t)cfs_filetab_count(made->base.files) + 1,
			     sizeof(*w->out.open));
	w->out.w = cfs_torch_writer_new(made->base.files, "plan");
	if (!w->out.open || !w->out.w)
		return -ENOMEM;
	w->out.doc = cfs_torch_writer_doc(w->out.w);
	return 0;
}

static void walk_end(struct walk *w)
{
	const struct cfs_step *made = &w->out.step->base;
	uint32_t n = cfs_filetab_count(made->files);

	cfs_torch_writer_free(w->out.w);
	for (uint32_t i = 0; i < w->out.n_parsed; i++)
		cfs_torchfile_free(w->out.parsed[i]);
	free(w->out.parsed);
	for (uint32_t i = 0; w->out.open && i < n; i++)
		if (w->out.open[i])
			cfs_filepool_put(made->pool, w->out.open[i]);
	free(w->out.open);
}

/* Goes into rank @mp of the step or of the template. */
static void walk_rank(struct walk *w, uint32_t mp)
{
	const struct cfs_ds_remodel *rm = w->out.step->remodel;
	const struct cfs_ds_step *of = w->run ? rm->from : rm->like;

	w->out.mp = mp;
	w->out.rank = &of->ranks[mp];
	w->out.cat = of->base.ranks[mp].catalogue;
}

static int meet(struct walk *w, const struct cfs_ds_layer_name *name,
		const char *full, bool param, struct cfs_node *value)
{
	enum cfs_ds_verdict verdict = CFS_DS_TAKEN;
	struct cfs_torch_tensor t;
	int r;

	if (cfs_torch_tensor_get(value, &t) < 0 || (w->run && param))
		return 0;
	if (!w->run && !param && !cfs_ds_template_is_constant(full)) {
		r = cfs_ds_template_take(&w->out, name, &t, &value, &verdict);
		if (r < 0)
			return r;
	}
	return w->each(w->arg, name, full, verdict);
}

/* What stage 3 has in the place of a weight. */
static bool is_placeholder(const struct cfs_ds_module *m, const char *name,
			   const struct cfs_node *value, uint32_t stage)
{
	struct cfs_torch_tensor t;

	return stage == 3 && !cfs_ds_module_is_buffer(m, name) &&
	       (cfs_node_get(m->root, "buffer_names") ||
		(!cfs_torch_tensor_get(value, &t) && t.numel <= 1));
}

static int walk_module(struct walk *w, uint32_t stage)
{
	struct cfs_ds_module m = {.out = &w->out,
				  .root = w->out.rank->model_root};
	int r = 0;

	m.src = cfs_node_get(m.root, "module");
	for (uint32_t i = 0; !r && i < cfs_map_node_count(m.src); i++) {
		struct cfs_ds_layer_name n;
		struct cfs_node *key, *value;
		const char *name;
		uint32_t ignored;

		cfs_map_node_pair(m.src, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name)
			continue;
		n = cfs_ds_layer_parse(name);
		r = meet(w, &n, name,
			 cfs_ds_module_param(&m, name, value, &ignored) ||
				 is_placeholder(&m, name, value, stage),
			 value);
	}
	return r;
}

static int walk_layer(struct walk *w, uint32_t row, uint32_t layer)
{
	const struct cfs_node *map;
	int r = cfs_ds_out_parse(&w->out, row, &map);

	for (uint32_t i = 0; !r && i < cfs_map_node_count(map); i++) {
		struct cfs_ds_layer_name n = {.form = CFS_DS_FORM_PIPELINE,
					      .layer = layer};
		struct cfs_node *key, *value;
		uint32_t ignored;
		char full[512];

		cfs_map_node_pair(map, i, &key, &value);
		n.name = cfs_node_as_str(key);
		if (!n.name)
			continue;
		r = cfs_ds_layer_format(&n, full, sizeof(full));
		if (!r)
			r = meet(w, &n, full,
				 cfs_ds_template_param(&w->out, layer, n.name,
						       &ignored),
				 value);
	}
	return r;
}

/* The first rank of each stage: names and shapes are the same on all. */
static int walk_all(struct walk *w)
{
	const struct cfs_ds_step *made = w->out.step;
	const struct cfs_ds_remodel *rm = made->remodel;
	const struct cfs_step *of = w->run ? &rm->from->base : &rm->like->base;
	uint32_t tp = of->topology.tp, n = cfs_filetab_count(of->files);
	int r = 0;

	for (uint32_t m = 0; !r && m < of->n_ranks; m += tp) {
		walk_rank(w, m);
		r = walk_module(w, of->topology.zero_stage);
	}
	for (uint32_t i = of->first_file; !r && i < n; i++) {
		const char *path = cfs_filetab_path(of->files, i);
		const char *slash = strrchr(path, '/');
		const struct cfs_ds_name at =
			cfs_ds_name_parse(slash ? slash + 1 : path);

		if (at.kind != CFS_DS_LAYER || at.mp)
			continue;
		walk_rank(w,
			  w->run ? 0 : cfs_ds_template_stage(made, at.dp) * tp);
		r = walk_layer(w, i, at.dp);
	}
	return r;
}

int cfs_ds_template_each(const struct cfs_ds_step *made, cfs_ds_buffer_fn *each,
			 void *arg, struct cfs_error *err)
{
	struct walk w = {.each = each, .arg = arg};
	int r = walk_begin(&w, made, err);

	if (!r)
		r = walk_all(&w);
	walk_end(&w);
	return r;
}

int cfs_ds_template_each_run(const struct cfs_ds_step *made,
			     cfs_ds_buffer_fn *each, void *arg,
			     struct cfs_error *err)
{
	struct walk w = {.each = each, .arg = arg, .run = true};
	int r = 0;

	if (made->remodel->from->only_masters)
		return 0;
	r = walk_begin(&w, made, err);
	if (!r)
		r = walk_all(&w);
	walk_end(&w);
	return r;
}
