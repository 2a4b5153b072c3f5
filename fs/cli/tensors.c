/* Collecting tensors, and making one's map only when it is wanted. */
#include "fs/cli/tensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/nodes.h"
#include "fs/format/deepspeed/deepspeed.h"
#include "fs/format/format.h"
#include "fs/reslice/catalogue.h"
#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/util/arena.h"
#include "store/util/error.h"
#include "store/util/grow.h"

static struct cfs_tensors_item *add_item(struct cfs_tensors *set)
{
	if (!CFS_GROW(set->items, set->n, set->cap))
		return NULL;
	set->items[set->n] = (struct cfs_tensors_item){0};
	return &set->items[set->n++];
}

static int by_name(const void *a, const void *b)
{
	const struct cfs_tensors_item *x = a, *y = b;
	int c = strverscmp(x->name, y->name);

	return c ? c : strcmp(x->role, y->role);
}

static void sort(struct cfs_tensors *set)
{
	if (set->n)
		qsort(set->items, set->n, sizeof(*set->items), by_name);
}

static int init(struct cfs_tensors *set, struct cfs_filetab *tab,
		struct cfs_filepool *pool)
{
	*set = (struct cfs_tensors){.tab = tab, .pool = pool};
	set->arena = cfs_arena_new(0);
	return set->arena ? 0 : -ENOMEM;
}

/* "mp_rank_01/NAME", or NAME alone where there is one rank. */
static const char *full_name(struct cfs_tensors *set, uint32_t rank,
			     uint32_t n_ranks, const char *name)
{
	char prefix[32] = "";
	char *full;
	size_t len;

	if (n_ranks > 1)
		snprintf(prefix, sizeof(prefix), "mp_rank_%02" PRIu32 "/",
			 rank);
	len = strlen(prefix) + strlen(name);
	full = cfs_arena_alloc(set->arena, len + 1);
	if (full)
		snprintf(full, len + 1, "%s%s", prefix, name);
	return full;
}

static int add_param(struct cfs_tensors *set, const struct cfs_catalogue *cat,
		     uint32_t index, const char *name)
{
	const struct cfs_param *param = cfs_catalogue_param(cat, index);
	uint32_t role;

	for (role = 0; role < cfs_catalogue_roles(cat); role++) {
		struct cfs_tensors_item *item;

		if (!cfs_catalogue_has(cat, index, role))
			continue;
		item = add_item(set);
		if (!item)
			return -ENOMEM;
		item->name = name;
		item->role = cfs_catalogue_role_name(cat, role);
		item->dtype = cfs_catalogue_dtype(cat, index, role);
		item->ndim = param->ndim;
		item->shape = param->shape;
		item->numel = param->numel;
		item->catalogue = cat;
		item->param = index;
		item->role_index = role;
	}
	return 0;
}

static int add_params(struct cfs_tensors *set, const struct cfs_step *step,
		      uint32_t rank)
{
	const struct cfs_catalogue *cat = step->ranks[rank].catalogue;
	uint32_t i;
	int r = 0;

	for (i = 0; r == 0 && i < cfs_catalogue_params(cat); i++) {
		const char *name = full_name(set, rank, step->n_ranks,
					     cfs_catalogue_param(cat, i)->name);

		r = name ? add_param(set, cat, i, name) : -ENOMEM;
	}
	return r;
}

/* A tensor of a tree; those of other kinds are left out. */
static int add_torch(struct cfs_tensors *set, const char *name,
		     const char *role, const struct cfs_node *node)
{
	struct cfs_torch_tensor *t = cfs_arena_alloc(set->arena, sizeof(*t));
	struct cfs_tensors_item *item;
	int r;

	if (!t || !name)
		return -ENOMEM;
	r = cfs_torch_tensor_get(node, t);
	if (r < 0 || !t->storage)
		return 0;
	item = add_item(set);
	if (!item)
		return -ENOMEM;
	item->name = name;
	item->role = role;
	item->dtype = t->dtype;
	item->ndim = t->ndim;
	item->shape = t->shape;
	item->numel = t->numel;
	item->tensor = t;
	return 0;
}

