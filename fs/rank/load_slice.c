/*
 * Slices of whole tensors as maps: plain ranges where what is asked for lies
 * together or in long runs, else gathered out of what lies around it.
 *
 *   box in its tensor:   ··XXXX··   a run: what lies together of one row
 *                        ··XXXX··   span: from the first to the last of it
 */
#include <errno.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/rank/load.h"
#include "store/util/checked.h"

#define PAGE_TENSORS 500
#define LONG_RUN     ((uint64_t)64 << 10) /* bytes worth a range of their own */

/* ---- what there is ---- */

/* The role @role is read of: stage 3 has no weights but their masters, of which
 * they are the rounded values.  -ENOENT. */
static int source_role(const struct cfs_catalogue *cat, uint32_t param,
		       uint32_t role, uint32_t *out)
{
	*out = role;
	if (cfs_catalogue_has(cat, param, role))
		return 0;
	*out = CFS_ROLE_MASTER;
	return role == CFS_ROLE_WEIGHT &&
			       cfs_catalogue_dtype(cat, param, role) &&
			       cfs_catalogue_has(cat, param, CFS_ROLE_MASTER)
		       ? 0
		       : -ENOENT;
}

static int add_tensor(const struct cfs_catalogue *cat, uint32_t param,
		      uint32_t role, cJSON *tensors)
{
	const struct cfs_param *p = cfs_catalogue_param(cat, param);
	const char *dtype =
		cfs_op_dtype_name(cfs_catalogue_dtype(cat, param, role));
	cJSON *tensor, *shape;

	if (!dtype)
		return 0; /* none that a rank could name */
	tensor = cJSON_CreateObject();
	if (!tensor || !cJSON_AddItemToArray(tensors, tensor))
		return -ENOMEM;
	shape = cJSON_AddArrayToObject(tensor, "shape");
	if (!cJSON_AddStringToObject(tensor, "name", p->name) ||
	    !cJSON_AddStringToObject(tensor, "role",
				     cfs_catalogue_role_name(cat, role)) ||
	    !cJSON_AddStringToObject(tensor, "dtype", dtype) || !shape)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->ndim; i++)
		if (!cJSON_AddItemToArray(
			    shape, cJSON_CreateNumber((double)p->shape[i])))
			return -ENOMEM;
	return 0;
}

int cfs_load_list(const struct cfs_catalogue *cat, uint64_t from, cJSON *result)
{
	uint32_t n_roles = cfs_catalogue_roles(cat), source;
	uint64_t n = (uint64_t)cfs_catalogue_params(cat) * n_roles;
	cJSON *tensors = cJSON_AddArrayToObject(result, "tensors");
	unsigned n_added = 0;
	int r = tensors ? 0 : -ENOMEM;

	for (; !r && from < n && n_added < PAGE_TENSORS; from++) {
		uint32_t param = (uint32_t)(from / n_roles);
		uint32_t role = (uint32_t)(from % n_roles);

		if (cfs_catalogue_param(cat, param)->ndim > CFS_PUT_DIMS_MAX ||
		    source_role(cat, param, role, &source) < 0)
			continue;
		r = add_tensor(cat, param, role, tensors);
		n_added++;
	}
	if (!r && from < n &&
	    !cJSON_AddNumberToObject(result, "next", (double)from))
		r = -ENOMEM;
	return r;
}

/* ---- a box ---- */

struct box {
	const struct cfs_catalogue *cat;
	const struct cfs_param *p;
	uint32_t param, role; /* that is read */
	uint32_t size;	      /* bytes of an element */
	const uint64_t *offset, *extent;
	uint64_t stride[CFS_PUT_DIMS_MAX]; /* elements */
	uint64_t numel;
	uint64_t run;	  /* elements */
	uint32_t n_outer; /* dimensions that number runs */
	uint64_t flat_start, flat_count;
};

static int check_box(struct box *b, const struct cfs_op *op,
		     struct cfs_error *err)
{
	const struct cfs_put *asked = &op->put;

	if (asked->ndim != b->p->ndim)
		return cfs_fail(err, -EINVAL, "%s has %u dimensions, not %u",
				b->p->name, b->p->ndim, asked->ndim);
	b->numel = 1;
	for (uint32_t i = 0; i < asked->ndim; i++) {
		if (!cfs_range_ok(b->offset[i], b->extent[i], b->p->shape[i]))
			return cfs_fail(err, -EINVAL,
					"%s: dimension %u has %llu elements, "
					"and %llu from %llu on are asked for",
					b->p->name, i,
					(unsigned long long)b->p->shape[i],
					(unsigned long long)b->extent[i],
					(unsigned long long)b->offset[i]);
		b->numel *= b->extent[i];
	}
	b->flat_start = asked->flat_start;
	b->flat_count = op->has_flat ? asked->flat_count : b->numel;
	if (!cfs_range_ok(b->flat_start, b->flat_count, b->numel))
		return cfs_fail(err, -EINVAL,
				"%s: the slice has %llu elements, and %llu "
				"from %llu on are asked for",
				b->p->name, (unsigned long long)b->numel,
				(unsigned long long)b->flat_count,
				(unsigned long long)b->flat_start);
	return 0;
}

static void find_runs(struct box *b)
{
	uint64_t stride = 1;
	uint32_t i = b->p->ndim;

	for (uint32_t k = i; k-- > 0;) {
		b->stride[k] = stride;
		stride *= b->p->shape[k];
	}
	b->run = 1;
	while (i > 0 && b->extent[i - 1] == b->p->shape[i - 1])
		b->run *= b->extent[--i];
	if (i > 0)
		b->run *= b->extent[--i];
	b->n_outer = i;
}

