/* The files of a step: versions, what they tell about the whole. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/parallel.h"
#include "store/util/path.h"

/* ---- versions ---- */

struct settled {
	struct cfs_version version;
	struct stat st;
};

struct settle {
	struct cfs_source *source;
	const char *path;
	const struct cfs_ds_list *list;
	struct settled *out; /* by list entry */
};

static int settle_one(void *arg, uint32_t i, struct cfs_error *err)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct settle *s = arg;
	const char *name = s->list->entries[i].name;
	char path[4096];
	int r;

	r = cfs_path_put(path, sizeof(path), s->path, name);
	if (!r)
		r = s->source->ops->open(s->source, path, &file);
	if (!r)
		r = cfs_file_settle(file, &s->out[i].version);
	if (!r)
		r = file->ops->stat(file, &s->out[i].st);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", name) : 0;
}

/* Where a list entry belongs among the ranks; NULL: nowhere (layers). */
static struct cfs_ds_file *place(struct cfs_ds_step *step,
				 const struct cfs_ds_name *name)
{
	struct cfs_ds_rank *rank;
	struct cfs_ds_file *file = NULL;

	if (name->kind == CFS_DS_LAYER || name->kind == CFS_DS_UNIVERSAL ||
	    name->mp >= step->base.n_ranks)
		return NULL;
	rank = &step->ranks[name->mp];
	if (name->kind == CFS_DS_MODEL)
		file = &rank->model[0];
	else if (name->kind == CFS_DS_MODEL_ZERO3 && name->dp < rank->n_model)
		file = &rank->model[name->dp];
	else if (name->kind == CFS_DS_OPTIM && name->dp < rank->n_optim)
		file = &rank->optim[name->dp];
	/* The first spelling counts. */
	return file && !file->name ? file : NULL;
}

static int ranks_new(struct cfs_ds_step *step, const struct cfs_ds_names *names)
{
	uint32_t n = names->n_mp;

	step->ranks = calloc(n, sizeof(*step->ranks));
	step->base.ranks = calloc(n, sizeof(*step->base.ranks));
	if (!step->base.files)
		step->base.files = cfs_filetab_new();
	if (!step->ranks || !step->base.ranks || !step->base.files)
		return -ENOMEM;
	step->base.n_ranks = n;
	for (uint32_t m = 0; m < n; m++) {
		struct cfs_ds_rank *rank = &step->ranks[m];
		uint32_t n_model = names->zero3 ? names->n_dp : 1;

		rank->model = calloc(n_model, sizeof(*rank->model));
		rank->optim =
			calloc((size_t)names->n_dp + 1, sizeof(*rank->optim));
		step->base.ranks[m].catalogue = cfs_catalogue_new();
		if (!rank->model || !rank->optim ||
		    !step->base.ranks[m].catalogue)
			return -ENOMEM;
		rank->n_model = n_model;
		rank->n_optim = names->n_dp;
	}
	return 0;
}

static int add_file(struct cfs_ds_step *step, const struct cfs_ds_entry *entry,
		    const struct settled *s, struct cfs_error *err)
{
	struct cfs_ds_file *file = place(step, &entry->parsed);
	char path[4096];
	uint32_t row = 0;
	int r;

	if (!file && entry->parsed.kind != CFS_DS_LAYER &&
	    entry->parsed.kind != CFS_DS_UNIVERSAL)
		return 0;
	r = cfs_step_fold(&step->base, entry->name, &s->st, &s->version, err);
	if (!r)
		r = cfs_path_put(path, sizeof(path), step->base.path,
				 entry->name);
	if (!r)
		r = cfs_filetab_add(step->base.files, path, &s->version, &row);
	if (r < 0 || !file)
		return r;
	file->index = row;
	file->name = strdup(entry->name);
	return file->name ? 0 : -ENOMEM;
}

int cfs_ds_files_settle(struct cfs_ds_step *step,
			const struct cfs_ds_list *list,
			const struct cfs_ds_names *names, struct cfs_error *err)
{
	_cleanup_(cfs_freep) struct settled *out = NULL;
	struct settle s = {step->base.source, step->base.path, list, NULL};
	int r;

	r = ranks_new(step, names);
	if (r < 0)
		return r;
	s.out = out = calloc((size_t)list->n + 1, sizeof(*out));
	if (!out)
		return -ENOMEM;
	r = cfs_parallel(list->n, settle_one, &s, err);
	for (uint32_t i = 0; !r && i < list->n; i++)
		r = add_file(step, &list->entries[i], &out[i], err);
	return r;
}

int cfs_ds_open(const struct cfs_step *step, uint32_t index,
		struct cfs_file **file_out, struct cfs_error *err)
{
	return cfs_filepool_get(
		step->pool, cfs_filetab_path(step->files, index),
		cfs_filetab_version(step->files, index), file_out, err);
}

int cfs_ds_parse(const struct cfs_step *step, const struct cfs_ds_file *file,
		 struct cfs_torchfile **out, struct cfs_error *err)
{
	const struct cfs_version *version =
		cfs_filetab_version(step->files, file->index);
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *torch = NULL;
	struct cfs_file *open;
	int r;

	/* The pool checks the version after every read. */
	r = cfs_ds_open(step, file->index, &open, err);
	if (r < 0)
		return r;
	r = cfs_torchfile_read(open, version->size, step->files, file->index,
			       NULL, &torch, err);
	if (r < 0)
		r = cfs_fail_prefix(err, r, "%s", file->name);
	cfs_filepool_put(step->pool, open);
	if (!r)
		*out = cfs_steal(torch);
	return r;
}
