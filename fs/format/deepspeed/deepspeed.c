/* The format's table, and what is answered from names alone. */
#include "fs/format/deepspeed/deepspeed.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/deepspeed/neox_config.h"
#include "fs/format/deepspeed/read.h"
#include "fs/format/deepspeed/remodel.h"
#include "fs/format/deepspeed/template.h"
#include "store/util/error.h"
#include "store/util/parallel.h"
#include "store/util/path.h"

static bool ds_looks_for(const char *name)
{
	return !strcmp(name, CFS_DS_NEOX_CONFIGS);
}

static bool ds_owns(const char *name)
{
	return cfs_ds_name_parse(name).kind != CFS_DS_OTHER;
}

/* A universal checkpoint also has model states, but a directory `zero`. */
static int ds_probe(struct cfs_source *source, const char *path)
{
	_cleanup_(cfs_ds_list_fini) struct cfs_ds_list list = {0};
	uint32_t n_model, n_zero3, n_optim;
	int r;

	r = cfs_ds_list_read(source, path, &list);
	if (r < 0)
		return r == -ENOTDIR ? 0 : r;
	cfs_ds_list_kind(&list, CFS_DS_MODEL, &n_model);
	cfs_ds_list_kind(&list, CFS_DS_MODEL_ZERO3, &n_zero3);
	cfs_ds_list_kind(&list, CFS_DS_OPTIM, &n_optim);
	if (list.zero_dir && !n_optim)
		return 0;
	return n_model || n_zero3 || n_optim;
}

/* ---- is it whole? ---- */

#define EOCD_BYTES 22

/* A zip archive ends in its end record (torch writes no comment behind it); a
 * legacy file has no end to look for. */
static int check_end(struct cfs_file *file, const struct stat *st,
		     struct cfs_error *err)
{
	uint8_t head[4], tail[EOCD_BYTES];
	uint64_t size = (uint64_t)st->st_size;
	int r;

	if (size < sizeof(head))
		return cfs_fail(err, -ENOENT,
				size ? "is cut short" : "is empty");
	r = cfs_file_pread_all(file, head, sizeof(head), 0);
	if (r < 0 || memcmp(head, "PK\3\4", 4) != 0)
		return r;
	if (size < EOCD_BYTES)
		return cfs_fail(err, -ENOENT, "is cut short");
	r = cfs_file_pread_all(file, tail, sizeof(tail), size - sizeof(tail));
	if (!r && memcmp(tail, "PK\5\6", 4) != 0)
		r = cfs_fail(err, -ENOENT, "is cut short");
	return r;
}

struct ends {
	struct cfs_source *source;
	const char *path;
	const struct cfs_ds_list *list;
};

static int check_one(void *arg, uint32_t i, struct cfs_error *err)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	const struct ends *ends = arg;
	const char *name = ends->list->entries[i].name;
	char path[4096];
	struct stat st;
	int r;

	r = cfs_path_put(path, sizeof(path), ends->path, name);
	if (!r)
		r = ends->source->ops->open(ends->source, path, &file);
	if (!r)
		r = file->ops->stat(file, &st);
	if (!r)
		r = check_end(file, &st, err);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", name) : 0;
}

static int parse(struct cfs_source *source, const char *path, const char *name,
		 struct cfs_torchfile **torch_out, struct cfs_error *err)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = NULL;
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct cfs_version version;
	char full[4096];
	uint32_t row;
	struct stat st;
	int r;

	tab = cfs_filetab_new();
	if (!tab)
		return -ENOMEM;
	r = cfs_path_put(full, sizeof(full), path, name);
	if (!r)
		r = source->ops->open(source, full, &file);
	if (!r)
		r = file->ops->stat(file, &st);
	if (r < 0)
		return r;
	cfs_version_of(&st, &version);
	r = cfs_filetab_add(tab, full, &version, &row);
	if (!r)
		r = cfs_torchfile_read(file, version.size, tab, row, NULL,
				       torch_out, err);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", name) : 0;
}

