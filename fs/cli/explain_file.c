/* Explains one synthesised file: which source bytes each tensor is. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/explain.h"
#include "fs/cli/json.h"
#include "fs/cli/ranges.h"
#include "fs/cli/table.h"
#include "fs/cli/target_file.h"
#include "fs/cli/tensors.h"
#include "fs/cli/text.h"
#include "fs/view/view.h"
#include "store/util/error.h"

/* Ranges of one tensor a table shows, unless all are asked for. */
#define RANGES_SHOWN 6

struct shown {
	const char *path;
	const struct cfs_explain_options *options;
	struct cfs_map *map; /* of the file */
	struct cfs_filetab *files;
	struct cfs_table *table;
	cJSON *json;
	/* the tensor at hand: */
	const struct cfs_tensors_item *item;
	cJSON *pieces;
	uint64_t n_pieces;
};

/* The tensor's own cells; empty behind its first row. */
static void tensor_cells(const struct shown *s)
{
	int i;

	if (s->n_pieces) {
		for (i = 0; i < 4; i++)
			cfs_table_cell(s->table, " ");
		return;
	}
	cfs_table_cell(s->table, "%s", s->item->name);
	cfs_table_cell(s->table, "%s", cfs_dtype_name(s->item->dtype));
	cfs_table_cell(s->table, "%s",
		       cfs_text_shape(s->item->ndim, s->item->shape).s);
	cfs_table_cell(s->table, "%" PRIu64, cfs_tensors_item_bytes(s->item));
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void piece_row(const struct shown *s,
		      const struct cfs_ranges_piece *piece)
{
	tensor_cells(s);
	cfs_table_cell(s->table, "%s", cfs_ranges_kind(piece->how));
	if (piece->from_file) {
		cfs_table_cell(
			s->table, "%s",
			base_name(cfs_filetab_path(s->files, piece->file)));
		cfs_table_cell(s->table, "%" PRIu64, piece->file_off);
	} else {
		cfs_table_cell(s->table, "-");
		cfs_table_cell(s->table, "-");
	}
	cfs_table_cell(s->table, "%" PRIu64, piece->len);
}

static int put_piece(void *arg, const struct cfs_ranges_piece *piece)
{
	struct shown *s = arg;
	cJSON *o = cfs_json_object(s->pieces, NULL);

	cfs_json_str(o, "how", cfs_ranges_kind(piece->how));
	if (piece->from_file) {
		cfs_json_str(o, "file",
			     cfs_filetab_path(s->files, piece->file));
		cfs_json_u64(o, "offset", piece->file_off);
	}
	cfs_json_u64(o, "length", piece->len);
	if (s->options->all || s->n_pieces < RANGES_SHOWN)
		piece_row(s, piece);
	s->n_pieces++;
	return 0;
}

/* A row that says what the table leaves out. */
static void rest_row(const struct shown *s)
{
	int i;

	if (s->options->all || s->n_pieces <= RANGES_SHOWN)
		return;
	for (i = 0; i < 4; i++)
		cfs_table_cell(s->table, " ");
	cfs_table_cell(s->table, "…");
	cfs_table_cell(s->table, "%" PRIu64 " more (--all)",
		       s->n_pieces - RANGES_SHOWN);
	cfs_table_cell(s->table, " ");
	cfs_table_cell(s->table, " ");
}

/* Where the tensor's bytes lie in the file: its own map says, over one row. */
static int position(const struct cfs_tensors *set,
		    const struct cfs_tensors_item *item, uint64_t *off_out,
		    uint64_t *len_out, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_segment seg;
	int r;

	*len_out = 0;
	r = cfs_tensors_map(set, item, &map, err);
	if (r < 0 || !cfs_map_count(map))
		return r;
	cfs_map_segment(map, 0, &seg);
	*off_out = seg.file_off;
	*len_out = seg.kind == CFS_SEG_RANGE ? seg.len : 0;
	return 0;
}

static int explain_tensor(struct shown *s, const struct cfs_tensors *set,
			  cJSON *tensors, struct cfs_error *err)
{
	cJSON *o = cfs_json_object(tensors, NULL);
	uint64_t off = 0, len = 0;
	int r;

	cfs_json_str(o, "name", s->item->name);
	cfs_json_str(o, "dtype", cfs_dtype_name(s->item->dtype));
	cfs_json_shape(o, "shape", s->item->ndim, s->item->shape);
	cfs_json_u64(o, "bytes", cfs_tensors_item_bytes(s->item));
	s->pieces = cfs_json_array(o, "pieces");
	s->n_pieces = 0;
	r = position(set, s->item, &off, &len, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", s->item->name);
	r = cfs_ranges_each(s->map, off, len, put_piece, s);
	rest_row(s);
	return r;
}

static int explain_tensors(struct shown *s, const struct cfs_tensors *set,
			   struct cfs_error *err)
{
	cJSON *tensors = cfs_json_array(s->json, "tensors");
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < set->n; i++) {
		s->item = &set->items[i];
		r = explain_tensor(s, set, tensors, err);
	}
	return r;
}

static void put_head(const struct shown *s, const char *step)
{
	struct cfs_ranges_tally t = {0};

	cfs_ranges_add(s->map, &t);
	if (!s->json) {
		printf("%s: %" PRIu64 " bytes made from %s\n"
		       "  ranges %" PRIu64 ", gathered %" PRIu64
		       ", cast %" PRIu64 ", zeros %" PRIu64 ", literal %" PRIu64
		       "; %" PRIu32 " source files\n",
		       s->path, t.total, step, t.range, t.gather + t.linear,
		       t.cast, t.zero, t.literal, t.n_files);
		return;
	}
	cfs_json_str(s->json, "path", s->path);
	cfs_json_bool(s->json, "possible", 1);
	cfs_json_str(s->json, "step", step);
	cfs_json_u64(s->json, "bytes", t.total);
	cfs_json_u64(s->json, "range_bytes", t.range);
	cfs_json_u64(s->json, "gather_bytes", t.gather);
	cfs_json_u64(s->json, "cast_bytes", t.cast);
	cfs_json_u64(s->json, "linear_bytes", t.linear);
	cfs_json_u64(s->json, "zero_bytes", t.zero);
	cfs_json_u64(s->json, "literal_bytes", t.literal);
	cfs_json_u64(s->json, "source_files", t.n_files);
}

int cfs_explain_file(const char *path, struct cfs_target *target,
		     const struct cfs_explain_options *options,
		     struct cfs_error *err)
{
	static const char *const headers[] = {"TENSOR",	 "DTYPE",   "SHAPE",
					      ">BYTES",	 "HOW",	    "SOURCE",
					      ">OFFSET", ">LENGTH", NULL};
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	_cleanup_(cfs_target_file_close) struct cfs_target_file tf = {0};
	_cleanup_(cfs_tensors_free) struct cfs_tensors set = {0};
	_cleanup_(cfs_table_freep) struct cfs_table *table = NULL;
	_cleanup_(cfs_json_freep) cJSON *json = NULL;
	struct shown s = {.path = path, .options = options};
	int r;

	r = cfs_vnode_map(target->node, &map, err);
	if (r == 0)
		r = cfs_target_file_take(target, &tf, err);
	if (r == 0)
		r = cfs_tensors_of_tree(cfs_torchfile_root(tf.torch), tf.tab,
					tf.pool, &set, err);
	if (r < 0)
		return r;
	table = cfs_table_new(headers);
	json = options->json ? cJSON_CreateObject() : NULL;
	s.map = map;
	s.files = cfs_map_filetab(map);
	s.table = table;
	s.json = json;
	put_head(&s, cfs_vnode_source_path(tf.target.node));
	r = explain_tensors(&s, &set, err);
	if (r < 0)
		return r;
	return json ? cfs_json_print(json) : cfs_table_print(table, 2, stdout);
}