/* The element of the tensor where run @run of the box begins. */
static uint64_t run_start(const struct box *b, uint64_t run)
{
	uint64_t at = 0;

	for (uint32_t i = b->p->ndim; i-- > 0;) {
		at += b->offset[i] * b->stride[i];
		if (i < b->n_outer) {
			at += run % b->extent[i] * b->stride[i];
			run /= b->extent[i];
		}
	}
	return at;
}

/* Runs @first to @last, each a range. */
static int append_runs(const struct box *b, struct cfs_map *map, uint64_t first,
		       uint64_t last)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *span =
		cfs_map_new(cfs_map_filetab(map));
	uint64_t base = run_start(b, first);
	uint64_t end = b->flat_start + b->flat_count;
	int r = span ? cfs_catalogue_append(b->cat, b->param, b->role, base,
					    run_start(b, last) + b->run - base,
					    span)
		     : -ENOMEM;

	if (!r)
		cfs_map_seal(span);
	for (uint64_t i = first; !r && i <= last; i++) {
		uint64_t from = CFS_MAX(b->flat_start, i * b->run);
		uint64_t to = CFS_MIN(end, (i + 1) * b->run);
		uint64_t at = run_start(b, i) - base + (from - i * b->run);

		r = cfs_map_add_slice(map, span, at * b->size,
				      (to - from) * b->size);
	}
	return r;
}

static int append_gather(const struct box *b, struct cfs_map *map)
{
	struct cfs_filetab *files = cfs_map_filetab(map);
	_cleanup_(cfs_map_unrefp) struct cfs_map *span = cfs_map_new(files);
	_cleanup_(cfs_map_unrefp) struct cfs_map *all = cfs_map_new(files);
	uint64_t base = run_start(b, 0);
	uint64_t stride[CFS_PUT_DIMS_MAX], last;
	int r;

	if (!span || !all)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->p->ndim; i++)
		stride[i] = b->stride[i] * b->size;
	last = run_start(b, b->numel / b->run - 1) + b->run;
	r = cfs_catalogue_append(b->cat, b->param, b->role, base, last - base,
				 span);
	if (!r)
		r = cfs_map_add_gather(all, span, b->size, b->p->ndim,
				       b->extent, stride, 0);
	if (!r)
		cfs_map_seal(all);
	return r < 0 ? r
		     : cfs_map_add_slice(map, all, b->flat_start * b->size,
					 b->flat_count * b->size);
}

static int append_box(const struct box *b, struct cfs_map *map)
{
	uint64_t first, last;

	if (!b->flat_count)
		return 0;
	first = b->flat_start / b->run;
	last = (b->flat_start + b->flat_count - 1) / b->run;
	if (first == last)
		return cfs_catalogue_append(b->cat, b->param, b->role,
					    run_start(b, first) +
						    b->flat_start % b->run,
					    b->flat_count, map);
	if (b->run * b->size >= LONG_RUN)
		return append_runs(b, map, first, last);
	return append_gather(b, map);
}

/* ---- a slice ---- */

static int find_tensor(struct box *b, const char *name, const char *role,
		       uint32_t *role_out, struct cfs_error *err)
{
	uint32_t n = cfs_catalogue_roles(b->cat), k = 0;

	if (cfs_catalogue_find(b->cat, name, &b->param) < 0)
		return cfs_fail(err, -ENOENT, "the step has no tensor %s",
				name);
	while (k < n && strcmp(cfs_catalogue_role_name(b->cat, k), role) != 0)
		k++;
	if (k == n || source_role(b->cat, b->param, k, &b->role) < 0)
		return cfs_fail(err, -ENOENT, "the step has no %s of %s", role,
				name);
	b->p = cfs_catalogue_param(b->cat, b->param);
	b->size =
		cfs_dtype_size(cfs_catalogue_dtype(b->cat, b->param, b->role));
	*role_out = k;
	return 0;
}

/* @map with other elements, in place of it. */
static int cast(struct cfs_map **map, enum cfs_dtype from, enum cfs_dtype to,
		const char *name, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *out = NULL;
	int r;

	if (from == to)
		return 0;
	if (!cfs_dtype_is_float(from) || !cfs_dtype_is_float(to))
		return cfs_fail(err, -EINVAL,
				"%s: it is %s in the step, which is not read "
				"as %s",
				name, cfs_dtype_name(from), cfs_dtype_name(to));
	out = cfs_map_new(cfs_map_filetab(*map));
	r = out ? cfs_map_add_cast(out, *map, from, to) : -ENOMEM;
	if (r < 0)
		return r;
	cfs_map_unref(*map);
	*map = cfs_steal(out);
	return 0;
}

int cfs_load_slice(struct cfs_step *whole, const struct cfs_op *op,
		   struct cfs_map **out, struct cfs_error *err)
{
	struct box b = {.cat = whole->ranks[0].catalogue,
			.offset = op->put.offset,
			.extent = op->put.extent};
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(whole->files);
	const char *name = op->put.name;
	enum cfs_dtype stored, dtype;
	uint32_t role = 0;
	int r;

	if (!map)
		return -ENOMEM;
	r = find_tensor(&b, name, op->put.role, &role, err);
	if (!r)
		r = check_box(&b, op, err);
	if (r < 0)
		return r;
	find_runs(&b);
	r = append_box(&b, map);
	stored = cfs_catalogue_dtype(b.cat, b.param, b.role);
	dtype = cfs_catalogue_dtype(b.cat, b.param, role);
	if (!r)
		r = cast(&map, stored, dtype, name, err);
	if (!r)
		r = cast(&map, dtype, op->put.dtype, name, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s of %s", op->put.role, name);
	cfs_map_seal(map);
	*out = cfs_steal(map);
	return 0;
}
