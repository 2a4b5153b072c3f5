/*
 * Weights of pipelines: layer_LL… holds tensors by their name in the layer, a
 * parameter is called LL.name.  A tied one is called tied_modules.KEY.name and
 * lies in the file of the first layer that uses it, whose number nothing
 * tells; it is taken where only one tensor nobody else claims has its name and
 * shape.
 */
#include "fs/format/deepspeed/layer.h"
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/parallel.h"

/* A tied parameter and the tensors that could be its weight. */
struct tied {
	uint32_t mp, param;
	const char *name; /* behind tied_modules.KEY. */
	uint32_t n_found;
	struct cfs_extent extent; /* of the first found */
	enum cfs_dtype dtype;
};

struct layers {
	struct cfs_ds_step *step;
	uint32_t *rows; /* of the file table */
	uint32_t n_rows;
	pthread_mutex_t lock;
	struct tied *tied; /* guarded by lock, as are the catalogues */
	uint32_t n_tied;
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool same_shape(const struct cfs_param *p,
		       const struct cfs_torch_tensor *t)
{
	return p->ndim == t->ndim && p->numel == t->numel &&
	       !memcmp(p->shape, t->shape, p->ndim * sizeof(*p->shape));
}

/* One more tensor nobody claims: could it be a tied parameter's? */
static void note_tied(struct layers *l, uint32_t tp, const char *name,
		      const struct cfs_torch_tensor *t,
		      const struct cfs_extent *e)
{
	for (uint32_t i = 0; i < l->n_tied; i++) {
		struct tied *tied = &l->tied[i];
		const struct cfs_catalogue *cat =
			l->step->base.ranks[tied->mp].catalogue;

		if (tied->mp % l->step->base.topology.tp != tp ||
		    strcmp(tied->name, name) != 0 ||
		    !same_shape(cfs_catalogue_param(cat, tied->param), t))
			continue;
		if (!tied->n_found++) {
			tied->extent = *e;
			tied->dtype = t->dtype;
		}
	}
}

static int add_weight(struct cfs_catalogue *cat, uint32_t param,
		      enum cfs_dtype dtype, const struct cfs_extent *extent)
{
	int r = cfs_catalogue_set_dtype(cat, param, CFS_ROLE_WEIGHT, dtype);

	return r < 0 ? r
		     : cfs_catalogue_add_extent(cat, param, CFS_ROLE_WEIGHT,
						extent);
}

/* Tensor @name of layer @at: the weight of LL.name in the stages that have
 * it. */
static int claim(struct layers *l, const struct cfs_ds_name *at,
		 const char *name, const struct cfs_torch_tensor *t,
		 const struct cfs_extent *e, struct cfs_error *err)
{
	const struct cfs_step *step = &l->step->base;
	bool claimed = false;
	char full[512];

	if ((size_t)snprintf(full, sizeof(full), "%u.%s", at->dp, name) >=
	    sizeof(full))
		return 0;
	for (uint32_t m = at->mp; m < step->n_ranks; m += step->topology.tp) {
		struct cfs_catalogue *cat = step->ranks[m].catalogue;
		uint32_t i;
		int r;

		if (cfs_catalogue_find(cat, full, &i) < 0)
			continue;
		if (!same_shape(cfs_catalogue_param(cat, i), t))
			return cfs_fail(err, -EINVAL,
					"%s has another shape than in "
					"param_shapes",
					name);
		r = add_weight(cat, i, t->dtype, e);
		if (r < 0)
			return r;
		claimed = true;
	}
	if (!claimed)
		note_tied(l, at->mp, name, t, e);
	return 0;
}

static int read_tensor(struct layers *l, const struct cfs_ds_name *at,
		       uint32_t row, const char *name,
		       const struct cfs_torch_tensor *t, struct cfs_file *file,
		       struct cfs_error *err)
{
	struct cfs_extent e = {.count = t->numel, .file = row};
	int r;

	if (t->numel) {
		r = cfs_torch_storage_extent(t->storage, file, &e.offset, err);
		if (r < 0)
			return r;
		e.offset += t->storage_offset * cfs_dtype_size(t->dtype);
	}
	pthread_mutex_lock(&l->lock);
	r = claim(l, at, name, t, &e, err);
	pthread_mutex_unlock(&l->lock);
	return r;
}

/* Has the file of layer @at, with @root, what its stages' parameters need? */
static int check_names(struct layers *l, const struct cfs_ds_name *at,
		       const struct cfs_node *root, struct cfs_error *err)
{
	const struct cfs_step *step = &l->step->base;

	for (uint32_t m = at->mp; m < step->n_ranks; m += step->topology.tp) {
		const struct cfs_catalogue *cat = step->ranks[m].catalogue;

		for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
			struct cfs_ds_layer_name name = cfs_ds_layer_parse(
				cfs_catalogue_param(cat, i)->name);

			if (name.form == CFS_DS_FORM_PIPELINE &&
			    name.layer == at->dp &&
			    !cfs_node_get(root, name.name))
				return cfs_fail(err, -EINVAL, "has no %s",
						name.name);
		}
	}
	return 0;
}

