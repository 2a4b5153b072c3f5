/*
 * The format's table.  Many programs write a file model.safetensors: a
 * directory is a step of ours where optimizer.safetensors is beside it, or the
 * objects that ranks put, or no other file at all.
 */
#include "fs/format/safetensors/safetensors.h"

#include <errno.h>
#include <string.h>

#include "fs/format/format.h"
#include "store/util/error.h"
#include "store/util/path.h"

static bool st_owns(const char *name)
{
	return !strcmp(name, CFS_ST_WEIGHTS) || !strcmp(name, CFS_ST_OPTIMIZER);
}

struct names {
	bool weights, optimizer, objects, others;
};

static int on_name(void *arg, const char *name, const struct stat *st)
{
	struct names *n = arg;

	if (!strcmp(name, CFS_ST_WEIGHTS))
		n->weights = true;
	else if (!strcmp(name, CFS_ST_OPTIMIZER))
		n->optimizer = true;
	else if (!strcmp(name, "ckptfs") && S_ISDIR(st->st_mode))
		n->objects = true;
	else
		n->others = true;
	return 0;
}

static int st_probe(struct cfs_source *source, const char *path)
{
	struct names n = {0};
	int r = source->ops->readdir(source, path, on_name, &n);

	if (r < 0)
		return r == -ENOTDIR ? 0 : r;
	return n.weights && (n.optimizer || n.objects || !n.others);
}

static int st_resolve(const struct cfs_step *step,
		      const struct cfs_request *request,
		      struct cfs_resolved *out, struct cfs_error *err)
{
	const struct cfs_request *q = request;

	if (q->dp > 1 || q->tp > 1 || q->pp > 1 || q->zero_stage > 0 ||
	    q->bf16_optimizer == 1 || q->round_robin == 1 ||
	    q->sub_group_size || q->vocabulary || q->qkv_in_parts >= 0 ||
	    q->bias_sum >= 0 || q->universal == 1 || q->options)
		return cfs_fail(err, -ENOTSUP,
				"a step of safetensors holds whole tensors, "
				"and not what files of ranks are made of "
				"beside them (groups, counters, "
				"configuration): there is no view of it");
	*out = (struct cfs_resolved){.topology = step->topology,
				     .qkv_in_parts = -1,
				     .bias_sum = -1,
				     .dp = CFS_FROM_SOURCE,
				     .tp = CFS_FROM_SOURCE,
				     .pp = CFS_FROM_SOURCE,
				     .zero_stage = CFS_FROM_SOURCE,
				     .optimizer = CFS_FROM_SOURCE,
				     .round_robin = CFS_FROM_SOURCE,
				     .sub_group_size = CFS_FROM_SOURCE};
	return 0;
}

/* A resolved request is what the step is: nothing is ever written. */
static int st_write(struct cfs_step *step, const struct cfs_resolved *target,
		    struct cfs_tree **tree_out, struct cfs_error *err)
{
	(void)target;
	(void)tree_out;
	return cfs_fail(err, -ENOTSUP, "%s: there is no view of safetensors",
			step->path);
}

static int check_file(struct cfs_source *source, const char *dir,
		      const char *name, struct cfs_error *err)
{
	_cleanup_(cfs_st_header_fini) struct cfs_st_header header = {0};
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	char path[4096];
	struct stat st = {0};
	uint64_t data;
	int r = cfs_path_put(path, sizeof(path), dir, name);

	if (!r)
		r = source->ops->open(source, path, &file);
	if (!r)
		r = file->ops->stat(file, &st);
	if (r < 0)
		return r;
	r = cfs_st_header_read(file, (uint64_t)st.st_size, &header, &data, err);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", name) : 0;
}

/* Each file says how long it is. */
static int st_complete(struct cfs_source *source, const char *path,
		       struct cfs_error *err)
{
	int r = check_file(source, path, CFS_ST_WEIGHTS, err);

	if (!r) {
		r = check_file(source, path, CFS_ST_OPTIMIZER, err);
		if (r == -ENOENT)
			r = 0; /* weights alone */
	} else if (r == -ENOENT) {
		(void)cfs_fail(err, r, CFS_ST_WEIGHTS " is missing");
		return 0;
	}
	if (r == -ENOTSUP)
		return 1; /* of a type that is not known: long enough */
	return r == -EBADMSG ? 0 : r < 0 ? r : 1;
}

const struct cfs_format cfs_format_safetensors = {
	.name = "safetensors",
	.probe = st_probe,
	.owns = st_owns,
	.read = cfs_st_read,
	.resolve = st_resolve,
	.write = st_write,
	.complete = st_complete,
	.step_free = cfs_st_step_free,
};
