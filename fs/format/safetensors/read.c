/*
 * A step of safetensors: weights and buffers by their names, and what the
 * optimizer keeps of each as NAME.ROLE.
 */
#include "fs/format/safetensors/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/format/step_name.h"
#include "store/util/endian.h"
#include "store/util/error.h"
#include "store/util/path.h"

struct reading {
	struct cfs_step *step;
	struct cfs_catalogue *cat, *names;
	struct cfs_st_header model, optimizer;
	uint64_t model_data, optimizer_data; /* where tensors begin */
	uint32_t model_row, optimizer_row;
	struct cfs_error *err;
};

int cfs_st_header_read(struct cfs_file *file, uint64_t size,
		       struct cfs_st_header *out, uint64_t *data_out,
		       struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *text = NULL;
	uint8_t length[8] = {0};
	uint64_t len;
	int r;

	if (size < sizeof(length))
		return cfs_fail(err, -EBADMSG, "is cut short");
	r = cfs_file_pread_all(file, length, sizeof(length), 0);
	if (r < 0)
		return r;
	len = cfs_get_le64(length);
	if (len > CFS_ST_HEADER_MAX || len > size - sizeof(length))
		return cfs_fail(err, -EBADMSG,
				"is no safetensors file, or cut short");
	text = malloc(len + 1);
	if (!text)
		return -ENOMEM;
	r = cfs_file_pread_all(file, text, len, sizeof(length));
	if (r < 0)
		return r;
	*data_out = sizeof(length) + len;
	return cfs_st_header_parse(text, len, size - *data_out, out, err);
}

/* ---- files ---- */

static int settle(struct reading *rd, const char *path, const char *name,
		  uint32_t *row_out)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct cfs_step *step = rd->step;
	struct cfs_version version = {0};
	struct stat st = {0};
	int r = step->source->ops->open(step->source, path, &file);

	if (!r)
		r = cfs_file_settle(file, &version);
	if (!r)
		r = file->ops->stat(file, &st);
	if (!r)
		r = cfs_step_fold(step, name, &st, &version, rd->err);
	return r < 0 ? r
		     : cfs_filetab_add(step->files, path, &version, row_out);
}

/* -ENOENT: there is none. */
static int read_file(struct reading *rd, const char *name,
		     struct cfs_st_header *header, uint64_t *data,
		     uint32_t *row)
{
	struct cfs_step *step = rd->step;
	struct cfs_file *file = NULL;
	char path[4096];
	int r = cfs_path_put(path, sizeof(path), step->path, name);

	if (!r)
		r = settle(rd, path, name, row);
	if (!r)
		r = cfs_filepool_get(step->pool, path,
				     cfs_filetab_version(step->files, *row),
				     &file, rd->err);
	if (r < 0)
		return r == -ENOENT ? r
				    : cfs_fail_prefix(rd->err, r, "%s", name);
	r = cfs_st_header_read(file,
			       cfs_filetab_version(step->files, *row)->size,
			       header, data, rd->err);
	cfs_filepool_put(step->pool, file);
	return r < 0 ? cfs_fail_prefix(rd->err, r, "%s", name) : 0;
}

/* ---- tensors ---- */

/* What a tensor of the optimizer's file belongs to; "" with its own name where
 * that says no role. */
static char *param_of(const char *name)
{
	const char *role = cfs_st_role(name);

	return role ? strndup(name, (size_t)(role - 1 - name)) : strdup(name);
}

/* The model's tensors by name: row i is model.v[i]. */
static int index_model(struct reading *rd)
{
	int r = 0;

	rd->names = cfs_catalogue_new();
	if (!rd->names)
		return -ENOMEM;
	for (uint32_t i = 0; !r && i < rd->model.n; i++)
		r = cfs_catalogue_add_param(rd->names, rd->model.v[i].name, 0,
					    NULL, CFS_GROUP_FROZEN, NULL);
	return r;
}

