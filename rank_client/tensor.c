#include "rank_client/tensor.h"

#include <errno.h>
#include <string.h>

#include "rank_client/error.h"
#include "rank_client/frame.h"
#include "store/util/error.h"

#define ELEMENTS_MAX (1ull << 53) /* as far as JSON counts */

static const struct {
	const char *name;
	uint32_t size;
} dtypes[] = {
	[CFS_RANK_F32] = {"float32", 4},   [CFS_RANK_F16] = {"float16", 2},
	[CFS_RANK_BF16] = {"bfloat16", 2}, [CFS_RANK_F64] = {"float64", 8},
	[CFS_RANK_I64] = {"int64", 8},	   [CFS_RANK_I32] = {"int32", 4},
	[CFS_RANK_I16] = {"int16", 2},	   [CFS_RANK_I8] = {"int8", 1},
	[CFS_RANK_U8] = {"uint8", 1},	   [CFS_RANK_BOOL] = {"bool", 1},
};

static int check_box(const struct cfs_rank_tensor *t, uint64_t *count_out,
		     struct cfs_error *err)
{
	uint64_t all = 1, box = 1;
	uint32_t i;

	for (i = 0; i < t->ndim; i++) {
		if (t->extent[i] > t->shape[i] ||
		    t->offset[i] > t->shape[i] - t->extent[i])
			return cfs_fail(err, -EINVAL,
					"tensor %s: dimension %u: the slice "
					"leaves the shape",
					t->name, i);
		if (__builtin_mul_overflow(all, t->shape[i] ? t->shape[i] : 1,
					   &all) ||
		    all > ELEMENTS_MAX)
			return cfs_fail(err, -EINVAL,
					"tensor %s: too many elements",
					t->name);
		box *= t->extent[i];
	}
	*count_out = box;
	return 0;
}

int cfs_tensor_take(const struct cfs_rank_tensor *from,
		    struct cfs_rank_tensor *out, uint64_t *bytes_out,
		    struct cfs_error *err)
{
	uint64_t box = 0;
	int r;

	if (!from)
		return cfs_fail(err, -EINVAL, "no tensor is given");
	r = cfs_rank_take(out, sizeof(*out), from, err);
	if (r < 0)
		return r;
	if (!out->name || !out->name[0])
		return cfs_fail(err, -EINVAL, "a tensor has no name");
	if (!out->role || !out->role[0])
		return cfs_fail(err, -EINVAL, "tensor %s: no role", out->name);
	if (out->dtype >= CFS_ARRAY_SIZE(dtypes) || !dtypes[out->dtype].name)
		return cfs_fail(err, -EINVAL, "tensor %s: %u is no dtype",
				out->name, out->dtype);
	if (out->ndim > CFS_RANK_DIMS_MAX)
		return cfs_fail(err, -EINVAL,
				"tensor %s: %u dimensions, of %d at most",
				out->name, out->ndim, CFS_RANK_DIMS_MAX);
	r = check_box(out, &box, err);
	if (r < 0)
		return r;
	if (!out->flat_count && !out->flat_start)
		out->flat_count = box;
	if (out->flat_count > box || out->flat_start > box - out->flat_count ||
	    (!out->flat_count && out->flat_start))
		return cfs_fail(err, -EINVAL,
				"tensor %s: elements %llu to %llu of a slice "
				"of %llu",
				out->name, (unsigned long long)out->flat_start,
				(unsigned long long)out->flat_start +
					out->flat_count,
				(unsigned long long)box);
	*bytes_out = out->flat_count * dtypes[out->dtype].size;
	return 0;
}

void cfs_tensor_tell(const struct cfs_rank_tensor *t, int with_shape,
		     cJSON *json)
{
	uint64_t flat[2] = {t->flat_start, t->flat_count};

	cJSON_AddStringToObject(json, "name", t->name);
	cJSON_AddStringToObject(json, "role", t->role);
	cJSON_AddStringToObject(json, "dtype", dtypes[t->dtype].name);
	if (with_shape)
		cfs_frame_add_u64s(json, "shape", t->shape, t->ndim);
	cfs_frame_add_u64s(json, "offset", t->offset, t->ndim);
	cfs_frame_add_u64s(json, "extent", t->extent, t->ndim);
	cfs_frame_add_u64s(json, "flat", flat, 2);
}

static uint32_t dtype_of(const char *name)
{
	uint32_t i;

	for (i = 0; name && i < CFS_ARRAY_SIZE(dtypes); i++)
		if (dtypes[i].name && !strcmp(dtypes[i].name, name))
			return i;
	return 0;
}

int cfs_tensor_read(const cJSON *json, struct cfs_rank_tensor *out)
{
	const cJSON *shape = cJSON_GetObjectItemCaseSensitive(json, "shape");
	const cJSON *v;
	uint64_t count = 1;

	memset(out, 0, sizeof(*out));
	out->size = sizeof(*out);
	out->name = cfs_frame_get_str(json, "name");
	out->role = cfs_frame_get_str(json, "role");
	out->dtype = dtype_of(cfs_frame_get_str(json, "dtype"));
	if (!out->name || !out->role || !out->dtype || !cJSON_IsArray(shape))
		return -EBADMSG;
	cJSON_ArrayForEach(v, shape)
	{
		if (out->ndim == CFS_RANK_DIMS_MAX || !cJSON_IsNumber(v) ||
		    !(v->valuedouble >= 0) || v->valuedouble > 9e15)
			return -EBADMSG;
		out->shape[out->ndim] = (uint64_t)v->valuedouble;
		out->extent[out->ndim] = out->shape[out->ndim];
		count *= out->shape[out->ndim++];
	}
	out->flat_count = count;
	return 0;
}
