/* Nodes and tensors of a file that is being made. */
#include "fs/format/deepspeed/write.h"

#include <errno.h>

#include "store/util/error.h"

const char *cfs_ds_out_version(const struct cfs_ds_out *out)
{
	if (out->tree->version)
		return out->tree->version;
	return out->step->base.writer_version ? out->step->base.writer_version
					      : "";
}

bool cfs_ds_out_since(const struct cfs_ds_out *out, const char *version)
{
	return cfs_ds_version_cmp(cfs_ds_out_version(out), version) >= 0;
}

struct cfs_map *cfs_ds_out_map(const struct cfs_ds_out *out)
{
	return cfs_map_new(out->step->base.files);
}

struct cfs_node *cfs_ds_out_tensor(struct cfs_ds_out *out,
				   struct cfs_map *payload,
				   enum cfs_dtype dtype, uint32_t ndim,
				   const uint64_t *shape, bool requires_grad)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = payload;
	const struct cfs_torch_storage *storage;
	uint32_t size = cfs_dtype_size(dtype);
	uint64_t numel;

	if (!map || !size)
		return NULL;
	cfs_map_seal(map);
	numel = cfs_map_size(map) / size;
	storage = cfs_torch_writer_storage(out->w, dtype, numel, map, NULL,
					   "cpu");
	if (!storage)
		return NULL;
	return shape ? cfs_torch_writer_tensor(out->w, storage, 0, ndim, shape,
					       requires_grad)
		     : cfs_torch_writer_tensor(out->w, storage, 0, 1, &numel,
					       requires_grad);
}

int cfs_ds_out_fresh(struct cfs_ds_out *out, struct cfs_node *node,
		     struct cfs_node **node_out)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_torch_tensor t;
	struct cfs_file *file;
	uint64_t off, size;
	int r;

	*node_out = node;
	r = cfs_torch_tensor_get(node, &t);
	if (r == -ENOENT || r == -ENOTSUP)
		return 0;
	if (r < 0)
		return r;
	if (!t.storage || !t.storage->file || !t.contiguous)
		return 0;
	r = cfs_ds_out_open(out, cfs_torchfile_index(t.storage->file), &file);
	if (r < 0)
		return r;
	r = cfs_torch_storage_extent(t.storage, file, &off, out->err);
	if (r < 0)
		return r;
	map = cfs_ds_out_map(out);
	if (!map)
		return -ENOMEM;
	size = cfs_dtype_size(t.dtype);
	r = cfs_map_add_range(map, cfs_torchfile_index(t.storage->file),
			      off + t.storage_offset * size, t.numel * size);
	if (r < 0)
		return r;
	*node_out = cfs_ds_out_tensor(out, cfs_steal(map), t.dtype, t.ndim,
				      t.shape, t.requires_grad);
	return *node_out ? 0 : -ENOMEM;
}

struct cfs_node *cfs_ds_out_size(struct cfs_ds_out *out,
				 const struct cfs_param *param)
{
	struct cfs_node *dims[CFS_TENSOR_DIMS_MAX], *shape;

	if (param->ndim > CFS_TENSOR_DIMS_MAX)
		return NULL;
	for (uint32_t i = 0; i < param->ndim; i++)
		dims[i] = cfs_node_int(out->doc, (int64_t)param->shape[i]);
	shape = cfs_node_tuple(out->doc, dims, param->ndim);
	return cfs_node_call(out->doc, "torch", "Size",
			     cfs_node_tuple(out->doc, &shape, 1));
}

int cfs_ds_out_open(void *arg, uint32_t index, struct cfs_file **file_out)
{
	struct cfs_ds_out *out = arg;
	const struct cfs_step *step = &out->step->base;
	int r;

	if (!out->open[index]) {
		r = cfs_filepool_get(step->pool,
				     cfs_filetab_path(step->files, index),
				     cfs_filetab_version(step->files, index),
				     &out->open[index], out->err);
		if (r < 0)
			return r;
	}
	*file_out = out->open[index];
	return 0;
}

struct cfs_node *cfs_ds_out_object(struct cfs_ds_out *out, const char *module,
				   const char *cls, struct cfs_node *state)
{
	struct cfs_node *node = cfs_node_newobj(
		out->doc, module, cls, cfs_node_tuple(out->doc, NULL, 0));

	cfs_node_build(out->doc, node, state);
	return node;
}

void cfs_ds_out_replace(struct cfs_ds_out *out, struct cfs_node *map,
			const char *key, struct cfs_node *value)
{
	if (cfs_node_get(map, key))
		cfs_node_replace(out->doc, map, key, value);
}