static const struct cfs_st_tensor *find(const struct reading *rd,
					const char *name)
{
	uint32_t i;

	return cfs_catalogue_find(rd->names, name, &i) ? NULL : &rd->model.v[i];
}

static int add_param(const struct reading *rd, const char *name,
		     const struct cfs_st_tensor *t, uint32_t group)
{
	int r = cfs_catalogue_add_param(rd->cat, name, t->ndim, t->shape, group,
					NULL);

	return r == -EEXIST ? 0 : r;
}

/* One element for each of the parameter's? */
static bool is_state(const struct cfs_param *p, const struct cfs_st_tensor *t)
{
	return p->ndim == t->ndim &&
	       !memcmp(p->shape, t->shape, p->ndim * sizeof(*p->shape));
}

/* Trainable ones first: those that the optimizer has something of. */
static int add_trained(const struct reading *rd)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < rd->optimizer.n; i++) {
		const struct cfs_st_tensor *t = &rd->optimizer.v[i], *weight;
		_cleanup_(cfs_freep) char *name = param_of(t->name);

		if (!name)
			return -ENOMEM;
		weight = find(rd, name);
		/* a number of a parameter without a weight tells no shape */
		if (weight || t->ndim)
			r = add_param(rd, name, weight ? weight : t, 0);
	}
	return r;
}

static int add_others(const struct reading *rd)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < rd->model.n; i++)
		r = add_param(rd, rd->model.v[i].name, &rd->model.v[i],
			      CFS_GROUP_FROZEN);
	/* numbers of parameters, under their whole names */
	for (uint32_t i = 0; !r && i < rd->optimizer.n; i++) {
		const struct cfs_st_tensor *t = &rd->optimizer.v[i];
		_cleanup_(cfs_freep) char *name = param_of(t->name);
		uint32_t param;

		if (!name)
			return -ENOMEM;
		if (cfs_catalogue_find(rd->cat, name, &param) ||
		    !is_state(cfs_catalogue_param(rd->cat, param), t))
			r = add_param(rd, t->name, t, CFS_GROUP_FROZEN);
	}
	return r;
}

static int add_extent(const struct reading *rd, uint32_t param, uint32_t role,
		      const struct cfs_st_tensor *t, uint64_t data,
		      uint32_t row)
{
	const struct cfs_extent e = {.count = (t->end - t->begin) /
					      cfs_dtype_size(t->dtype),
				     .offset = data + t->begin,
				     .file = row};
	int r;

	if (cfs_catalogue_dtype(rd->cat, param, role))
		return cfs_fail(rd->err, -EINVAL,
				"tensor %s: both files have it", t->name);
	r = cfs_catalogue_set_dtype(rd->cat, param, role, t->dtype);
	return r < 0 || !e.count
		       ? r
		       : cfs_catalogue_add_extent(rd->cat, param, role, &e);
}

static int add_model(const struct reading *rd)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < rd->model.n; i++) {
		const struct cfs_st_tensor *t = &rd->model.v[i];
		uint32_t param;

		r = cfs_catalogue_find(rd->cat, t->name, &param);
		if (!r)
			r = add_extent(rd, param, CFS_ROLE_WEIGHT, t,
				       rd->model_data, rd->model_row);
	}
	return r;
}

static int role_of(const struct reading *rd, const char *name, uint32_t *role)
{
	int r = 0;

	if (!strcmp(name, "master"))
		*role = CFS_ROLE_MASTER;
	else
		r = cfs_catalogue_add_role(rd->cat, name, role);
	return r == -E2BIG ? cfs_fail(rd->err, -ENOTSUP,
				      "the optimizer keeps more than %u kinds "
				      "of state",
				      CFS_ROLES_MAX - CFS_ROLE_STATE0)
			   : r;
}

