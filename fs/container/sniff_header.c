/* Headers that say it all: safetensors (JSON) and .npy (a Python dict). */
#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>

#include "fs/container/sniff_internal.h"
#include "store/util/checked.h"

/* Bytes of an element; 0: packed, or unknown. */
static uint32_t safetensors_size(const char *dtype)
{
	static const struct {
		const char *name;
		uint32_t size;
	} types[] = {
		{"F64", 8},  {"F32", 4}, {"F16", 2},	 {"BF16", 2},
		{"I64", 8},  {"I32", 4}, {"I16", 2},	 {"I8", 1},
		{"U64", 8},  {"U32", 4}, {"U16", 2},	 {"U8", 1},
		{"BOOL", 1}, {"C64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
	};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(types); i++) {
		if (!strcmp(dtype, types[i].name))
			return types[i].size;
	}
	return 0;
}

static bool as_u64(const cJSON *node, uint64_t *out)
{
	if (!cJSON_IsNumber(node) || !(node->valuedouble >= 0) ||
	    node->valuedouble > 9e15)
		return false;
	*out = (uint64_t)node->valuedouble;
	return true;
}

static void free_json(cJSON **json)
{
	cJSON_Delete(*json);
}

int cfs_sniff_json(const void *json, size_t len, struct cfs_sniff_spans *spans)
{
	_cleanup_(free_json) cJSON *root = cJSON_ParseWithLength(json, len);
	const cJSON *node, *offsets, *dtype;
	int r;

	if (!cJSON_IsObject(root))
		return -EINVAL;
	cJSON_ArrayForEach(node, root)
	{
		struct cfs_sniff_span span = {.grid = true};
		uint64_t end;

		offsets =
			cJSON_GetObjectItemCaseSensitive(node, "data_offsets");
		dtype = cJSON_GetObjectItemCaseSensitive(node, "dtype");
		if (!cJSON_IsString(dtype) ||
		    cJSON_GetArraySize(offsets) != 2 ||
		    !as_u64(cJSON_GetArrayItem(offsets, 0), &span.off) ||
		    !as_u64(cJSON_GetArrayItem(offsets, 1), &end) ||
		    end < span.off)
			continue; /* "__metadata__" */
		span.len = end - span.off;
		span.elem_size = safetensors_size(dtype->valuestring);
		r = cfs_sniff_spans_add(spans, &span);
		if (r < 0)
			return r;
	}
	cfs_sniff_spans_settle(spans);
	return 0;
}

/* Behind "'<key>':" and blanks; NULL. */
static const char *npy_value(const char *text, size_t len, const char *key)
{
	const char *p = memmem(text, len, key, strlen(key));
	const char *end = text + len;

	if (!p)
		return NULL;
	p += strlen(key);
	while (p < end && *p == ' ')
		p++;
	return p < end ? p : NULL;
}

static bool number(const char **p, const char *end, uint64_t *out)
{
	bool any = false;

	*out = 0;
	for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
		if (!cfs_mul_u64(*out, 10, out) ||
		    !cfs_add_u64(*out, (uint64_t)(**p - '0'), out))
			return false;
		any = true;
	}
	return any;
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } */
int cfs_sniff_npy(const char *text, size_t len, struct cfs_sniff_span *span)
{
	const char *end = text + len;
	const char *descr = npy_value(text, len, "'descr':");
	const char *shape = npy_value(text, len, "'shape':");
	uint64_t size, dim, numel = 1;

	if (!descr || !shape || end - descr < 4 || *descr != '\'' ||
	    !strchr("<>|=", descr[1]) || !strchr("fiubcVMm", descr[2]) ||
	    *shape != '(')
		return -EINVAL;
	descr += 3;
	if (!number(&descr, end, &size) || !size || size > 16)
		return -EINVAL;
	for (shape++; shape < end && *shape != ')';) {
		if (*shape == ' ' || *shape == ',') {
			shape++;
			continue;
		}
		if (!number(&shape, end, &dim) ||
		    !cfs_mul_u64(numel, dim, &numel))
			return -EINVAL;
	}
	if (shape == end || !cfs_mul_u64(numel, size, &span->len) || !span->len)
		return -EINVAL;
	span->elem_size = size == 16 ? 8 : (uint32_t)size;
	span->grid = true;
	return span->elem_size & (span->elem_size - 1) ? -EINVAL : 0;
}
