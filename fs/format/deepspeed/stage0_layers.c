/*
 * Stage 0 of a pipeline: neither the module nor param_shapes say what a stage
 * has.  A parameter of any layer may be its, and content decides, as it does
 * for the order.  What that gives must make sense over the stages.
 */
#include "fs/format/deepspeed/stage0.h"

#include <errno.h>
#include <string.h>

#include "fs/format/deepspeed/layer.h"
#include "store/util/error.h"

/* Each stage lists its own. */
static bool is_buffer(const struct cfs_ds_step *step, const char *name)
{
	for (uint32_t m = 0; m < step->base.n_ranks; m++)
		if (cfs_ds_is_buffer(step->ranks[m].model_root, name))
			return true;
	return false;
}

static int add_layer(struct cfs_ds_stage0 *z, const struct cfs_ds_layer_file *f)
{
	const struct cfs_node *root = cfs_torchfile_root(f->torch);

	for (uint32_t i = 0; i < cfs_map_node_count(root); i++) {
		struct cfs_node *key, *value, *kept;
		char full[512];
		int r;

		cfs_map_node_pair(root, i, &key, &value);
		if (!cfs_node_as_str(key))
			continue;
		r = cfs_ds_layer_files_name(&z->layers, f->layer,
					    cfs_node_as_str(key), full,
					    sizeof(full));
		if (r < 0)
			return r;
		if (is_buffer(z->step, full))
			continue;
		kept = cfs_node_str(z->step->scratch, full);
		if (!kept)
			return -ENOMEM;
		cfs_ds_stage0_candidate(z, cfs_node_as_str(kept), value,
					f->file);
	}
	return 0;
}

int cfs_ds_stage0_layers(struct cfs_ds_stage0 *z)
{
	size_t total = 0;
	int r = cfs_ds_layer_files_open(
		z->step, z->mp % z->step->base.topology.tp, &z->layers, z->err);

	for (uint32_t i = 0; !r && i < z->layers.n; i++)
		total += cfs_map_node_count(
			cfs_torchfile_root(z->layers.v[i].torch));
	if (!r)
		r = cfs_ds_stage0_candidates(z, total);
	for (uint32_t i = 0; !r && i < z->layers.n; i++)
		r = add_layer(z, &z->layers.v[i]);
	return r;
}

/* ---- over the ranks ---- */

/* Two stages have only what is tied. */
static int check_stages(const struct cfs_ds_step *step, uint32_t a, uint32_t b,
			struct cfs_error *err)
{
	const struct cfs_catalogue *cat = step->base.ranks[a].catalogue;

	for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
		const char *name = cfs_catalogue_param(cat, i)->name;
		uint32_t unused;

		if (cfs_ds_layer_parse(name).form == CFS_DS_FORM_TIED ||
		    cfs_catalogue_find(step->base.ranks[b].catalogue, name,
				       &unused))
			continue;
		return cfs_fail(err, -ENOTSUP,
				"stage 0: %s fits the optimizers of two "
				"stages, in %s and in %s",
				name, step->ranks[a].model[0].name,
				step->ranks[b].model[0].name);
	}
	return 0;
}

static int check_groups(const struct cfs_ds_rank *a,
			const struct cfs_ds_rank *b, struct cfs_error *err)
{
	if (a->n_groups != b->n_groups)
		return cfs_fail(err, -EINVAL,
				"%s has %u parameter groups, %s %u",
				a->model[0].name, a->n_groups, b->model[0].name,
				b->n_groups);
	for (uint32_t g = 0; g < a->n_groups; g++) {
		const struct cfs_node *x =
			cfs_node_get(a->groups[g].scalars, "step");
		const struct cfs_node *y =
			cfs_node_get(b->groups[g].scalars, "step");
		int64_t v, w;

		if (!cfs_node_as_int(x, &v) || !cfs_node_as_int(y, &w) ||
		    v == w)
			continue;
		return cfs_fail(err, -EINVAL,
				"%s and %s are not of one save: step is %lld "
				"there and %lld here",
				a->model[0].name, b->model[0].name,
				(long long)v, (long long)w);
	}
	return 0;
}

int cfs_ds_stage0_agree(const struct cfs_ds_step *step, struct cfs_error *err)
{
	uint32_t tp = step->base.topology.tp;
	int r = 0;

	for (uint32_t m = 1; !r && m < step->base.n_ranks; m++)
		r = check_groups(&step->ranks[0], &step->ranks[m], err);
	for (uint32_t a = 0; a < step->base.n_ranks; a++)
		for (uint32_t b = a + tp; !r && b < step->base.n_ranks; b += tp)
			r = check_stages(step, a, b, err);
	return r;
}