static int add_optimizer(const struct reading *rd)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < rd->optimizer.n; i++) {
		const struct cfs_st_tensor *t = &rd->optimizer.v[i];
		_cleanup_(cfs_freep) char *name = param_of(t->name);
		uint32_t param, role = CFS_ROLE_WEIGHT;

		if (!name)
			return -ENOMEM;
		if (cfs_st_role(t->name) &&
		    !cfs_catalogue_find(rd->cat, name, &param) &&
		    is_state(cfs_catalogue_param(rd->cat, param), t))
			r = role_of(rd, cfs_st_role(t->name), &role);
		else
			r = cfs_catalogue_find(rd->cat, t->name, &param);
		if (!r)
			r = add_extent(rd, param, role, t, rd->optimizer_data,
				       rd->optimizer_row);
	}
	return r;
}

/* ---- the step ---- */

static void take_facts(struct cfs_step *step, const struct cfs_st_header *model)
{
	const char *slash = strrchr(step->path, '/');

	step->topology = (struct cfs_topology){.dp = 1, .tp = 1, .pp = 1};
	step->global_steps = cfs_step_number(slash ? slash + 1 : step->path);
	for (uint32_t i = 0; !step->dtype && i < model->n; i++)
		if (cfs_dtype_is_float(model->v[i].dtype))
			step->dtype = model->v[i].dtype;
	if (!step->dtype)
		step->dtype = CFS_F32;
}

static int read_all(struct reading *rd)
{
	int r = read_file(rd, CFS_ST_WEIGHTS, &rd->model, &rd->model_data,
			  &rd->model_row);

	if (r < 0)
		return r;
	r = read_file(rd, CFS_ST_OPTIMIZER, &rd->optimizer, &rd->optimizer_data,
		      &rd->optimizer_row);
	if (r < 0 && r != -ENOENT)
		return r;
	r = index_model(rd);
	if (!r)
		r = add_trained(rd);
	if (!r)
		r = add_others(rd);
	if (!r)
		r = add_model(rd);
	if (!r)
		r = add_optimizer(rd);
	take_facts(rd->step, &rd->model);
	return r < 0 ? r : cfs_catalogue_seal(rd->cat, rd->err);
}

static struct cfs_step *step_new(struct cfs_source *source,
				 struct cfs_filepool *pool, const char *path)
{
	struct cfs_step *step = calloc(1, sizeof(*step));

	if (!step)
		return NULL;
	step->format = &cfs_format_safetensors;
	step->source = source;
	step->pool = pool;
	step->refs = 1;
	step->n_ranks = 1;
	step->path = strdup(path);
	step->files = cfs_filetab_new();
	step->ranks = calloc(1, sizeof(*step->ranks));
	if (step->ranks)
		step->ranks[0].catalogue = cfs_catalogue_new();
	if (!step->path || !step->files || !step->ranks ||
	    !step->ranks[0].catalogue) {
		cfs_step_unref(step);
		return NULL;
	}
	return step;
}

void cfs_st_step_free(struct cfs_step *step)
{
	if (step->ranks)
		cfs_catalogue_free(step->ranks[0].catalogue);
	free(step->ranks);
	cfs_filetab_unref(step->files);
	free(step->path);
	free(step);
}

int cfs_st_read(struct cfs_source *source, struct cfs_filepool *pool,
		const char *path, struct cfs_step **step_out,
		struct cfs_error *err)
{
	struct cfs_step *step = step_new(source, pool, path);
	struct reading rd = {.step = step, .err = err};
	int r;

	if (!step)
		return -ENOMEM;
	rd.cat = step->ranks[0].catalogue;
	r = read_all(&rd);
	cfs_catalogue_free(rd.names);
	cfs_st_header_fini(&rd.model);
	cfs_st_header_fini(&rd.optimizer);
	if (r < 0) {
		cfs_step_unref(step);
		return cfs_fail_prefix(err, r, "%s", *path ? path : ".");
	}
	*step_out = step;
	return 0;
}