/* Does the file list its buffers, and not this one?  (then it is another name
 * of a shared parameter) */
static bool is_alias(const struct cfs_node *buffer_names, const char *name)
{
	uint32_t i, n = cfs_seq_node_count(buffer_names);

	for (i = 0; i < n; i++) {
		const char *s =
			cfs_node_as_str(cfs_seq_node_item(buffer_names, i));

		if (s && strcmp(s, name) == 0)
			return false;
	}
	return cfs_node_is_seq(buffer_names);
}

/* Tensors of the model that are no parameter. */
static int add_buffers(struct cfs_tensors *set, struct cfs_step *step,
		       uint32_t rank)
{
	const struct cfs_ds_step *ds = cfs_ds_step_of(step);
	const struct cfs_catalogue *cat = step->ranks[rank].catalogue;
	const struct cfs_node *module =
		cfs_node_get(ds->ranks[rank].model_root, "module");
	struct cfs_node *key, *value;
	uint32_t i, n = cfs_map_node_count(module), found;
	int r = 0;

	for (i = 0; r == 0 && i < n; i++) {
		cfs_map_node_pair(module, i, &key, &value);
		if (!cfs_node_as_str(key) || !cfs_torch_is_tensor(value) ||
		    cfs_catalogue_find(cat, cfs_node_as_str(key), &found) ==
			    0 ||
		    is_alias(cfs_node_get(ds->ranks[rank].model_root,
					  "buffer_names"),
			     cfs_node_as_str(key)))
			continue;
		r = add_torch(set,
			      full_name(set, rank, step->n_ranks,
					cfs_node_as_str(key)),
			      "buffer", value);
	}
	return r;
}

/* State that a group has once, such as a step count kept as a tensor. */
static int add_scalars(struct cfs_tensors *set, struct cfs_step *step,
		       uint32_t rank)
{
	const struct cfs_ds_rank *dr = &cfs_ds_step_of(step)->ranks[rank];
	struct cfs_node *key, *value;
	uint32_t g, i;
	int r = 0;

	for (g = 0; g < dr->n_groups; g++) {
		const struct cfs_node *map = dr->groups[g].scalars;
		char name[32];

		snprintf(name, sizeof(name), "group %" PRIu32, g);
		for (i = 0; r == 0 && i < cfs_map_node_count(map); i++) {
			cfs_map_node_pair(map, i, &key, &value);
			if (cfs_node_as_str(key) && cfs_torch_is_tensor(value))
				r = add_torch(set,
					      full_name(set, rank,
							step->n_ranks, name),
					      cfs_node_as_str(key), value);
		}
	}
	return r;
}

int cfs_tensors_of_step(struct cfs_step *step, struct cfs_tensors *out,
			struct cfs_error *err)
{
	_cleanup_(cfs_tensors_free) struct cfs_tensors set = {0};
	uint32_t rank;
	int r;

	r = init(&set, step->files, step->pool);
	for (rank = 0; r == 0 && rank < step->n_ranks; rank++) {
		r = add_params(&set, step, rank);
		if (r == 0 && step->format == &cfs_format_deepspeed)
			r = add_buffers(&set, step, rank);
		if (r == 0 && step->format == &cfs_format_deepspeed)
			r = add_scalars(&set, step, rank);
	}
	if (r < 0)
		return cfs_fail(err, r, "%s: out of memory", step->path);
	sort(&set);
	*out = set;
	set = (struct cfs_tensors){0};
	return 0;
}

static int add_leaf(void *arg, const char *path, const struct cfs_node *node)
{
	struct cfs_tensors *set = arg;

	if (!cfs_torch_is_tensor(node))
		return 0;
	return add_torch(set, cfs_arena_strndup(set->arena, path, strlen(path)),
			 "tensor", node);
}

