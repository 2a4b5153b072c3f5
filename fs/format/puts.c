/* One put by itself: is it a slice of a tensor at all? */
#include "fs/format/puts.h"

#include <errno.h>
#include <string.h>

#include "store/util/checked.h"
#include "store/util/error.h"

#define NAME_BYTES_MAX	 1024u
#define ROLE_BYTES_MAX	 63u
#define TENSOR_BYTES_MAX (UINT64_C(1) << 62)

/* What a rank can say; include/ckptfs/rank.h. */
static bool known_dtype(enum cfs_dtype dtype)
{
	switch (dtype) {
	case CFS_F64:
	case CFS_F32:
	case CFS_F16:
	case CFS_BF16:
	case CFS_I64:
	case CFS_I32:
	case CFS_I16:
	case CFS_I8:
	case CFS_U8:
	case CFS_BOOL:
		return true;
	default:
		return false;
	}
}

/* Names go into errors of one line and into file names. */
static bool is_printable(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			return false;
	return true;
}

static int check_names(const struct cfs_put *put, struct cfs_error *err)
{
	const char *role = put->role;

	if (!put->name || !*put->name || !is_printable(put->name) ||
	    strlen(put->name) > NAME_BYTES_MAX)
		return cfs_fail(err, -EINVAL,
				"a tensor's name has 1 to %u bytes and no "
				"control characters",
				NAME_BYTES_MAX);
	if (!role || !*role || !is_printable(role) || *role == '.' ||
	    strchr(role, '/') || strlen(role) > ROLE_BYTES_MAX)
		return cfs_fail(err, -EINVAL,
				"tensor %s: its role has 1 to %u bytes, "
				"without '/' and a '.' in front",
				put->name, ROLE_BYTES_MAX);
	return 0;
}

static int check_shape(const struct cfs_put *put, uint64_t *box_out,
		       struct cfs_error *err)
{
	uint64_t bytes = cfs_dtype_size(put->dtype), box = 1;

	if (put->ndim > CFS_PUT_DIMS_MAX)
		return cfs_fail(err, -EINVAL,
				"tensor %s (%s): has more than %d dimensions",
				put->name, put->role, CFS_PUT_DIMS_MAX);
	for (uint32_t i = 0; i < put->ndim; i++) {
		/* a 0 elsewhere must not hide a product that overflows */
		if (!cfs_mul_u64(bytes, put->shape[i] ? put->shape[i] : 1,
				 &bytes) ||
		    bytes > TENSOR_BYTES_MAX)
			return cfs_fail(err, -EINVAL,
					"tensor %s (%s): its shape is too "
					"large",
					put->name, put->role);
		if (!cfs_range_ok(put->offset[i], put->extent[i],
				  put->shape[i]))
			return cfs_fail(
				err, -EINVAL,
				"tensor %s (%s): its slice ends outside its "
				"shape: %llu + %llu of %llu in dimension %u",
				put->name, put->role,
				(unsigned long long)put->offset[i],
				(unsigned long long)put->extent[i],
				(unsigned long long)put->shape[i], i);
		box *= put->extent[i];
	}
	*box_out = box;
	return 0;
}

int cfs_put_check(struct cfs_put *put, struct cfs_error *err)
{
	uint64_t box = 0;
	int r = check_names(put, err);

	if (!r && !known_dtype(put->dtype))
		r = cfs_fail(err, -EINVAL,
			     "tensor %s (%s): its type cannot be put",
			     put->name, put->role);
	if (!r)
		r = check_shape(put, &box, err);
	if (r < 0)
		return r;
	if (!put->flat_count && !put->flat_start)
		put->flat_count = box;
	if (!cfs_range_ok(put->flat_start, put->flat_count, box) ||
	    (box && !put->flat_count))
		return cfs_fail(err, -EINVAL,
				"tensor %s (%s): elements %llu + %llu are not "
				"inside the box of %llu",
				put->name, put->role,
				(unsigned long long)put->flat_start,
				(unsigned long long)put->flat_count,
				(unsigned long long)box);
	return 0;
}

uint64_t cfs_put_bytes(const struct cfs_put *put)
{
	return put->flat_count * cfs_dtype_size(put->dtype);
}
