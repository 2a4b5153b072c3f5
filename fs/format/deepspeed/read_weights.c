/* What the model computes with: the `module` of model states, and parameters
 * the optimizer does not own. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/log.h"
#include "store/util/parallel.h"

bool cfs_ds_is_buffer(const struct cfs_node *model_root, const char *name)
{
	const struct cfs_node *names = cfs_node_get(model_root, "buffer_names");
	uint32_t n = cfs_seq_node_count(names);

	for (uint32_t i = 0; i < n; i++) {
		const char *s = cfs_node_as_str(cfs_seq_node_item(names, i));

		if (s && !strcmp(s, name))
			return true;
	}
	return false;
}

int cfs_ds_add_tensor(struct cfs_ds_step *step, uint32_t mp, uint32_t param,
		      uint32_t role, const struct cfs_torch_tensor *tensor,
		      uint32_t row, struct cfs_file *file,
		      struct cfs_error *err)
{
	struct cfs_catalogue *cat = step->base.ranks[mp].catalogue;
	uint32_t size = cfs_dtype_size(tensor->dtype);
	struct cfs_extent e = {.count = tensor->numel, .file = row};
	int r;

	r = cfs_catalogue_set_dtype(cat, param, role, tensor->dtype);
	if (r < 0 || !tensor->numel)
		return r;
	r = cfs_torch_storage_extent(tensor->storage, file, &e.offset, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s of %s",
				       cfs_catalogue_role_name(cat, role),
				       cfs_catalogue_param(cat, param)->name);
	e.offset += tensor->storage_offset * size;
	return cfs_catalogue_add_extent(cat, param, role, &e);
}

struct weights {
	struct cfs_ds_step *step;
	uint32_t mp;
	struct cfs_ds_rank *rank;
	struct cfs_catalogue *cat;
	struct cfs_node_index *module;
	struct cfs_file *file; /* model[0] */
	struct cfs_error *err;
};

static bool same_shape(const struct cfs_param *p,
		       const struct cfs_torch_tensor *t)
{
	return p->ndim == t->ndim &&
	       !memcmp(p->shape, t->shape, p->ndim * sizeof(*p->shape));
}

/* @name in `module`, as a tensor of a type that can be carried. */
static int get_tensor(const struct weights *w, const char *name,
		      struct cfs_torch_tensor *t)
{
	int r = cfs_torch_tensor_get(cfs_node_index_get(w->module, name), t);

	if (r == -ENOENT)
		return cfs_fail(w->err, -EINVAL, "module has no %s", name);
	if (r < 0 || !cfs_dtype_size(t->dtype))
		return cfs_fail(w->err, r < 0 ? r : -ENOTSUP,
				"%s: not a plain tensor", name);
	return 0;
}

/* ---- trainable parameters ---- */

/* Stage 3 keeps a placeholder: it tells the type the model computes in. */
static int add_placeholder(const struct weights *w, uint32_t i)
{
	struct cfs_torch_tensor t;
	int r = get_tensor(w, cfs_catalogue_param(w->cat, i)->name, &t);

	if (r < 0)
		return r;
	return cfs_catalogue_set_dtype(w->cat, i, CFS_ROLE_WEIGHT, t.dtype);
}

static int add_trainable(const struct weights *w, uint32_t i)
{
	const struct cfs_param *p = cfs_catalogue_param(w->cat, i);
	struct cfs_torch_tensor t;
	int r = get_tensor(w, p->name, &t);

	if (r < 0)
		return r;
	if (!same_shape(p, &t))
		return cfs_fail(w->err, -EINVAL,
				"%s has another shape in module than in "
				"param_shapes",
				p->name);
	if (!t.contiguous || (!t.storage && t.numel))
		return cfs_fail(w->err, -ENOTSUP,
				"%s: its elements do not lie in order",
				p->name);
	return cfs_ds_add_tensor(w->step, w->mp, i, CFS_ROLE_WEIGHT, &t,
				 w->rank->model[0].index, w->file, w->err);
}

/* Pipeline: the weights are in layer files, read before; a tied one may not
 * have been found. */
static int add_untold(const struct weights *w, uint32_t i)
{
	if (cfs_catalogue_dtype(w->cat, i, CFS_ROLE_WEIGHT))
		return 0;
	return cfs_catalogue_set_dtype(w->cat, i, CFS_ROLE_WEIGHT,
				       w->step->base.dtype);
}

