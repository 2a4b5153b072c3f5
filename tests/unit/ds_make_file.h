/*
 * What ds_make.h makes steps of: one file, its tensors and values.
 *
 * The value of element e of role k of parameter p is ds_value(k, p, e), a small
 * integer that every float type holds exactly; padding is 77.
 */
#ifndef CFS_TEST_DS_MAKE_FILE_H
#define CFS_TEST_DS_MAKE_FILE_H

#include <stdio.h>
#include <string.h>

#include "fs/container/torchfile.h"
#include "fs/reslice/topology.h"
#include "store/map/eval.h"
#include "store/map/source.h"
#include "store/util/error.h"
#include "tests/test.h"

#define DS_PARAMS_MAX 12
#define DS_PAD	      UINT32_MAX

struct ds_param {
	char name[24];
	uint32_t ndim, group; /* group UINT32_MAX: frozen */
	uint64_t shape[2], numel;
};

struct ds_made {
	struct ds_param params[DS_PARAMS_MAX]; /* group by group, then frozen */
	uint32_t n, n_groups, dp, n_mp;
	enum cfs_optimizer_class cls;
	int stage;
	bool round_robin, flag_only, elastic, align, bf16, tied, no_maps;
	bool pipeline; /* no module, but layer files */
	uint64_t sub_group_size;
	const char *version; /* NULL: none */
	uint32_t skew;	     /* added to roles: other values */
	const char *buffer;  /* of the module; NULL: a.buffer */
	bool buffer_bf16;
	/* What goes wrong, for tests of refusals. */
	int bad_rank;	 /* -1: none */
	const char *bad; /* "step", "length", "maps", "count", … */
	struct cfs_source *source;
	struct cfs_filetab *tab;
};

/* One element of a flat tensor. */
struct ds_elem {
	uint32_t param;
	uint64_t elem;
};

static inline float ds_value(uint32_t role, uint32_t param, uint64_t elem)
{
	return (float)((role * 53 + param * 31 + elem * 7 + 1) % 251);
}

/* ---- one file ---- */

struct ds_file {
	struct ds_made *made;
	struct cfs_torch_writer *w;
	struct cfs_pickle *doc;
	struct cfs_map *maps[128]; /* payloads, until the file is made */
	uint32_t n_maps;
};

static inline void ds_file_begin(struct ds_file *f, struct ds_made *made)
{
	f->made = made;
	f->w = cfs_torch_writer_new(made->tab, "archive");
	f->doc = cfs_torch_writer_doc(f->w);
	f->n_maps = 0;
}

static inline void ds_file_end(struct ds_file *f, struct cfs_node *root,
			       const char *name)
{
	struct cfs_filepool *pool = cfs_filepool_new(f->made->source);
	struct cfs_error err = {""};
	struct cfs_reader *reader;
	struct cfs_map *map;
	char *bytes;
	size_t len;

	ck_assert(!cfs_pickle_failed(f->doc));
	ck_assert_msg(!cfs_torch_writer_finish(f->w, root, NULL, NULL, NULL,
					       NULL, &map, &err),
		      "%s", err.text);
	len = cfs_map_size(map);
	bytes = malloc(len);
	ck_assert_int_eq(cfs_reader_open(map, pool, NULL, &reader, &err), 0);
	ck_assert_int_eq(cfs_reader_pread(reader, bytes, len, 0), (ssize_t)len);
	ck_assert_int_eq(cfs_source_mem_put(f->made->source, name, bytes, len),
			 0);
	free(bytes);
	cfs_reader_close(reader);
	cfs_map_unref(map);
	cfs_filepool_free(pool);
	cfs_torch_writer_free(f->w);
	for (uint32_t i = 0; i < f->n_maps; i++)
		cfs_map_unref(f->maps[i]);
}

static inline struct cfs_node *ds_tensor(struct ds_file *f,
					 enum cfs_dtype dtype,
					 const float *values, uint64_t n,
					 uint32_t ndim, const uint64_t *shape)
{
	uint32_t size = cfs_dtype_size(dtype);
	uint8_t *bytes = malloc(n * size + 1);
	struct cfs_map *map = cfs_map_new(f->made->tab);
	const struct cfs_torch_storage *s;

	cfs_dtype_cast(CFS_F32, values, dtype, bytes, n);
	ck_assert_int_eq(cfs_map_add_literal(map, bytes, n * size), 0);
	cfs_map_seal(map);
	free(bytes);
	s = cfs_torch_writer_storage(f->w, dtype, n, map, NULL, "cpu");
	ck_assert_uint_lt(f->n_maps, CFS_ARRAY_SIZE(f->maps));
	f->maps[f->n_maps++] = map;
	return cfs_torch_writer_tensor(f->w, s, 0, ndim, shape, false);
}

static inline struct cfs_node *ds_flat(struct ds_file *f, uint32_t role,
				       const struct ds_elem *e, uint64_t n)
{
	float *values = malloc((n + 1) * sizeof(*values));
	struct cfs_node *node;

	for (uint64_t i = 0; i < n; i++)
		values[i] = e[i].param == DS_PAD
				    ? 77.0f
				    : ds_value(role + f->made->skew, e[i].param,
					       e[i].elem);
	node = ds_tensor(f, CFS_F32, values, n, 1, &n);
	free(values);
	return node;
}

static inline struct cfs_node *ds_weight(struct ds_file *f, uint32_t p,
					 uint64_t from, uint64_t n,
					 uint32_t ndim, const uint64_t *shape)
{
	float *values = malloc((n + 1) * sizeof(*values));
	struct cfs_node *node;

	for (uint64_t i = 0; i < n; i++)
		values[i] = from + i < f->made->params[p].numel
				    ? ds_value(1 + f->made->skew, p, from + i)
				    : 77.0f;
	node = ds_tensor(f, f->made->bf16 ? CFS_BF16 : CFS_F16, values, n, ndim,
			 shape);
	free(values);
	return node;
}

static inline struct cfs_node *ds_size(struct ds_file *f,
				       const struct ds_param *p)
{
	struct cfs_node *dims[2], *shape;

	for (uint32_t d = 0; d < p->ndim; d++)
		dims[d] = cfs_node_int(f->doc, (int64_t)p->shape[d]);
	shape = cfs_node_tuple(f->doc, dims, p->ndim);
	return cfs_node_call(f->doc, "torch", "Size",
			     cfs_node_tuple(f->doc, &shape, 1));
}

static inline struct cfs_node *ds_config(struct ds_file *f)
{
	const struct ds_made *m = f->made;
	struct cfs_node *root = cfs_node_dict(f->doc);
	struct cfs_node *zero = cfs_node_dict(f->doc);
	struct cfs_node *half = cfs_node_dict(f->doc);

	cfs_node_set_str(f->doc, zero, "stage", cfs_node_int(f->doc, m->stage));
	if (m->round_robin || m->flag_only)
		cfs_node_set_str(f->doc, zero, "round_robin_gradients",
				 cfs_node_bool(f->doc, true));
	if (m->sub_group_size)
		cfs_node_set_str(
			f->doc, zero, "sub_group_size",
			cfs_node_int(f->doc, (int64_t)m->sub_group_size));
	cfs_node_set_str(f->doc, half, "enabled", cfs_node_bool(f->doc, true));
	cfs_node_set_str(f->doc, root, "zero_optimization", zero);
	cfs_node_set_str(f->doc, root, m->bf16 ? "bf16" : "fp16", half);
	return root;
}

#endif