/* The first model states (@root) count the ranks. */
static int check_counts(const struct cfs_node *root,
			const struct cfs_ds_names *names, struct cfs_error *err)
{
	uint64_t dp, mp;
	char buf[96];

	if (cfs_node_as_u64(cfs_node_get(root, "mp_world_size"), &mp) &&
	    mp > names->n_mp)
		return cfs_fail(err, -ENOENT,
				"files of %llu model-parallel ranks are "
				"missing",
				(unsigned long long)mp - names->n_mp);
	if (names->n_dp &&
	    cfs_node_as_u64(cfs_node_get(root, "dp_world_size"), &dp) &&
	    dp > names->n_dp) {
		struct cfs_ds_name missing = {.kind = CFS_DS_OPTIM,
					      .dp = names->n_dp,
					      .bf16 = names->bf16};

		return cfs_fail(err, -ENOENT, "%s is missing",
				cfs_ds_name_format(&missing, buf, sizeof(buf)));
	}
	if (!names->n_dp && cfs_node_is_seq(cfs_node_get(root, "param_shapes")))
		return cfs_fail(err, -ENOENT,
				"optimizer files (…optim_states.pt) are "
				"missing");
	return 0;
}

struct stages {
	struct cfs_source *source;
	const char *path;
	const struct cfs_ds_list *list;
	uint32_t tp;
};

/* The layers of stage @i, by the model states of its first rank. */
static int check_stage(void *arg, uint32_t i, struct cfs_error *err)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *torch = NULL;
	const struct stages *s = arg;
	const struct cfs_ds_entry *e =
		cfs_ds_list_find(s->list, CFS_DS_MODEL, i * s->tp, 0);
	int r = parse(s->source, s->path, e->name, &torch, err);

	return r ? r
		 : cfs_ds_list_layers(s->list, cfs_torchfile_root(torch), s->tp,
				      err);
}

static int check_inside(struct cfs_source *source, const char *path,
			const struct cfs_ds_list *list,
			const struct cfs_ds_names *names, struct cfs_error *err)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *torch = NULL;
	struct stages stages = {source, path, list,
				cfs_ds_list_tp(list, names->n_mp)};
	const struct cfs_node *root, *module, *dims;
	uint64_t tp;
	uint32_t n;
	const struct cfs_ds_entry *first = cfs_ds_list_kind(
		list, names->zero3 ? CFS_DS_MODEL_ZERO3 : CFS_DS_MODEL, &n);
	int r = parse(source, path, first->name, &torch, err);

	if (r < 0)
		return r;
	root = cfs_torchfile_root(torch);
	r = check_counts(root, names, err);
	module = cfs_node_get(root, "module");
	if (r < 0 || names->zero3 || !module || !cfs_node_is_none(module))
		return r;
	dims = cfs_node_get(root, "checkpoint_parallel_dimensions");
	if (cfs_node_as_u64(cfs_node_get(dims, "tp_degree"), &tp) && tp &&
	    tp <= names->n_mp && !(names->n_mp % tp))
		stages.tp = (uint32_t)tp;
	return cfs_parallel(names->n_mp / stages.tp, check_stage, &stages, err);
}

int cfs_ds_complete(struct cfs_source *source, const char *path,
		    struct cfs_error *err)
{
	_cleanup_(cfs_ds_list_fini) struct cfs_ds_list list = {0};
	struct ends ends = {source, path, &list};
	struct cfs_error own = {""};
	struct cfs_ds_names names;
	int r;

	r = cfs_ds_list_read(source, path, &list);
	if (r < 0)
		return r;
	r = cfs_ds_list_check(&list, &names, &own);
	if (r == -ENOTSUP)
		return 1; /* it cannot be told, so nothing is held against it */
	if (!r)
		r = cfs_parallel(list.n, check_one, &ends, &own);
	if (!r)
		r = check_inside(source, path, &list, &names, &own);
	if (!r)
		return 1;
	if (err)
		*err = own;
	return r == -ENOENT || r == -EBADMSG || r == -EINVAL || r == -ENOTSUP
		       ? 0
		       : r;
}

const struct cfs_format cfs_format_deepspeed = {
	.name = "deepspeed",
	.probe = ds_probe,
	.owns = ds_owns,
	.looks_for = ds_looks_for,
	.read = cfs_ds_read,
	.resolve = cfs_ds_resolve,
	.write = cfs_ds_write,
	.fill = cfs_ds_template_fill,
	.whole = cfs_ds_whole,
	.complete = cfs_ds_complete,
	.step_free = cfs_ds_step_free,
};