static int read_layer(void *arg, uint32_t i, struct cfs_error *err)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *torch = NULL;
	struct layers *l = arg;
	const struct cfs_step *step = &l->step->base;
	const char *base = base_name(cfs_filetab_path(step->files, l->rows[i]));
	char name[96];
	const struct cfs_ds_file ds = {.name = name, .index = l->rows[i]};
	struct cfs_ds_name at = cfs_ds_name_parse(base);
	const struct cfs_node *root;
	struct cfs_file *file = NULL;
	int r;

	(void)snprintf(name, sizeof(name), "%s", base);
	r = cfs_ds_parse(step, &ds, &torch, err);
	if (!r)
		r = cfs_ds_open(step, ds.index, &file, err);
	if (r < 0)
		return r;
	root = cfs_torchfile_root(torch);
	pthread_mutex_lock(&l->lock);
	r = step->topology.pipeline ? check_names(l, &at, root, err) : 0;
	pthread_mutex_unlock(&l->lock);
	for (uint32_t k = 0; !r && k < cfs_map_node_count(root); k++) {
		struct cfs_node *key, *value;
		struct cfs_torch_tensor t;

		cfs_map_node_pair(root, k, &key, &value);
		if (!cfs_node_as_str(key) ||
		    cfs_torch_tensor_get(value, &t) < 0 || !t.contiguous ||
		    (t.numel && !t.storage) || !cfs_dtype_size(t.dtype))
			continue;
		r = read_tensor(l, &at, ds.index, cfs_node_as_str(key), &t,
				file, err);
	}
	cfs_filepool_put(step->pool, file);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", name) : 0;
}

/* ---- what there is to read, and to find ---- */

static int list_rows(struct layers *l)
{
	const struct cfs_filetab *files = l->step->base.files;
	uint32_t n = cfs_filetab_count(files);

	l->rows = calloc((size_t)n + 1, sizeof(*l->rows));
	if (!l->rows)
		return -ENOMEM;
	for (uint32_t i = l->step->base.first_file; i < n; i++)
		if (cfs_ds_name_parse(base_name(cfs_filetab_path(files, i)))
			    .kind == CFS_DS_LAYER)
			l->rows[l->n_rows++] = i;
	return 0;
}

/* What follows "tied_modules.KEY."; NULL for a parameter that is not tied. */
static const char *tied_name(const char *name)
{
	static const char prefix[] = "tied_modules.";
	const char *dot;

	if (strncmp(name, prefix, sizeof(prefix) - 1) != 0)
		return NULL;
	dot = strchr(name + sizeof(prefix) - 1, '.');
	return dot ? dot + 1 : NULL;
}

static int list_tied(struct layers *l)
{
	const struct cfs_step *step = &l->step->base;
	size_t total = 1;

	for (uint32_t m = 0; m < step->n_ranks; m++)
		total += cfs_catalogue_params(step->ranks[m].catalogue);
	l->tied = calloc(total, sizeof(*l->tied));
	if (!l->tied)
		return -ENOMEM;
	for (uint32_t m = 0; m < step->n_ranks; m++) {
		const struct cfs_catalogue *cat = step->ranks[m].catalogue;

		for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
			const char *name =
				tied_name(cfs_catalogue_param(cat, i)->name);

			if (name)
				l->tied[l->n_tied++] = (struct tied){
					.mp = m, .param = i, .name = name};
		}
	}
	return 0;
}

static int read_all(struct layers *l, struct cfs_error *err)
{
	int r = list_rows(l);

	if (!r)
		r = list_tied(l);
	if (!r)
		r = cfs_parallel(l->n_rows, read_layer, l, err);
	for (uint32_t i = 0; !r && i < l->n_tied; i++) {
		const struct tied *t = &l->tied[i];

		if (t->n_found == 1)
			r = add_weight(l->step->base.ranks[t->mp].catalogue,
				       t->param, t->dtype, &t->extent);
	}
	return r;
}

int cfs_ds_layers_read(struct cfs_ds_step *step, struct cfs_error *err)
{
	struct layers l = {.step = step, .lock = PTHREAD_MUTEX_INITIALIZER};
	int r = read_all(&l, err);

	pthread_mutex_destroy(&l.lock);
	free(l.rows);
	free(l.tied);
	return r;
}
