/* Building the content of a file of torch.save; torch_layout.c lays it out. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_internal.h"
#include "fs/container/torch_writer.h"
#include "store/util/arena.h"
#include "store/util/checked.h"
#include "store/util/grow.h"

struct cfs_torch_writer *cfs_torch_writer_new(struct cfs_filetab *tab,
					      const char *prefix)
{
	_cleanup_(cfs_torch_writer_freep) struct cfs_torch_writer *w = NULL;

	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->doc = cfs_pickle_new(NULL);
	w->tab = cfs_filetab_ref(tab);
	w->prefix = strdup(prefix);
	if (!w->doc || !w->prefix)
		return NULL;
	return cfs_steal(w);
}

void cfs_torch_writer_free(struct cfs_torch_writer *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->n_own; i++)
		cfs_map_unref(w->own[i]->base.payload);
	free(w->own);
	cfs_crc_table_free(&w->crcs);
	cfs_pickle_free(w->doc);
	cfs_filetab_unref(w->tab);
	free(w->prefix);
	free(w);
}

void cfs_torch_writer_freep(struct cfs_torch_writer **w)
{
	cfs_torch_writer_free(*w);
}

struct cfs_pickle *cfs_torch_writer_doc(struct cfs_torch_writer *w)
{
	return w->doc;
}

void cfs_torch_writer_note_crc(struct cfs_torch_writer *w, uint32_t file,
			       uint64_t off, uint64_t len, uint32_t crc)
{
	if (crc)
		(void)!cfs_crc_table_add(&w->crcs, file, off, len, crc);
}

static bool own_push(struct cfs_torch_writer *w, struct cfs_torch_own *s)
{
	if (!CFS_GROW(w->own, w->n_own, w->cap_own))
		return false;
	w->own[w->n_own++] = s;
	return true;
}

/* Class, dtype and counts of a storage of @numel elements of @dtype. */
static bool set_class(struct cfs_torch_own *s, enum cfs_dtype dtype,
		      uint64_t numel)
{
	const char *cls = cfs_torch_storage_class(dtype);

	if (!cfs_torch_dtype_name(dtype) ||
	    !cfs_mul_u64(numel, cfs_dtype_size(dtype), &s->base.nbytes))
		return false;
	s->elements = dtype;
	s->base.dtype = cls ? dtype : CFS_U8;
	s->base.cls_module = cls ? "torch" : "torch.storage";
	s->base.cls_name = cls ? cls : "UntypedStorage";
	s->base.numel = cls ? numel : s->base.nbytes;
	return true;
}

static struct cfs_torch_own *new_own(struct cfs_torch_writer *w,
				     enum cfs_dtype dtype, uint64_t numel,
				     const char *location)
{
	struct cfs_torch_own *s =
		cfs_arena_alloc(w->doc->arena, sizeof(struct cfs_torch_own));

	if (!s || !set_class(s, dtype, numel))
		return NULL;
	if (!location)
		location = "cpu";
	s->base.location =
		cfs_arena_strndup(w->doc->arena, location, strlen(location));
	return s->base.location ? s : NULL;
}

const struct cfs_torch_storage *
cfs_torch_writer_storage(struct cfs_torch_writer *w, enum cfs_dtype dtype,
			 uint64_t numel, struct cfs_map *payload,
			 const uint32_t *crc, const char *location)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		payload ? cfs_map_ref(payload) : cfs_map_new(w->tab);
	struct cfs_torch_own *s =
		map ? new_own(w, dtype, numel, location) : NULL;

	if (!s || s->base.nbytes != cfs_map_size(map) || !own_push(w, s)) {
		w->doc->failed = true;
		return NULL;
	}
	cfs_map_seal(map);
	s->base.payload = cfs_steal(map);
	if (crc) {
		s->base.crc = *crc;
		s->base.crc_known = true;
	}
	return &s->base;
}

/* The element type of tensors over @storage, NONE if it does not tell. */
static enum cfs_dtype elements_of(const struct cfs_torch_storage *storage)
{
	/* what no file has was made by new_own() */
	static_assert(offsetof(struct cfs_torch_own, base) == 0, "downcast");
	if (!storage->file)
		return ((const struct cfs_torch_own *)(const void *)storage)
			->elements;
	return cfs_torch_class_untyped(storage) ? CFS_DTYPE_NONE
						: storage->dtype;
}

static struct cfs_node *dims(struct cfs_pickle *doc, uint32_t ndim,
			     const uint64_t *v)
{
	struct cfs_node *items[CFS_TENSOR_DIMS_MAX];

	for (uint32_t i = 0; i < ndim; i++)
		items[i] = cfs_node_int(doc, (int64_t)v[i]);
	return cfs_node_tuple(doc, items, ndim);
}

struct cfs_node *
cfs_torch_writer_strided(struct cfs_torch_writer *w,
			 const struct cfs_torch_storage *storage,
			 uint64_t offset, uint32_t ndim, const uint64_t *shape,
			 const uint64_t *stride, bool requires_grad)
{
	const enum cfs_dtype dtype =
		storage ? elements_of(storage) : CFS_DTYPE_NONE;
	const bool v3 = storage && cfs_torch_class_untyped(storage);
	struct cfs_pickle *doc = w->doc;
	struct cfs_node *args[7];

	assert(ndim <= CFS_TENSOR_DIMS_MAX);
	if (dtype == CFS_DTYPE_NONE || dtype == CFS_DTYPE_OTHER) {
		doc->failed = true;
		return NULL;
	}
	/* finish() makes the id, when the keys are known */
	args[0] = cfs_node_persid(doc, cfs_node_none(doc), storage);
	args[1] = cfs_node_int(doc, (int64_t)offset);
	args[2] = dims(doc, ndim, shape);
	args[3] = dims(doc, ndim, stride);
	args[4] = cfs_node_bool(doc, requires_grad);
	args[5] = cfs_node_ordereddict(doc); /* backward hooks: none */
	if (v3)
		args[6] = cfs_node_global(doc, "torch",
					  cfs_torch_dtype_name(dtype));
	return cfs_node_call(doc, "torch._utils",
			     v3 ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2",
			     cfs_node_tuple(doc, args, v3 ? 7 : 6));
}

struct cfs_node *
cfs_torch_writer_tensor(struct cfs_torch_writer *w,
			const struct cfs_torch_storage *storage,
			uint64_t offset, uint32_t ndim, const uint64_t *shape,
			bool requires_grad)
{
	uint64_t stride[CFS_TENSOR_DIMS_MAX], step = 1;

	assert(ndim <= CFS_TENSOR_DIMS_MAX);
	for (uint32_t i = ndim; i-- > 0;) {
		stride[i] = step;
		step *= shape[i] ? shape[i] : 1; /* as torch counts, too */
	}
	return cfs_torch_writer_strided(w, storage, offset, ndim, shape, stride,
					requires_grad);
}
