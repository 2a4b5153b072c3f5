/* Streaming over tensors with one block of memory. */
#include "fs/cli/elements.h"

#include <errno.h>
#include <string.h>

#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/util/endian.h"
#include "store/util/error.h"

int cfs_elements_open(struct cfs_map *map, struct cfs_filepool *pool,
		      enum cfs_dtype dtype, struct cfs_elements *out,
		      struct cfs_error *err)
{
	struct cfs_elements e = {.dtype = dtype};
	int r;

	e.size = cfs_dtype_size(dtype);
	if (!e.size)
		return cfs_fail(err, -ENOTSUP, "unknown element type");
	e.numel = cfs_map_size(map) / e.size;
	e.raw = malloc((size_t)CFS_ELEMENTS_BLOCK * e.size);
	if (!e.raw)
		return -ENOMEM;
	r = cfs_reader_open(map, pool, NULL, &e.reader, err);
	if (r < 0) {
		free(e.raw);
		return r;
	}
	*out = e;
	return 0;
}

void cfs_elements_close(struct cfs_elements *e)
{
	cfs_reader_closep(&e->reader);
	free(e->raw);
	*e = (struct cfs_elements){0};
}

int cfs_elements_next(struct cfs_elements *e, struct cfs_error *err)
{
	uint64_t left = e->numel - e->at;
	size_t n = (size_t)CFS_MIN(left, (uint64_t)CFS_ELEMENTS_BLOCK);
	ssize_t got;

	e->n = 0;
	if (!n)
		return 0;
	got = cfs_reader_pread(e->reader, e->raw, n * e->size, e->at * e->size);
	if (got < 0)
		return cfs_fail(err, (int)got, "cannot be read: %s",
				strerror((int)-got));
	if ((size_t)got != n * e->size)
		return cfs_fail(err, -EIO, "ends early");
	e->at += n;
	e->n = n;
	return 1;
}

bool cfs_elements_is_number(enum cfs_dtype dtype)
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
	case CFS_U16:
	case CFS_U32:
	case CFS_U64:
	case CFS_BOOL:
		return true;
	default:
		return false;
	}
}

static double integer(enum cfs_dtype dtype, const uint8_t *p)
{
	switch (dtype) {
	case CFS_I64:
		return (double)(int64_t)cfs_get_le64(p);
	case CFS_I32:
		return (int32_t)cfs_get_le32(p);
	case CFS_I16:
		return (int16_t)cfs_get_le16(p);
	case CFS_I8:
		return (int8_t)*p;
	case CFS_U64:
		return (double)cfs_get_le64(p);
	case CFS_U32:
		return cfs_get_le32(p);
	case CFS_U16:
		return cfs_get_le16(p);
	default:
		return *p;
	}
}

void cfs_elements_decode(enum cfs_dtype dtype, const void *raw, size_t n,
			 double *out)
{
	const uint8_t *p = raw;
	uint32_t size = cfs_dtype_size(dtype);
	size_t i;

	if (cfs_dtype_is_float(dtype)) {
		cfs_dtype_cast(dtype, raw, CFS_F64, out, n);
		return;
	}
	for (i = 0; i < n; i++)
		out[i] = integer(dtype, p + i * size);
}

static void count32(const uint8_t *p, size_t n, uint64_t *nan, uint64_t *inf)
{
	size_t i;

	for (i = 0; i < n; i++) {
		uint32_t v = cfs_get_le32(p + 4 * i) & 0x7fffffff;

		*nan += v > 0x7f800000;
		*inf += v == 0x7f800000;
	}
}

static void count16(const uint8_t *p, size_t n, uint16_t top, uint64_t *nan,
		    uint64_t *inf)
{
	size_t i;

	for (i = 0; i < n; i++) {
		uint16_t v = cfs_get_le16(p + 2 * i) & 0x7fff;

		*nan += v > top;
		*inf += v == top;
	}
}

static void count64(const uint8_t *p, size_t n, uint64_t *nan, uint64_t *inf)
{
	size_t i;

	for (i = 0; i < n; i++) {
		uint64_t v = cfs_get_le64(p + 8 * i) & INT64_MAX;

		*nan += v > 0x7ff0000000000000;
		*inf += v == 0x7ff0000000000000;
	}
}

void cfs_elements_count(enum cfs_dtype dtype, const void *raw, size_t n,
			uint64_t *nan, uint64_t *inf)
{
	switch (dtype) {
	case CFS_F64:
		count64(raw, n, nan, inf);
		break;
	case CFS_F32:
		count32(raw, n, nan, inf);
		break;
	case CFS_F16:
		count16(raw, n, 0x7c00, nan, inf);
		break;
	case CFS_BF16:
		count16(raw, n, 0x7f80, nan, inf);
		break;
	default:
		break;
	}
}
