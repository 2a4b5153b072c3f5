/*
 * What is stored more than once must be the same: parameters shared under
 * several names, and what every rank of stage 3 saves for itself.  Scalars of
 * the optimizer were found equal on all ranks when the step was read.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/check.h"
#include "fs/cli/delta.h"
#include "fs/cli/tensors.h"
#include "fs/format/deepspeed/deepspeed.h"
#include "store/util/error.h"

struct replicas {
	struct cfs_check *check;
	uint64_t n_pairs;
};

static const struct cfs_tensors_item *find(const struct cfs_tensors *set,
					   const char *name)
{
	size_t lo = 0, hi = set->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strverscmp(set->items[mid].name, name);

		if (c == 0)
			return &set->items[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static int compare(struct replicas *rp, const struct cfs_tensors *set_a,
		   const struct cfs_tensors_item *a,
		   const struct cfs_tensors *set_b,
		   const struct cfs_tensors_item *b, const char *object,
		   const char *other, struct cfs_error *err)
{
	struct cfs_delta delta;
	int r;

	rp->n_pairs++;
	if (a->numel != b->numel || a->dtype != b->dtype) {
		cfs_check_report_problem(rp->check->report, object,
					 "has not the shape and type of %s",
					 other);
		return 0;
	}
	r = cfs_delta_compare(set_a, a, set_b, b, NULL, &delta, err);
	if (r == 0 && delta.n_differ)
		cfs_check_report_problem(rp->check->report, object,
					 "differs from %s in %" PRIu64
					 " of %" PRIu64 " elements",
					 other, delta.n_differ, a->numel);
	return r;
}

/* "module/NAME" in a set made from a whole file. */
static const struct cfs_tensors_item *module_item(const struct cfs_tensors *set,
						  const char *name)
{
	char path[1024];

	if ((size_t)snprintf(path, sizeof(path), "module/%s", name) >=
	    sizeof(path))
		return NULL;
	return find(set, path);
}

/* The names that share_params says are one parameter. */
static int check_shared(struct replicas *rp, const struct cfs_ds_rank *rank,
			const struct cfs_tensors *set, struct cfs_error *err)
{
	const struct cfs_node *shared =
		cfs_node_get(rank->model_root, "shared_params");
	struct cfs_node *key, *value;
	uint32_t i, n = cfs_map_node_count(shared);
	int r = 0;

	for (i = 0; r == 0 && i < n; i++) {
		const struct cfs_tensors_item *a, *b;

		cfs_map_node_pair(shared, i, &key, &value);
		if (!cfs_node_as_str(key) || !cfs_node_as_str(value))
			continue;
		a = module_item(set, cfs_node_as_str(key));
		b = module_item(set, cfs_node_as_str(value));
		if (a && b)
			r = compare(rp, set, a, set, b, cfs_node_as_str(key),
				    cfs_node_as_str(value), err);
	}
	return r;
}

/* Buffers in the model states of a further rank against those of the first. */
static int check_rank(struct replicas *rp, const struct cfs_ds_rank *rank,
		      const struct cfs_ds_file *file,
		      const struct cfs_tensors *first, struct cfs_error *err)
{
	struct cfs_step *step = rp->check->step;
	const struct cfs_node *names =
		cfs_node_get(rank->model_root, "buffer_names");
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	_cleanup_(cfs_tensors_free) struct cfs_tensors set = {0};
	uint32_t i, n = cfs_seq_node_count(names);
	int r;

	r = cfs_ds_parse(step, file, &tf, err);
	if (r == 0)
		r = cfs_tensors_of_tree(cfs_torchfile_root(tf), step->files,
					step->pool, &set, err);
	for (i = 0; r == 0 && i < n; i++) {
		const char *name = cfs_node_as_str(cfs_seq_node_item(names, i));
		const struct cfs_tensors_item *a, *b;

		a = name ? module_item(&set, name) : NULL;
		b = name ? module_item(first, name) : NULL;
		if (a && b)
			r = compare(rp, &set, a, first, b, file->name,
				    rank->model[0].name, err);
	}
	return r;
}

static int check_mp_rank(struct replicas *rp, const struct cfs_ds_rank *rank,
			 struct cfs_error *err)
{
	struct cfs_step *step = rp->check->step;
	_cleanup_(cfs_tensors_free) struct cfs_tensors set = {0};
	uint32_t i;
	int r;

	r = cfs_tensors_of_tree(rank->model_root, step->files, step->pool, &set,
				err);
	if (r == 0)
		r = check_shared(rp, rank, &set, err);
	for (i = 1; r == 0 && i < rank->n_model; i++)
		r = check_rank(rp, rank, &rank->model[i], &set, err);
	return r;
}

int cfs_check_replicas(struct cfs_check *check, struct cfs_error *err)
{
	struct cfs_step *step = check->step;
	struct replicas rp = {.check = check};
	const struct cfs_ds_step *ds;
	uint32_t rank;
	int r = 0;

	if (step->format != &cfs_format_deepspeed) {
		cfs_check_report_skip(check->report, "replicas",
				      "none are known in this format");
		return 0;
	}
	ds = cfs_ds_step_of(step);
	cfs_check_report_begin(check->report, "replicas");
	for (rank = 0; r == 0 && rank < step->n_ranks; rank++)
		r = check_mp_rank(&rp, &ds->ranks[rank], err);
	if (r < 0)
		return r;
	cfs_check_report_number(check->report, "pairs", rp.n_pairs);
	cfs_check_report_end(
		check->report, "%" PRIu64 " pairs of tensors compared%s",
		rp.n_pairs,
		step->n_ranks > 1 ? "; which are replicas over model-parallel "
				    "ranks is not recorded"
				  : "");
	return 0;
}
