/*
 * Headers, as strictly as the format's own reader: tensors lie one behind the
 * other without holes up to the end of the file, each as long as its shape
 * says, no name twice.
 */
#include "fs/format/safetensors/safetensors.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/checked.h"
#include "store/util/error.h"

#define METADATA "__metadata__"

/* Larger numbers are not exact where JSON is read as doubles. */
#define NUMBER_MAX 9007199254740991.0 /* 2^53 - 1 */

static bool as_u64(const cJSON *item, uint64_t *out)
{
	double v = cJSON_IsNumber(item) ? item->valuedouble : -1;

	if (!(v >= 0 && v <= NUMBER_MAX) || floor(v) < v)
		return false;
	*out = (uint64_t)v;
	return true;
}

/* ---- one tensor ---- */

static bool take_shape(const cJSON *array, struct cfs_st_tensor *t)
{
	const cJSON *item;

	if (!cJSON_IsArray(array))
		return false;
	cJSON_ArrayForEach(
		item,
		array) if (t->ndim == CFS_ST_DIMS_MAX ||
			   !as_u64(item, &t->shape[t->ndim++])) return false;
	return true;
}

static bool take_offsets(const cJSON *array, struct cfs_st_tensor *t)
{
	return cJSON_IsArray(array) && cJSON_GetArraySize(array) == 2 &&
	       as_u64(cJSON_GetArrayItem(array, 0), &t->begin) &&
	       as_u64(cJSON_GetArrayItem(array, 1), &t->end);
}

/* Bytes that its shape makes; false: more than there can be. */
static bool bytes_of(const struct cfs_st_tensor *t, uint64_t *out)
{
	*out = cfs_dtype_size(t->dtype);
	for (uint32_t i = 0; i < t->ndim; i++)
		if (!cfs_mul_u64(*out, t->shape[i], out))
			return false;
	return true;
}

static int take_tensor(const cJSON *item, struct cfs_st_tensor *t,
		       struct cfs_error *err)
{
	const char *name = item->string, *dtype;
	uint64_t bytes;

	if (!cJSON_IsObject(item) || cJSON_GetArraySize(item) != 3)
		return cfs_fail(err, -EBADMSG,
				"tensor %.200s: has not dtype, shape and "
				"data_offsets",
				name);
	dtype = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(item, "dtype"));
	if (!dtype ||
	    !take_shape(cJSON_GetObjectItemCaseSensitive(item, "shape"), t) ||
	    !take_offsets(
		    cJSON_GetObjectItemCaseSensitive(item, "data_offsets"), t))
		return cfs_fail(err, -EBADMSG,
				"tensor %.200s: dtype, shape or data_offsets "
				"make no sense",
				name);
	t->dtype = cfs_st_dtype(dtype);
	if (!t->dtype)
		return cfs_fail(err, -ENOTSUP,
				"tensor %.200s: dtype %.40s is not known", name,
				dtype);
	if (t->end < t->begin || !bytes_of(t, &bytes) ||
	    bytes != t->end - t->begin)
		return cfs_fail(err, -EBADMSG,
				"tensor %.200s: its shape is not as long as "
				"its data_offsets",
				name);
	t->name = strdup(name);
	return t->name ? 0 : -ENOMEM;
}

/* ---- all of them ---- */

static int begin_cmp(const void *a, const void *b)
{
	const struct cfs_st_tensor *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	/* empty ones lie before what begins there too */
	if (x->end != y->end)
		return x->end < y->end ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int name_cmp(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names(const struct cfs_st_header *h, struct cfs_error *err)
{
	const char **names = calloc((size_t)h->n + 1, sizeof(*names));
	int r = names ? 0 : -ENOMEM;

	for (uint32_t i = 0; !r && i < h->n; i++)
		names[i] = h->v[i].name;
	if (!r && h->n)
		qsort(names, h->n, sizeof(*names), name_cmp);
	for (uint32_t i = 1; !r && i < h->n; i++)
		if (!strcmp(names[i - 1], names[i]))
			r = cfs_fail(err, -EBADMSG,
				     "tensor %.200s: is there twice", names[i]);
	free(names);
	return r;
}

static int check_places(const struct cfs_st_header *h, uint64_t data_bytes,
			struct cfs_error *err)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < h->n; i++) {
		if (h->v[i].begin != at)
			return cfs_fail(err, -EBADMSG,
					"tensor %.200s: begins at %llu, and "
					"the one before ends at %llu",
					h->v[i].name,
					(unsigned long long)h->v[i].begin,
					(unsigned long long)at);
		at = h->v[i].end;
	}
	if (at != data_bytes)
		return cfs_fail(err, -EBADMSG,
				"tensors have %llu bytes, and there are %llu",
				(unsigned long long)at,
				(unsigned long long)data_bytes);
	return 0;
}

static int check_metadata(const cJSON *map, struct cfs_error *err)
{
	const cJSON *item;
	bool right = cJSON_IsObject(map);

	cJSON_ArrayForEach(item, map) right = right && cJSON_IsString(item);
	return right ? 0
		     : cfs_fail(err, -EBADMSG,
				METADATA " is not a table of texts");
}

static int take_all(const cJSON *doc, struct cfs_st_header *out,
		    struct cfs_error *err)
{
	const cJSON *item;
	bool metadata = false;
	int r = 0;

	out->v = calloc((size_t)cJSON_GetArraySize(doc) + 1, sizeof(*out->v));
	if (!out->v)
		return -ENOMEM;
	cJSON_ArrayForEach(item, doc)
	{
		if (strcmp(item->string, METADATA) != 0) {
			r = take_tensor(item, &out->v[out->n], err);
			out->n += !r;
		} else if (metadata) {
			r = cfs_fail(err, -EBADMSG, METADATA " is there twice");
		} else {
			r = check_metadata(item, err);
			metadata = true;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static bool is_blank(const char *from, const char *to)
{
	while (from < to && *from == ' ')
		from++;
	return from == to;
}

/* The parser takes @text for more than it is: what cJSON forgives. */
static cJSON *parse(const char *text, size_t len)
{
	static const char nul[] = "\\u0000"; /* would end a name early */
	const char *end = NULL;
	cJSON *doc = NULL;

	if (len && text[0] == '{' && !memchr(text, 0, len) &&
	    !memmem(text, len, nul, strlen(nul)))
		doc = cJSON_ParseWithLengthOpts(text, len, &end, false);
	if (doc && is_blank(end, text + len))
		return doc;
	cJSON_Delete(doc);
	return NULL;
}

int cfs_st_header_parse(const char *text, size_t len, uint64_t data_bytes,
			struct cfs_st_header *out, struct cfs_error *err)
{
	struct cfs_st_header h = {0};
	cJSON *doc = parse(text, len);
	int r;

	if (!doc)
		return cfs_fail(err, -EBADMSG, "its header is no JSON");
	r = take_all(doc, &h, err);
	cJSON_Delete(doc);
	if (!r && h.n)
		qsort(h.v, h.n, sizeof(*h.v), begin_cmp);
	if (!r)
		r = check_names(&h, err);
	if (!r)
		r = check_places(&h, data_bytes, err);
	if (r < 0) {
		cfs_st_header_fini(&h);
		return r;
	}
	*out = h;
	return 0;
}

void cfs_st_header_fini(struct cfs_st_header *header)
{
	for (uint32_t i = 0; i < header->n; i++)
		free(header->v[i].name);
	free(header->v);
	*header = (struct cfs_st_header){0};
}