static int add_trainables(const struct weights *w)
{
	bool zero3 = w->step->base.topology.optimizer == CFS_OPT_ZERO3;
	const struct cfs_node *module =
		cfs_node_get(w->rank->model_root, "module");
	uint32_t n = cfs_catalogue_params(w->cat);

	for (uint32_t i = 0; i < n; i++) {
		int r = !cfs_node_is_map(module) ? add_untold(w, i)
			: zero3			 ? add_placeholder(w, i)
						 : add_trainable(w, i);

		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- frozen parameters, stages 0 to 2 ---- */

struct alias_key {
	const struct cfs_torch_storage *storage;
	uint64_t offset, numel;
};

static int key_cmp(const void *a, const void *b)
{
	const struct alias_key *x = a, *y = b;

	if (x->storage != y->storage)
		return (uintptr_t)x->storage < (uintptr_t)y->storage ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->numel < y->numel ? -1 : x->numel > y->numel;
}

/* Where the trainable parameters lie: who lies there too is an alias. */
static struct alias_key *trainable_keys(const struct weights *w, uint32_t n)
{
	struct alias_key *keys = calloc((size_t)n + 1, sizeof(*keys));

	for (uint32_t i = 0; keys && i < n; i++) {
		const char *name = cfs_catalogue_param(w->cat, i)->name;
		struct cfs_torch_tensor t;

		if (!cfs_torch_tensor_get(cfs_node_index_get(w->module, name),
					  &t))
			keys[i] = (struct alias_key){t.storage,
						     t.storage_offset, t.numel};
	}
	if (keys && n)
		qsort(keys, n, sizeof(*keys), key_cmp);
	return keys;
}

static int add_frozen(const struct weights *w, const char *name,
		      const struct cfs_torch_tensor *t)
{
	uint32_t i;
	int r = cfs_catalogue_add_param(w->cat, name, t->ndim, t->shape,
					CFS_GROUP_FROZEN, &i);

	if (r < 0)
		return r == -EEXIST ? 0 : r; /* one name twice */
	if (!t->contiguous || (!t->storage && t->numel)) {
		cfs_log(CFS_LOG_WARN,
			"%s: frozen %s does not lie in order and can only be "
			"passed through",
			w->rank->model[0].name, name);
		return 0;
	}
	return cfs_ds_add_tensor(w->step, w->mp, i, CFS_ROLE_WEIGHT, t,
				 w->rank->model[0].index, w->file, w->err);
}

/* What is neither trained, nor a buffer, nor another name of a parameter. */
static int add_frozens(const struct weights *w)
{
	const struct cfs_node *root = w->rank->model_root;
	const struct cfs_node *module = cfs_node_get(root, "module");
	const struct cfs_node *shared = cfs_node_get(root, "shared_params");
	_cleanup_(cfs_freep) struct alias_key *keys = NULL;
	uint32_t n = cfs_catalogue_params(w->cat);

	if (!cfs_node_is_seq(cfs_node_get(root, "buffer_names")))
		return 0; /* before 0.4.2 nothing tells buffers apart */
	keys = trainable_keys(w, n);
	if (!keys)
		return -ENOMEM;
	for (uint32_t i = 0; i < cfs_map_node_count(module); i++) {
		struct cfs_node *key, *value;
		struct alias_key at;
		struct cfs_torch_tensor t;
		const char *name;
		uint32_t known;
		int r;

		cfs_map_node_pair(module, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name || cfs_torch_tensor_get(value, &t) < 0 ||
		    !cfs_dtype_size(t.dtype) ||
		    !cfs_catalogue_find(w->cat, name, &known) ||
		    cfs_ds_is_buffer(root, name) || cfs_node_get(shared, name))
			continue;
		at = (struct alias_key){t.storage, t.storage_offset, t.numel};
		if (t.numel && bsearch(&at, keys, n, sizeof(at), key_cmp))
			continue;
		r = add_frozen(w, name, &t);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- frozen parameters, stage 3: each rank keeps a slice ---- */

struct slices {
	const struct weights *w;
	uint32_t first, n;	    /* frozen parameters in the catalogue */
	struct cfs_extent *extents; /* [dp * n + i] */
	enum cfs_dtype *dtypes;	    /* the same */
};

static int read_slice(const struct slices *s, uint32_t dp, uint32_t i,
		      const struct cfs_node *fragments, struct cfs_file *file,
		      struct cfs_error *err)
{
	const struct cfs_param *p =
		cfs_catalogue_param(s->w->cat, s->first + i);
	uint64_t part = cfs_zero3_part(p->numel, s->w->rank->n_model);
	uint64_t from = CFS_MIN(part * dp, p->numel);
	struct cfs_extent *e = &s->extents[(size_t)dp * s->n + i];
	struct cfs_torch_tensor t;
	int r = cfs_torch_tensor_get(cfs_node_get(fragments, p->name), &t);

	if (r < 0 || !t.contiguous || t.numel != part ||
	    (t.numel && !t.storage) || !cfs_dtype_size(t.dtype))
		return cfs_fail(err, -EINVAL,
				"frozen_param_fragments: %s is not the %llu "
				"elements it should be",
				p->name, (unsigned long long)part);
	s->dtypes[(size_t)dp * s->n + i] = t.dtype;
	if (from == p->numel)
		return 0;
	e->start = from;
	e->count = CFS_MIN(part, p->numel - from);
	e->file = s->w->rank->model[dp].index;
	r = cfs_torch_storage_extent(t.storage, file, &e->offset, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "frozen %s", p->name);
	e->offset += t.storage_offset * cfs_dtype_size(t.dtype);
	return 0;
}

static int read_slices(void *arg, uint32_t dp, struct cfs_error *err)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *torch = NULL;
	const struct slices *s = arg;
	const struct cfs_step *step = &s->w->step->base;
	const struct cfs_ds_file *model = &s->w->rank->model[dp];
	const struct cfs_node *root = s->w->rank->model_root;
	struct cfs_file *file;
	int r;

	if (dp) {
		r = cfs_ds_parse(step, model, &torch, err);
		if (r < 0)
			return r;
		root = cfs_torchfile_root(torch);
	}
	r = cfs_ds_open(step, model->index, &file, err);
	if (r < 0)
		return r;
	for (uint32_t i = 0; !r && i < s->n; i++)
		r = read_slice(s, dp, i,
			       cfs_node_get(root, "frozen_param_fragments"),
			       file, err);
	cfs_filepool_put(step->pool, file);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", model->name) : 0;
}

static int add_slices(const struct slices *s)
{
	for (uint32_t dp = 0; dp < s->w->rank->n_model; dp++) {
		for (uint32_t i = 0; i < s->n; i++) {
			size_t at = (size_t)dp * s->n + i;
			int r = cfs_catalogue_set_dtype(s->w->cat, s->first + i,
							CFS_ROLE_WEIGHT,
							s->dtypes[at]);

			if (!r)
				r = cfs_catalogue_add_extent(
					s->w->cat, s->first + i,
					CFS_ROLE_WEIGHT, &s->extents[at]);
			if (r < 0)
				return cfs_fail(s->w->err, r,
						"%s: frozen_param_fragments "
						"differ in type",
						s->w->rank->model[dp].name);
		}
	}
	return 0;
}

static int add_zero3_frozens(const struct weights *w)
{
	const struct cfs_node *shapes =
		cfs_node_get(w->rank->model_root, "frozen_param_shapes");
	_cleanup_(cfs_freep) struct cfs_extent *extents = NULL;
	_cleanup_(cfs_freep) enum cfs_dtype *dtypes = NULL;
	struct slices s = {.w = w, .n = cfs_map_node_count(shapes)};
	size_t cells = (size_t)s.n * w->rank->n_model + 1;
	int r;

	if (!s.n)
		return 0;
	s.first = cfs_catalogue_params(w->cat);
	for (uint32_t i = 0; i < s.n; i++) {
		uint64_t shape[CFS_TENSOR_DIMS_MAX];
		struct cfs_node *key, *value;
		uint32_t ndim;

		cfs_map_node_pair(shapes, i, &key, &value);
		r = -EBADMSG;
		if (cfs_node_as_str(key) &&
		    cfs_node_as_shape(value, CFS_TENSOR_DIMS_MAX, &ndim, shape))
			r = cfs_catalogue_add_param(
				w->cat, cfs_node_as_str(key), ndim, shape,
				CFS_GROUP_FROZEN, NULL);
		if (r < 0)
			return cfs_fail(w->err, r == -EEXIST ? -EINVAL : r,
					"frozen_param_shapes cannot be read");
	}
	s.extents = extents = calloc(cells, sizeof(*extents));
	s.dtypes = dtypes = calloc(cells, sizeof(*dtypes));
	if (!extents || !dtypes)
		return -ENOMEM;
	r = cfs_parallel(w->rank->n_model, read_slices, &s, w->err);
	return r < 0 ? r : add_slices(&s);
}

int cfs_ds_weights_read(struct cfs_ds_step *step, uint32_t mp,
			struct cfs_error *err)
{
	_cleanup_(cfs_node_index_freep) struct cfs_node_index *module = NULL;
	struct weights w = {.step = step,
			    .mp = mp,
			    .rank = &step->ranks[mp],
			    .cat = step->base.ranks[mp].catalogue,
			    .err = err};
	int r;

	r = cfs_node_index_new(cfs_node_get(w.rank->model_root, "module"),
			       &module);
	if (r < 0)
		return r;
	w.module = module;
	r = cfs_ds_open(&step->base, w.rank->model[0].index, &w.file, err);
	if (r < 0)
		return r;
	r = add_trainables(&w);
	if (!r && step->base.topology.optimizer != CFS_OPT_ZERO3)
		r = add_frozens(&w);
	if (r < 0)
		r = cfs_fail_prefix(err, r, "%s", w.rank->model[0].name);
	else if (step->base.topology.optimizer == CFS_OPT_ZERO3)
		r = add_zero3_frozens(&w);
	cfs_filepool_put(step->base.pool, w.file);
	return r;
}
