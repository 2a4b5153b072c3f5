/* One torch file: records, tensors, and the other values of the object. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/cli/nodes.h"
#include "fs/cli/show.h"
#include "fs/cli/table.h"
#include "fs/cli/target_file.h"
#include "fs/cli/text.h"
#include "fs/container/torchfile.h"
#include "fs/container/zip.h"
#include "store/util/buf.h"

#define LINES_MAX 60 /* of each part, unless --all */
#define VALUE_MAX 60 /* bytes of a value on a line */
#define JSON_MAX  4096

struct shown {
	const struct cfs_show_options *options;
	struct cfs_table *tensors;
	cJSON *json, *json_tensors, *json_values;
	uint64_t n_tensors, n_values, bytes;
};

static bool over(const struct shown *s, uint64_t n)
{
	return !s->options->all && n > LINES_MAX;
}

static void say_rest(uint64_t n, const struct shown *s)
{
	if (over(s, n))
		printf("  … %" PRIu64 " more (--all)\n", n - LINES_MAX);
}

static int show_records(const struct cfs_zip *zip, const struct shown *s)
{
	static const char *const headers[] = {"RECORD", ">HEADER AT", ">BYTES",
					      "CRC-32", NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table = NULL;
	cJSON *records = cfs_json_array(s->json, "records");
	uint32_t i;
	int r = 0;

	table = cfs_table_new(headers);
	for (i = 0; i < zip->n_entries; i++) {
		const struct cfs_zip_entry *e = &zip->entries[i];
		cJSON *o = cfs_json_object(records, NULL);

		cfs_json_str(o, "name", e->name);
		cfs_json_u64(o, "header_offset", e->header_off);
		cfs_json_u64(o, "bytes", e->usize);
		cfs_json_u64(o, "crc32", e->crc);
		cfs_json_bool(o, "deflated", e->method != 0);
		if (over(s, i + 1))
			continue;
		cfs_table_cell(table, "%s", e->name);
		cfs_table_cell(table, "%" PRIu64, e->header_off);
		cfs_table_cell(table, "%" PRIu64 "%s", e->usize,
			       e->method ? " deflated" : "");
		cfs_table_cell(table, "%08" PRIx32, e->crc);
	}
	if (s->json)
		return 0;
	printf("%" PRIu32 " records\n", zip->n_entries);
	r = cfs_table_print(table, 2, stdout);
	say_rest(zip->n_entries, s);
	return r;
}

static int tensor_row(void *arg, const char *path, const struct cfs_node *node)
{
	struct shown *s = arg;
	struct cfs_torch_tensor t;
	const char *key;
	cJSON *o;

	if (!cfs_torch_is_tensor(node))
		return 0;
	s->n_tensors++;
	o = cfs_json_object(s->json_tensors, NULL);
	cfs_json_str(o, "path", path);
	if (cfs_torch_tensor_get(node, &t) < 0) {
		cfs_json_str(o, "dtype", NULL);
		if (over(s, s->n_tensors))
			return 0;
		cfs_table_cell(s->tensors, "%s", path);
		cfs_table_cell(s->tensors, "of a kind not read here");
		for (int i = 0; i < 4; i++)
			cfs_table_cell(s->tensors, "-");
		return 0;
	}
	key = t.storage && t.storage->key ? t.storage->key : "meta";
	s->bytes += t.numel * cfs_dtype_size(t.dtype);
	cfs_json_str(o, "dtype", cfs_dtype_name(t.dtype));
	cfs_json_shape(o, "shape", t.ndim, t.shape);
	cfs_json_shape(o, "stride", t.ndim, t.stride);
	cfs_json_str(o, "storage", key);
	cfs_json_u64(o, "storage_offset", t.storage_offset);
	cfs_json_u64(o, "storage_elements", t.storage ? t.storage->numel : 0);
	cfs_json_str(o, "location", t.storage ? t.storage->location : NULL);
	cfs_json_bool(o, "contiguous", t.contiguous);
	cfs_json_bool(o, "requires_grad", t.requires_grad);
	cfs_json_bool(o, "parameter", t.parameter);
	if (over(s, s->n_tensors))
		return 0;
	cfs_table_cell(s->tensors, "%s", path);
	cfs_table_cell(s->tensors, "%s", cfs_dtype_name(t.dtype));
	cfs_table_cell(s->tensors, "%s", cfs_text_shape(t.ndim, t.shape).s);
	cfs_table_cell(s->tensors, "%s", key);
	cfs_table_cell(s->tensors, "%" PRIu64, t.storage_offset);
	cfs_table_cell(s->tensors, "%s", t.contiguous ? "yes" : "no");
	return 0;
}

static int show_tensors(const struct cfs_node *root, struct shown *s)
{
	static const char *const headers[] = {"TENSOR",	 "DTYPE",   "SHAPE",
					      "STORAGE", ">OFFSET", "CONTIG.",
					      NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table = NULL;
	int r;

	s->tensors = table = cfs_table_new(headers);
	s->json_tensors = cfs_json_array(s->json, "tensors");
	r = cfs_nodes_walk(root, cfs_torch_is_tensor, tensor_row, s);
	if (r < 0 || s->json)
		return r;
	printf("%" PRIu64 " tensors, %s\n", s->n_tensors,
	       cfs_text_bytes(s->bytes).s);
	if (s->n_tensors)
		r = cfs_table_print(table, 2, stdout);
	say_rest(s->n_tensors, s);
	return r;
}

/* Is there a tensor in this tree, which is known to be small? */
static bool has_tensor(const struct cfs_node *node)
{
	_cleanup_(cfs_buf_free) struct cfs_buf label = CFS_BUF_INIT;
	const struct cfs_node *child;
	size_t i;

	if (cfs_torch_is_tensor(node))
		return true;
	for (i = 0; (child = cfs_nodes_child(node, i, &label)); i++)
		if (has_tensor(child))
			return true;
	return false;
}

/* What fits on one line is shown on one. */
static bool fits(const struct cfs_node *node)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;

	if (cfs_torch_is_tensor(node))
		return true;
	return cfs_nodes_repr(node, VALUE_MAX, &text) && !has_tensor(node);
}

static int value_line(void *arg, const char *path, const struct cfs_node *node)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	struct shown *s = arg;
	cJSON *o;

	if (cfs_torch_is_tensor(node))
		return 0;
	s->n_values++;
	if (!s->json && over(s, s->n_values))
		return 0;
	(void)cfs_nodes_repr(node, s->json ? JSON_MAX : VALUE_MAX, &text);
	if (text.failed)
		return -ENOMEM;
	if (!s->json) {
		printf("  %s = %s\n", path, cfs_buf_str(&text));
		return 0;
	}
	o = cfs_json_object(s->json_values, NULL);
	cfs_json_str(o, "path", path);
	cfs_json_str(o, "value", cfs_buf_str(&text));
	return 0;
}