int cfs_tensors_of_tree(const struct cfs_node *root, struct cfs_filetab *tab,
			struct cfs_filepool *pool, struct cfs_tensors *out,
			struct cfs_error *err)
{
	_cleanup_(cfs_tensors_free) struct cfs_tensors set = {0};
	int r;

	r = init(&set, tab, pool);
	if (r == 0)
		r = cfs_nodes_walk(root, cfs_torch_is_tensor, add_leaf, &set);
	if (r < 0)
		return cfs_fail(err, r, "its tensors: %s", strerror(-r));
	sort(&set);
	*out = set;
	set = (struct cfs_tensors){0};
	return 0;
}

void cfs_tensors_free(struct cfs_tensors *set)
{
	free(set->items);
	cfs_arena_freep(&set->arena);
	*set = (struct cfs_tensors){0};
}

uint64_t cfs_tensors_item_bytes(const struct cfs_tensors_item *item)
{
	return item->numel * cfs_dtype_size(item->dtype);
}

/* Where the storage lies, through the pool: the file as it was read. */
static int storage_offset(const struct cfs_torch_storage *storage,
			  struct cfs_filetab *tab, struct cfs_filepool *pool,
			  uint64_t *off_out, struct cfs_error *err)
{
	uint32_t index = cfs_torchfile_index(storage->file);
	struct cfs_file *file = NULL;
	int r;

	r = cfs_filepool_get(pool, cfs_filetab_path(tab, index),
			     cfs_filetab_version(tab, index), &file, err);
	if (r < 0)
		return r;
	r = cfs_torch_storage_extent(storage, file, off_out, err);
	cfs_filepool_put(pool, file);
	return r;
}

/* Elements in their strides: a gather over the storage. */
static int gather(const struct cfs_torch_tensor *t, uint64_t off,
		  struct cfs_filetab *tab, struct cfs_map *map)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *child = cfs_map_new(tab);
	uint32_t size = cfs_dtype_size(t->dtype), i;
	uint64_t strides[CFS_TENSOR_DIMS_MAX];
	int r;

	if (!child)
		return -ENOMEM;
	if (t->ndim > CFS_GATHER_DIMS_MAX)
		return -ENOTSUP;
	for (i = 0; i < t->ndim; i++)
		strides[i] = t->stride[i] * size;
	r = cfs_map_add_range(child, cfs_torchfile_index(t->storage->file), off,
			      t->storage->nbytes);
	if (r < 0)
		return r;
	return cfs_map_add_gather(map, child, size, t->ndim, t->shape, strides,
				  t->storage_offset * size);
}

int cfs_tensors_torch_map(const struct cfs_torch_tensor *t,
			  struct cfs_filetab *tab, struct cfs_filepool *pool,
			  struct cfs_map **map_out, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_map_new(tab);
	uint64_t size = cfs_dtype_size(t->dtype), off = 0;
	int r = 0;

	if (!map)
		return -ENOMEM;
	if (t->numel)
		r = storage_offset(t->storage, tab, pool, &off, err);
	if (r < 0)
		return r;
	if (t->contiguous || !t->numel)
		r = cfs_map_add_range(
			map, cfs_torchfile_index(t->storage->file),
			off + t->storage_offset * size, t->numel * size);
	else
		r = gather(t, off, tab, map);
	if (r < 0)
		return cfs_fail_prefix(err, r, "its elements");
	cfs_map_seal(map);
	*map_out = cfs_steal(map);
	return 0;
}

int cfs_tensors_map(const struct cfs_tensors *set,
		    const struct cfs_tensors_item *item,
		    struct cfs_map **map_out, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	int r;

	if (item->tensor)
		return cfs_tensors_torch_map(item->tensor, set->tab, set->pool,
					     map_out, err);
	map = cfs_map_new(set->tab);
	if (!map)
		return -ENOMEM;
	r = cfs_catalogue_append(item->catalogue, item->param, item->role_index,
				 0, item->numel, map);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s (%s)", item->name,
				       item->role);
	cfs_map_seal(map);
	*map_out = cfs_steal(map);
	return 0;
}
