/*
 * Additions to cJSON.  Its numbers are doubles printed with 15 digits, which
 * is not enough for hashes and large offsets: integers go in as raw text.
 */
#include "fs/cli/json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/text.h"
#include "store/util/buf.h"

void cfs_json_freep(cJSON **json)
{
	cJSON_Delete(*json);
}

static void put(cJSON *parent, const char *key, cJSON *item)
{
	_cleanup_(cfs_buf_free) struct cfs_buf clean = CFS_BUF_INIT;
	cJSON_bool ok;

	if (!item)
		return;
	if (key)
		cfs_text_utf8(&clean, key, strlen(key));
	ok = key ? cJSON_AddItemToObject(parent, cfs_buf_str(&clean), item)
		 : cJSON_AddItemToArray(parent, item);
	if (!ok)
		cJSON_Delete(item);
}

void cfs_json_u64(cJSON *parent, const char *key, uint64_t v)
{
	char text[24];

	if (!parent)
		return;
	snprintf(text, sizeof(text), "%" PRIu64, v);
	put(parent, key, cJSON_CreateRaw(text));
}

void cfs_json_i64(cJSON *parent, const char *key, int64_t v)
{
	char text[24];

	if (!parent)
		return;
	snprintf(text, sizeof(text), "%" PRId64, v);
	put(parent, key, cJSON_CreateRaw(text));
}

void cfs_json_real(cJSON *parent, const char *key, double v)
{
	if (!parent)
		return;
	if (isnan(v) || isinf(v))
		put(parent, key,
		    cJSON_CreateString(isnan(v) ? "nan"
				       : v > 0	? "inf"
						: "-inf"));
	else
		put(parent, key, cJSON_CreateRaw(cfs_text_real(v).s));
}

void cfs_json_str(cJSON *parent, const char *key, const char *v)
{
	_cleanup_(cfs_buf_free) struct cfs_buf clean = CFS_BUF_INIT;

	if (!parent)
		return;
	if (v)
		cfs_text_utf8(&clean, v, strlen(v));
	put(parent, key,
	    v ? cJSON_CreateString(cfs_buf_str(&clean)) : cJSON_CreateNull());
}

void cfs_json_bool(cJSON *parent, const char *key, int v)
{
	if (parent)
		put(parent, key, cJSON_CreateBool(v));
}

void cfs_json_shape(cJSON *parent, const char *key, uint32_t ndim,
		    const uint64_t *shape)
{
	cJSON *a = cfs_json_array(parent, key);
	uint32_t i;

	for (i = 0; i < ndim; i++)
		cfs_json_u64(a, NULL, shape[i]);
}

static cJSON *put_container(cJSON *parent, const char *key, cJSON *item)
{
	put(parent, key, item);
	return item;
}

cJSON *cfs_json_array(cJSON *parent, const char *key)
{
	return parent ? put_container(parent, key, cJSON_CreateArray()) : NULL;
}

cJSON *cfs_json_object(cJSON *parent, const char *key)
{
	return parent ? put_container(parent, key, cJSON_CreateObject()) : NULL;
}

int cfs_json_print(const cJSON *json)
{
	char *text = cJSON_Print(json);

	if (!text)
		return -ENOMEM;
	puts(text);
	cJSON_free(text);
	return 0;
}