static int show_values(const struct cfs_node *root, struct shown *s)
{
	int r;

	s->json_values = cfs_json_array(s->json, "values");
	if (!s->json)
		puts("other values");
	r = cfs_nodes_walk(root, fits, value_line, s);
	if (r < 0 || s->json)
		return r;
	if (!s->n_values)
		puts("  none");
	say_rest(s->n_values, s);
	return 0;
}

int cfs_show_file(const char *path, const struct cfs_target_file *tf,
		  const struct cfs_show_options *options)
{
	_cleanup_(cfs_json_freep) cJSON *json = NULL;
	const struct cfs_zip *zip = cfs_torchfile_zip(tf->torch);
	const struct cfs_node *root = cfs_torchfile_root(tf->torch);
	const char *kind = zip ? "zip archive of torch.save"
			       : "legacy stream of torch.save";
	struct shown s = {.options = options};
	int r = 0;

	json = options->json ? cJSON_CreateObject() : NULL;
	s.json = json;
	cfs_json_str(json, "path", path);
	cfs_json_u64(json, "bytes", tf->size);
	cfs_json_bool(json, "legacy", !zip);
	if (!json)
		printf("%s: %s, %s\n", path, kind, cfs_text_bytes(tf->size).s);
	if (zip)
		r = show_records(zip, &s);
	if (r == 0)
		r = show_tensors(root, &s);
	if (r == 0)
		r = show_values(root, &s);
	if (r < 0)
		return r;
	return json ? cfs_json_print(json) : 0;
}
