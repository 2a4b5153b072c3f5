/* Names that the format has for types, and ours for states. */
#include "fs/format/safetensors/safetensors.h"

#include <string.h>

static const struct {
	const char *name;
	enum cfs_dtype dtype;
} dtypes[] = {
	{"F64", CFS_F64},	  {"F32", CFS_F32}, {"F16", CFS_F16},
	{"BF16", CFS_BF16},	  {"I64", CFS_I64}, {"I32", CFS_I32},
	{"I16", CFS_I16},	  {"I8", CFS_I8},   {"U8", CFS_U8},
	{"BOOL", CFS_BOOL},	  {"U16", CFS_U16}, {"U32", CFS_U32},
	{"U64", CFS_U64},	  {"C64", CFS_C64}, {"F8_E4M3", CFS_F8_E4M3},
	{"F8_E5M2", CFS_F8_E5M2},
};

const char *cfs_st_dtype_name(enum cfs_dtype dtype)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(dtypes); i++)
		if (dtypes[i].dtype == dtype)
			return dtypes[i].name;
	return NULL;
}

enum cfs_dtype cfs_st_dtype(const char *name)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(dtypes); i++)
		if (!strcmp(dtypes[i].name, name))
			return dtypes[i].dtype;
	return CFS_DTYPE_NONE;
}

const char *cfs_st_role(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && dot > name && dot[1] ? dot + 1 : NULL;
}
