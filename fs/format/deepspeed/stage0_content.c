/* Is a weight the rounded master? */
#include "fs/format/deepspeed/stage0.h"

#include <string.h>

#include "store/map/source.h"
#include "store/util/error.h"

#define CHUNK 2048ull
#define LARGE (1ull << 20) /* elements; of more only PART is compared */
#define PART  (1ull << 16)

/* Elements [@at, @at + @n) of @t. */
static bool load(struct cfs_file *file, const struct cfs_torch_tensor *t,
		 uint64_t at, uint64_t n, uint8_t *out)
{
	uint32_t size = cfs_dtype_size(t->dtype);
	uint64_t start;

	if (cfs_torch_storage_extent(t->storage, file, &start, NULL))
		return false;
	start += (t->storage_offset + at) * size;
	return !cfs_file_pread_all(file, out, n * size, start);
}

static const uint8_t *weight_head(struct cfs_ds_candidate *c)
{
	uint64_t n = CFS_MIN(c->t.numel, CFS_DS_HEAD);

	if (c->head)
		return c->head;
	c->head = malloc(n * cfs_dtype_size(c->t.dtype));
	if (c->head && !load(c->file, &c->t, 0, n, c->head)) {
		free(c->head);
		c->head = NULL;
	}
	return c->head;
}

static const uint8_t *master_head(struct cfs_ds_stage0 *z,
				  const struct cfs_torch_tensor *m,
				  uint64_t pos)
{
	struct cfs_ds_head *h = &z->head;
	uint64_t n = CFS_MIN(m->numel - pos, CFS_DS_HEAD);

	if (h->storage == m->storage && h->offset == m->storage_offset + pos &&
	    h->n >= n)
		return h->bytes;
	h->storage = NULL;
	if (!load(z->file, m, pos, n, h->bytes))
		return NULL;
	h->storage = m->storage;
	h->offset = m->storage_offset + pos;
	h->n = n;
	return h->bytes;
}

/* Most of what does not fit differs in its first elements, which are read
 * once though everything is compared with everything. */
static bool head_fits(struct cfs_ds_stage0 *z, struct cfs_ds_candidate *c,
		      const struct cfs_torch_tensor *m, uint64_t pos)
{
	uint64_t n = CFS_MIN(c->t.numel, CFS_DS_HEAD);
	const uint8_t *master = master_head(z, m, pos);
	const uint8_t *weight = weight_head(c);
	uint8_t rounded[CFS_DS_HEAD * 8];

	if (!master || !weight)
		return false;
	cfs_dtype_cast(m->dtype, master, c->t.dtype, rounded, n);
	return !memcmp(weight, rounded, n * cfs_dtype_size(c->t.dtype));
}

bool cfs_ds_stage0_fits(struct cfs_ds_stage0 *z, struct cfs_ds_candidate *c,
			const struct cfs_torch_tensor *master, uint64_t pos,
			bool whole)
{
	uint8_t weight[CHUNK * 8], fp32[CHUNK * 8], rounded[CHUNK * 8];
	uint64_t n = c->t.numel;

	if (!n)
		return true;
	if (!cfs_dtype_is_float(master->dtype) || !master->contiguous ||
	    !master->storage || pos > master->numel || n > master->numel - pos)
		return false;
	if (!head_fits(z, c, master, pos))
		return false;
	if (n > LARGE && !whole)
		n = PART;
	for (uint64_t at = CFS_DS_HEAD; at < n; at += CHUNK) {
		uint64_t k = CFS_MIN(n - at, CHUNK);

		if (!load(c->file, &c->t, at, k, weight) ||
		    !load(z->file, master, pos + at, k, fp32))
			return false;
		cfs_dtype_cast(master->dtype, fp32, c->t.dtype, rounded, k);
		if (memcmp(weight, rounded, k * cfs_dtype_size(c->t.dtype)))
			return false;
	}
	return true;
}
