/* The files of a universal checkpoint of what ranks put: those of a view of a
 * step in memory; but each parameter has the count of steps that was put. */
#include "fs/format/universal/put.h"
#include "fs/format/universal/universal.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/parallel.h"

/* A count that all parameters of a group shared would hide that they differ. */
static int step_map(const struct cfs_uc_putting *p,
		    const struct cfs_put_tensor *t, struct cfs_map **map_out,
		    struct cfs_error *err)
{
	struct cfs_torch_writer *w =
		cfs_torch_writer_new(p->puts->files, CFS_PUT_STEP);
	const struct cfs_torch_storage *storage;
	struct cfs_node *root = NULL;
	int r;

	if (!w)
		return -ENOMEM;
	storage = cfs_torch_writer_storage(w, t->first->dtype, 1, t->map, NULL,
					   "cpu");
	if (storage)
		root = cfs_torch_writer_tensor(w, storage, 0, t->first->ndim,
					       t->first->shape, false);
	r = cfs_torch_writer_finish(w, root, NULL, NULL, NULL, NULL, map_out,
				    err);
	cfs_torch_writer_free(w);
	return r;
}

/* The tensor that is the content of row @row, or NULL. */
static const struct cfs_put_tensor *
own_step(const struct cfs_uc_putting *p, struct cfs_tree *tree, uint32_t row)
{
	const struct cfs_ds_tree *t =
		container_of(tree, struct cfs_ds_tree, base);
	const struct cfs_ds_plan *plan = &t->plans[tree->files[row].index];

	if (plan->part != CFS_DS_PART_UNIVERSAL || plan->role != CFS_UC_STEP)
		return NULL;
	return cfs_put_tensors_find(
		p->tensors,
		cfs_catalogue_param(t->whole->base.ranks[0].catalogue,
				    plan->param)
			->name,
		CFS_PUT_STEP);
}

struct handing {
	const struct cfs_uc_putting *p;
	struct cfs_tree *tree;
	cfs_puts_file_fn *fn;
	void *arg;
};

/* Any thread. */
static int hand_out(void *arg, uint32_t i, struct cfs_error *err)
{
	const struct handing *h = arg;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	const struct cfs_put_tensor *step = own_step(h->p, h->tree, i);
	const char *name = h->tree->files[i].name;
	int r = step ? step_map(h->p, step, &map, err)
		     : cfs_tree_map(h->tree, i, &map, err);

	return r < 0 ? cfs_fail_prefix(err, r, "%s", name)
		     : h->fn(h->arg, name, map, err);
}

static int make(struct cfs_uc_putting *p, cfs_puts_file_fn *fn, void *arg)
{
	const struct cfs_request request = {.pp = -1,
					    .zero_stage = -1,
					    .bf16_optimizer = -1,
					    .round_robin = -1,
					    .qkv_in_parts = -1,
					    .bias_sum = -1,
					    .universal = 1};
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	struct handing h = {p, NULL, fn, arg};
	struct cfs_resolved target;
	int r = cfs_uc_put_objects(p);

	if (!r)
		r = cfs_uc_put_step(p);
	if (!r)
		r = cfs_ds_resolve(&p->step->base, &request, &target, p->err);
	if (!r)
		r = cfs_uc_plan(&p->step->base, &target, &tree, p->err);
	h.tree = tree;
	return r ? r : cfs_parallel(tree->n_files, hand_out, &h, p->err);
}

int cfs_puts_universal(const struct cfs_puts *puts, cfs_puts_file_fn *fn,
		       void *arg, struct cfs_error *err)
{
	_cleanup_(cfs_put_tensors_fini) struct cfs_put_tensors tensors = {0};
	struct cfs_uc_putting p = {
		.puts = puts, .tensors = &tensors, .err = err};
	int r = cfs_put_tensors_init(&tensors, puts, err);

	if (r < 0)
		return r;
	p.w = cfs_torch_writer_new(puts->files, "put");
	r = -ENOMEM;
	if (p.w) {
		p.doc = cfs_torch_writer_doc(p.w);
		r = make(&p, fn, arg);
	}
	if (p.step)
		cfs_step_unref(&p.step->base);
	for (uint32_t i = 0; i < p.n_params; i++)
		cfs_map_unref(p.params[i].weight_map);
	free(p.params);
	cfs_torch_writer_free(p.w);
	return r;
}
