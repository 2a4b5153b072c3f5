#include "rank_client/frame.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/util/buf.h"

#define REASON_MAX 400 /* bytes, without control characters */

static void put_text(struct cfs_buf *out, const char *text)
{
	size_t len = strlen(text);

	cfs_buf_put_le32(out, (uint32_t)len);
	cfs_buf_put(out, text, len);
}

void cfs_frame_put(struct cfs_buf *out, cJSON *json)
{
	char *text = json ? cJSON_PrintUnformatted(json) : NULL;

	if (text)
		put_text(out, text);
	else
		out->failed = true;
	cJSON_free(text);
	cJSON_Delete(json);
}

void cfs_frame_put_data(struct cfs_buf *out, uint64_t id, uint32_t slot,
			uint32_t len)
{
	char text[128];

	snprintf(text, sizeof(text),
		 "{\"op\":\"data\",\"id\":%llu,\"slot\":%u,\"len\":%u}",
		 (unsigned long long)id, slot, len);
	put_text(out, text);
}

void cfs_frame_put_end(struct cfs_buf *out, uint64_t id)
{
	char text[64];

	snprintf(text, sizeof(text), "{\"op\":\"end\",\"id\":%llu}",
		 (unsigned long long)id);
	put_text(out, text);
}

static void add_reason(cJSON *json, const char *reason)
{
	char plain[REASON_MAX + 1];
	size_t n = 0;

	for (; reason && reason[n] && n < REASON_MAX; n++)
		plain[n] = (unsigned char)reason[n] < ' ' || reason[n] == 0x7f
				   ? '?'
				   : reason[n];
	while (n && reason[n] && (reason[n] & 0xc0) == 0x80)
		n--; /* no half of a character */
	plain[n] = '\0';
	if (json && n)
		cJSON_AddStringToObject(json, "reason", plain);
}

void cfs_frame_put_fail(struct cfs_buf *out, int r, const char *reason)
{
	cJSON *json = cfs_frame_op("fail");

	cJSON_AddNumberToObject(json, "r", r);
	add_reason(json, reason);
	cfs_frame_put(out, json);
}

void cfs_frame_put_refusal(struct cfs_buf *out, uint64_t save, int r,
			   const char *reason)
{
	cJSON *json = cfs_frame_op("begin");

	cJSON_AddNumberToObject(json, "save", (double)save);
	cJSON_AddNumberToObject(json, "r", r);
	add_reason(json, reason);
	cfs_frame_put(out, json);
}

void cfs_frame_put_abort(struct cfs_buf *out, const char *reason)
{
	cJSON *json = cfs_frame_op("abort");

	add_reason(json, reason);
	cfs_frame_put(out, json);
}

cJSON *cfs_frame_op(const char *op)
{
	cJSON *json = cJSON_CreateObject();

	if (json && !cJSON_AddStringToObject(json, "op", op)) {
		cJSON_Delete(json);
		return NULL;
	}
	return json;
}

void cfs_frame_add_u64s(cJSON *json, const char *name, const uint64_t *v,
			unsigned n)
{
	cJSON *array = json ? cJSON_AddArrayToObject(json, name) : NULL;
	unsigned i;

	for (i = 0; array && i < n; i++)
		cJSON_AddItemToArray(array, cJSON_CreateNumber((double)v[i]));
}

int cfs_frame_get_u64(const cJSON *json, const char *name, uint64_t *out)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(json, name);

	if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0) ||
	    v->valuedouble > 9007199254740992.0)
		return -EBADMSG;
	*out = (uint64_t)v->valuedouble;
	return 0;
}

const char *cfs_frame_get_str(const cJSON *json, const char *name)
{
	return cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(json, name));
}
