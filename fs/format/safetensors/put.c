/*
 * The files of what ranks put:
 *
 *   model.safetensors      weights and buffers, by their own names
 *   optimizer.safetensors  all else, as NAME.ROLE
 *
 * Headers are padded to a page, so that the first tensor begins at one; tensors
 * of the widest types come first, so that all are aligned.
 */
#include "fs/format/safetensors/safetensors.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/puts_tensors.h"
#include "store/util/buf.h"
#include "store/util/endian.h"
#include "store/util/error.h"

#define PAGE 4096u

struct row {
	char *name;
	const struct cfs_put_tensor *tensor;
};

struct table {
	struct row *v;
	size_t n;
};

static void table_fini(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->v[i].name);
	free(t->v);
}

/* ---- which tensors ---- */

static bool is_model(const struct cfs_put *put)
{
	return !strcmp(put->role, CFS_PUT_WEIGHT) ||
	       !strcmp(put->role, CFS_PUT_BUFFER);
}

static int add_row(struct table *t, const struct cfs_put_tensor *tensor,
		   struct cfs_error *err)
{
	const struct cfs_put *put = tensor->first;
	char *name = NULL;

	if (is_model(put)) {
		name = strdup(put->name);
	} else if (strchr(put->role, '.')) {
		return cfs_fail(err, -EINVAL,
				"tensor %s (%s): a role has no '.' in this "
				"format",
				put->name, put->role);
	} else if (asprintf(&name, "%s.%s", put->name, put->role) < 0) {
		name = NULL;
	}
	if (!name)
		return -ENOMEM;
	t->v[t->n++] = (struct row){name, tensor};
	if (!strcmp(name, "__metadata__"))
		return cfs_fail(err, -EINVAL,
				"tensor %s: the format has that name for "
				"itself",
				name);
	return 0;
}

static int row_cmp(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	uint32_t sx = cfs_dtype_size(x->tensor->first->dtype);
	uint32_t sy = cfs_dtype_size(y->tensor->first->dtype);

	return sx != sy ? (sx > sy ? -1 : 1) : strcmp(x->name, y->name);
}

static int name_cmp(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A weight and a buffer of one name; other names hold their role. */
static int check_names(const struct table *t, struct cfs_error *err)
{
	const char **names = calloc(t->n + 1, sizeof(*names));
	int r = names ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < t->n; i++)
		names[i] = t->v[i].name;
	if (!r && t->n)
		qsort(names, t->n, sizeof(*names), name_cmp);
	for (size_t i = 1; !r && i < t->n; i++)
		if (!strcmp(names[i - 1], names[i]))
			r = cfs_fail(err, -EINVAL,
				     "tensor %s: was put as a parameter and as "
				     "a buffer",
				     names[i]);
	free(names);
	return r;
}

static int fill(struct table *t, const struct cfs_put_tensors *tensors,
		bool model, struct cfs_error *err)
{
	int r = 0;

	t->v = calloc(tensors->n + 1, sizeof(*t->v));
	if (!t->v)
		return -ENOMEM;
	for (size_t i = 0; !r && i < tensors->n; i++)
		if (is_model(tensors->v[i].first) == model)
			r = add_row(t, &tensors->v[i], err);
	if (r < 0)
		return r;
	if (t->n)
		qsort(t->v, t->n, sizeof(*t->v), row_cmp);
	return check_names(t, err);
}

/* ---- a file ---- */

/* @s as JSON has it, with quotes. */
static int put_string(struct cfs_buf *out, const char *s)
{
	cJSON *item = cJSON_CreateString(s);
	char *text = item ? cJSON_PrintUnformatted(item) : NULL;

	cJSON_Delete(item);
	if (!text)
		return -ENOMEM;
	cfs_buf_put_str(out, text);
	cJSON_free(text);
	return 0;
}

static int put_row(struct cfs_buf *out, const struct row *row, uint64_t begin)
{
	const struct cfs_put *put = row->tensor->first;
	uint64_t end = begin + cfs_map_size(row->tensor->map);
	int r = put_string(out, row->name);

	cfs_buf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[",
		       cfs_st_dtype_name(put->dtype));
	for (uint32_t i = 0; i < put->ndim; i++)
		cfs_buf_printf(out, "%s%llu", i ? "," : "",
			       (unsigned long long)put->shape[i]);
	cfs_buf_printf(out, "],\"data_offsets\":[%llu,%llu]}",
		       (unsigned long long)begin, (unsigned long long)end);
	return r;
}

/* Length, JSON, blanks up to a page. */
static int make_header(const struct table *t, struct cfs_buf *out,
		       struct cfs_error *err)
{
	uint8_t length[8] = {0};
	uint64_t at = 0;
	int r = 0;

	cfs_buf_put(out, length, sizeof(length));
	cfs_buf_put_str(out, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (size_t i = 0; !r && i < t->n; i++) {
		cfs_buf_put_str(out, ",");
		r = put_row(out, &t->v[i], at);
		at += cfs_map_size(t->v[i].tensor->map);
	}
	cfs_buf_put_str(out, "}");
	while (!out->failed && out->len % PAGE)
		cfs_buf_put(out, " ", 1);
	if (r < 0 || out->failed)
		return -ENOMEM;
	if (out->len - sizeof(length) > CFS_ST_HEADER_MAX)
		return cfs_fail(err, -E2BIG,
				"the names of all tensors are longer than the "
				"%u bytes that readers accept",
				CFS_ST_HEADER_MAX);
	cfs_put_le64(out->data, out->len - sizeof(length));
	return 0;
}

static int make_file(const struct cfs_puts *puts, const struct table *t,
		     const char *name, cfs_puts_file_fn *fn, void *arg,
		     struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf header = CFS_BUF_INIT;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(puts->files);
	int r = map ? make_header(t, &header, err) : -ENOMEM;

	if (!r)
		r = cfs_map_add_literal(map, header.data, header.len);
	for (size_t i = 0; !r && i < t->n; i++)
		r = cfs_map_add_map(map, t->v[i].tensor->map);
	if (r < 0)
		return r;
	cfs_map_seal(map);
	return fn(arg, name, map, err);
}

int cfs_puts_safetensors(const struct cfs_puts *puts, cfs_puts_file_fn *fn,
			 void *arg, struct cfs_error *err)
{
	_cleanup_(cfs_put_tensors_fini) struct cfs_put_tensors tensors = {0};
	_cleanup_(table_fini) struct table model = {0}, optimizer = {0};
	int r = cfs_put_tensors_init(&tensors, puts, err);

	if (!r)
		r = fill(&model, &tensors, true, err);
	if (!r)
		r = fill(&optimizer, &tensors, false, err);
	if (!r && !model.n)
		r = cfs_fail(err, -EINVAL,
			     "no weight was put, which this format is made of");
	if (!r)
		r = make_file(puts, &model, CFS_ST_WEIGHTS, fn, arg, err);
	if (!r && optimizer.n)
		r = make_file(puts, &optimizer, CFS_ST_OPTIMIZER, fn, arg, err);
	return r;
}
