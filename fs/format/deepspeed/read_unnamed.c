/*
 * BF16_Optimizer in stage 0 of a pipeline: the framework takes it for an
 * optimizer that is not partitioned, saves it in the model states too, and
 * writes no param_shapes.  The slices it maps by name do tell what lies where,
 * if there is one data-parallel rank, and the layer files which shape it has.
 */
#include "fs/format/deepspeed/layer_files.h"
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"

bool cfs_ds_is_twice(const struct cfs_ds_rank *rank)
{
	const struct cfs_node *whole =
		cfs_node_get(rank->model_root, "optimizer");

	return rank->n_optim &&
	       cfs_node_get(whole, "single_partition_of_fp32_groups") &&
	       !cfs_node_get(whole, "zero_stage") &&
	       !cfs_node_get(rank->optim_state, "zero_stage") &&
	       cfs_node_is_none(cfs_node_get(rank->model_root, "module"));
}

/* The shape of the tensor the pipeline calls @name. */
static bool find_shape(const struct cfs_ds_layer_files *files, const char *name,
		       struct cfs_torch_tensor *out)
{
	for (uint32_t i = 0; i < files->n; i++) {
		const struct cfs_node *root =
			cfs_torchfile_root(files->v[i].torch);

		for (uint32_t k = 0; k < cfs_map_node_count(root); k++) {
			struct cfs_node *key, *value;
			char full[512];

			cfs_map_node_pair(root, k, &key, &value);
			if (cfs_node_as_str(key) &&
			    !cfs_ds_layer_files_name(files, files->v[i].layer,
						     cfs_node_as_str(key), full,
						     sizeof(full)) &&
			    !strcmp(full, name))
				return !cfs_torch_tensor_get(value, out);
		}
	}
	return false;
}

static struct cfs_node *shape_node(struct cfs_pickle *doc,
				   const struct cfs_torch_tensor *t)
{
	struct cfs_node *dims[CFS_TENSOR_DIMS_MAX];

	for (uint32_t i = 0; i < t->ndim; i++)
		dims[i] = cfs_node_int(doc, (int64_t)t->shape[i]);
	return cfs_node_tuple(doc, dims, t->ndim);
}

/* The slices must lie end to end, each as long as its tensor. */
static int read_group(const struct cfs_ds_layout *layout,
		      const struct cfs_ds_layer_files *files,
		      const struct cfs_node *map, struct cfs_node *shapes,
		      struct cfs_error *err)
{
	struct cfs_pickle *doc = layout->step->scratch;
	uint64_t at = 0;

	for (uint32_t i = 0; i < cfs_map_node_count(map); i++) {
		struct cfs_node *key, *value;
		struct cfs_torch_tensor t;
		uint64_t numel, start;
		const char *name;

		cfs_map_node_pair(map, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name || !cfs_ds_fragment(value, &numel, &start))
			return cfs_fail(err, -EBADMSG, "param_slice_mappings");
		if (!find_shape(files, name, &t) || t.numel != numel ||
		    start != at)
			return cfs_fail(err, -EINVAL,
					"param_slice_mappings has %s where no "
					"tensor of the layer files fits",
					name);
		at += numel;
		cfs_node_set(doc, shapes, key, shape_node(doc, &t));
	}
	return 0;
}

int cfs_ds_unnamed_shapes(const struct cfs_ds_layout *layout,
			  struct cfs_node **shapes_out, struct cfs_error *err)
{
	_cleanup_(cfs_ds_layer_files_fini) struct cfs_ds_layer_files files = {
		0};
	const struct cfs_node *maps =
		cfs_node_get(layout->rank->optim_state, "param_slice_mappings");
	struct cfs_pickle *doc = layout->step->scratch;
	struct cfs_node *list = cfs_node_list(doc);
	int r = 0;

	if (layout->dp != 1 || cfs_seq_node_count(maps) != layout->n_units)
		return cfs_fail(err, -ENOTSUP,
				"%s: no param_shapes, and the slices of %u "
				"ranks do not tell the order of the "
				"parameters; save it with ZeRO stage 1",
				layout->rank->model[0].name, layout->dp);
	r = cfs_ds_layer_files_open(layout->step,
				    layout->mp % layout->step->base.topology.tp,
				    &files, err);
	for (uint32_t u = 0; !r && u < layout->n_units; u++) {
		struct cfs_node *shapes = cfs_node_ordereddict(doc);

		r = read_group(layout, &files, cfs_seq_node_item(maps, u),
			       shapes, err);
		cfs_node_append(doc, list, shapes);
	}
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s",
				       layout->rank->optim[0].name);
	*shapes_out = list;
	return cfs_pickle_failed(doc) ? -ENOMEM : 0;
}
