/* Names torch has for element types and storage classes. */
#include <string.h>

#include "fs/container/torch_internal.h"

static const struct cfs_torch_class classes[] = {
	{"FloatStorage", CFS_F32, 4},
	{"DoubleStorage", CFS_F64, 8},
	{"HalfStorage", CFS_F16, 2},
	{"BFloat16Storage", CFS_BF16, 2},
	{"LongStorage", CFS_I64, 8},
	{"IntStorage", CFS_I32, 4},
	{"ShortStorage", CFS_I16, 2},
	{"CharStorage", CFS_I8, 1},
	{"ByteStorage", CFS_U8, 1},
	{"BoolStorage", CFS_BOOL, 1},
	{"ComplexFloatStorage", CFS_C64, 8},
	{"ComplexDoubleStorage", CFS_C128, 16},
	{"QInt8Storage", CFS_DTYPE_OTHER, 1},
	{"QUInt8Storage", CFS_DTYPE_OTHER, 1},
	{"QInt32Storage", CFS_DTYPE_OTHER, 4},
	{"QUInt4x2Storage", CFS_DTYPE_OTHER, 1},
	{"QUInt2x4Storage", CFS_DTYPE_OTHER, 1},
	{"UntypedStorage", CFS_U8, 1},
	{"_UntypedStorage", CFS_U8, 1}, /* torch 1.12 and 1.13 */
};

static const struct {
	const char *name;
	enum cfs_dtype dtype;
	uint32_t size;
} dtypes[] = {
	{"float64", CFS_F64, 8},
	{"float32", CFS_F32, 4},
	{"float16", CFS_F16, 2},
	{"bfloat16", CFS_BF16, 2},
	{"int64", CFS_I64, 8},
	{"int32", CFS_I32, 4},
	{"int16", CFS_I16, 2},
	{"int8", CFS_I8, 1},
	{"uint8", CFS_U8, 1},
	{"uint16", CFS_U16, 2},
	{"uint32", CFS_U32, 4},
	{"uint64", CFS_U64, 8},
	{"bool", CFS_BOOL, 1},
	{"complex64", CFS_C64, 8},
	{"complex128", CFS_C128, 16},
	{"float8_e4m3fn", CFS_F8_E4M3, 1},
	{"float8_e5m2", CFS_F8_E5M2, 1},
	{"float8_e4m3fnuz", CFS_DTYPE_OTHER, 1},
	{"float8_e5m2fnuz", CFS_DTYPE_OTHER, 1},
	{"float8_e8m0fnu", CFS_DTYPE_OTHER, 1},
	{"float4_e2m1fn_x2", CFS_DTYPE_OTHER, 1},
};

const struct cfs_torch_class *cfs_torch_class_find(const char *module,
						   const char *name)
{
	if (strcmp(module, "torch") && strcmp(module, "torch.cuda") &&
	    strcmp(module, "torch.storage"))
		return NULL;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(classes); i++) {
		if (!strcmp(classes[i].name, name))
			return &classes[i];
	}
	return NULL;
}

bool cfs_torch_class_untyped(const struct cfs_torch_storage *storage)
{
	return !strcmp(storage->cls_name, "UntypedStorage") ||
	       !strcmp(storage->cls_name, "_UntypedStorage");
}

const char *cfs_torch_storage_class(enum cfs_dtype dtype)
{
	if (dtype == CFS_DTYPE_OTHER)
		return NULL;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(classes); i++) {
		if (classes[i].dtype == dtype)
			return classes[i].name;
	}
	return NULL;
}

enum cfs_dtype cfs_torch_dtype_find(const char *name, uint32_t *size_out)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(dtypes); i++) {
		if (strcmp(dtypes[i].name, name))
			continue;
		*size_out = dtypes[i].size;
		return dtypes[i].dtype;
	}
	return CFS_DTYPE_NONE;
}

const char *cfs_torch_dtype_name(enum cfs_dtype dtype)
{
	if (dtype == CFS_DTYPE_OTHER)
		return NULL;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(dtypes); i++) {
		if (dtypes[i].dtype == dtype)
			return dtypes[i].name;
	}
	return NULL;
}
