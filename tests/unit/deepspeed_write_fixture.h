/*
 * A small stage 1 or 3 step held in memory, for the writer's tests.
 *
 * Module: emb 7x5, l1.weight 3x5, head 7x3 (group 0), l1.bias, ln.weight,
 * ln.bias of 3 each (group 1), frozen 5.  Element i of a group's k-th role has
 * the value 1000 * k + i, so that a wrong place shows.
 */
#ifndef CFS_TESTS_DEEPSPEED_WRITE_FIXTURE_H
#define CFS_TESTS_DEEPSPEED_WRITE_FIXTURE_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/deepspeed/deepspeed.h"
#include "store/util/buf.h"
#include "store/util/error.h"

#define N_TRAIN 6
#define N_ALL	7
#define ALL_G0	71u
#define ALL_G1	9u

static const struct {
	const char *name;
	uint32_t ndim;
	uint64_t shape[2];
	uint32_t group;
} params[N_ALL] = {
	{"emb.weight", 2, {7, 5}, 0},
	{"l1.weight", 2, {3, 5}, 0},
	{"head.weight", 2, {7, 3}, 0},
	{"l1.bias", 1, {3}, 1},
	{"ln.weight", 1, {3}, 1},
	{"ln.bias", 1, {3}, 1},
	{"frozen", 1, {5}, CFS_GROUP_FROZEN},
};

struct fixture {
	struct cfs_ds_step step;
	struct cfs_step_rank base_rank;
	struct cfs_ds_rank rank;
	struct cfs_ds_file files[2];
	struct cfs_ds_group groups[2];
	struct cfs_source *source;
	struct cfs_torchfile *model, *optim;
};

static uint64_t numel_of(uint32_t i)
{
	return params[i].ndim == 2 ? params[i].shape[0] * params[i].shape[1]
				   : params[i].shape[0];
}

/* The bytes of a map. */
static void map_bytes(struct cfs_map *map, struct cfs_filepool *pool,
		      struct cfs_buf *out)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;
	struct cfs_error err = {""};
	uint64_t size = cfs_map_size(map);
	uint8_t *p;

	ck_assert_msg(!cfs_reader_open(map, pool, NULL, &reader, &err), "%s",
		      err.text);
	p = cfs_buf_grow(out, size);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(cfs_reader_pread(reader, p, size, 0), size);
}

/* Puts bytes into the source as @path and parses them as a torch file. */
static struct cfs_torchfile *put_and_read(struct fixture *f, const char *path,
					  const struct cfs_buf *bytes)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct cfs_torchfile *tf;
	struct cfs_error err = {""};
	struct cfs_version version;
	struct stat st;
	uint32_t index;
	int r;

	ck_assert_int_eq(
		cfs_source_mem_put(f->source, path, bytes->data, bytes->len),
		0);
	ck_assert_int_eq(f->source->ops->open(f->source, path, &file), 0);
	ck_assert_int_eq(file->ops->stat(file, &st), 0);
	cfs_version_of(&st, &version);
	ck_assert_int_eq(
		cfs_filetab_add(f->step.base.files, path, &version, &index), 0);
	r = cfs_torchfile_read(file, bytes->len, f->step.base.files, index,
			       NULL, &tf, &err);
	ck_assert_msg(r == 0, "%s: %s", path, err.text);
	return tf;
}

/* A tensor of consecutive numbers from @from on. */
static struct cfs_node *ramp(struct cfs_torch_writer *w,
			     struct cfs_filetab *tab, double from,
			     uint64_t numel, enum cfs_dtype dtype,
			     uint32_t ndim, const uint64_t *shape)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_map_new(tab);
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;

	for (uint64_t i = 0; i < numel; i++) {
		float v = (float)(from + (double)i);
		uint8_t cell[4];

		cfs_dtype_cast(CFS_F32, &v, dtype, cell, 1);
		cfs_buf_put(&raw, cell, cfs_dtype_size(dtype));
	}
	ck_assert_int_eq(cfs_map_add_literal(map, raw.data, raw.len), 0);
	cfs_map_seal(map);
	return cfs_torch_writer_tensor(
		w, cfs_torch_writer_storage(w, dtype, numel, map, NULL, "cpu"),
		0, ndim, shape, false);
}

static int no_file(void *arg, uint32_t index, struct cfs_file **out)
{
	(void)arg;
	(void)index;
	(void)out;
	return -EIO;
}

static struct cfs_torchfile *write_source(struct fixture *f, const char *path,
					  struct cfs_torch_writer *w,
					  struct cfs_node *root)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;
	struct cfs_error err = {""};

	ck_assert(!cfs_pickle_failed(cfs_torch_writer_doc(w)));
	ck_assert_msg(!cfs_torch_writer_finish(w, root, no_file, NULL, NULL,
					       NULL, &map, &err),
		      "%s", err.text);
	map_bytes(map, f->step.base.pool, &bytes);
	return put_and_read(f, path, &bytes);
}

/* Model states: stage 1 with real weights, or stage 3 with none. */
static struct cfs_torchfile *source_model(struct fixture *f, int stage,
					  const char *version)
{
	struct cfs_torch_writer *w =
		cfs_torch_writer_new(f->step.base.files, "model");
	struct cfs_pickle *d = cfs_torch_writer_doc(w);
	struct cfs_node *root = cfs_node_dict(d), *config = cfs_node_dict(d);
	struct cfs_node *module = cfs_node_ordereddict(d);
	struct cfs_node *shared = cfs_node_dict(d), *none = cfs_node_none(d);
	struct cfs_torchfile *tf;
	const uint64_t empty = 0, two = 2;

	for (uint32_t i = 0; i < N_ALL; i++)
		cfs_node_set_str(d, module, params[i].name,
				 stage == 3 ? ramp(w, f->step.base.files, 0, 0,
						   CFS_BF16, 1, &empty)
					    : ramp(w, f->step.base.files, i,
						   numel_of(i), CFS_BF16,
						   params[i].ndim,
						   params[i].shape));
	cfs_node_set_str(d, module, "tied", cfs_node_get(module, "emb.weight"));
	cfs_node_set_str(d, module, "buffer",
			 ramp(w, f->step.base.files, 7, 2, CFS_F32, 1, &two));
	cfs_node_set_str(d, shared, "tied", cfs_node_str(d, "emb.weight"));
	cfs_node_set_str(d, root, "module", module);
	cfs_node_set_str(d, root, "buffer_names", cfs_node_list(d));
	cfs_node_append(d, cfs_node_get(root, "buffer_names"),
			cfs_node_str(d, "buffer"));
	cfs_node_set_str(d, root, "optimizer", none);
	cfs_node_set_str(d, root, "param_shapes", cfs_node_list(d));
	cfs_node_set_str(d, root, "frozen_param_shapes", none);
	cfs_node_set_str(d, root, "shared_params", shared);
	cfs_node_set_str(d, root, "frozen_param_fragments", none);
	cfs_node_set_str(d, root, "dp_world_size", cfs_node_int(d, 4));
	cfs_node_set_str(d, root, "ds_config", config);
	cfs_node_set_str(d, config, "train_batch_size", cfs_node_int(d, 120));
	cfs_node_set_str(d, root, "ds_version", cfs_node_str(d, version));
	cfs_node_set_str(d, root, "iteration", cfs_node_int(d, 7));
	tf = write_source(f, "s/model.pt", w, root);
	cfs_torch_writer_free(w);
	return tf;
}

/* The catalogue lies in one plain file: role by role, group by group. */
static void source_catalogue(struct fixture *f)
{
	struct cfs_catalogue *cat = cfs_catalogue_new();
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct cfs_error err = {""};
	struct cfs_extent frozen = {.count = 5};
	struct cfs_version version;
	uint32_t role, index;
	struct stat st;

	for (uint32_t k = 0; k < 2 * (ALL_G0 + ALL_G1); k++) {
		uint32_t i = k % (ALL_G0 + ALL_G1);
		float v = (float)(1000 * (1 + k / (ALL_G0 + ALL_G1)) +
				  (i < ALL_G0 ? i : i - ALL_G0));

		cfs_buf_put(&raw, &v, sizeof(v));
	}
	for (uint32_t i = 0; i < 5; i++) {
		uint16_t v = (uint16_t)(0x3f80 + i);

		cfs_buf_put(&raw, &v, sizeof(v));
	}
	ck_assert_int_eq(
		cfs_source_mem_put(f->source, "s/data", raw.data, raw.len), 0);
	ck_assert_int_eq(f->source->ops->open(f->source, "s/data", &file), 0);
	ck_assert_int_eq(file->ops->stat(file, &st), 0);
	cfs_version_of(&st, &version);
	ck_assert_int_eq(
		cfs_filetab_add(f->step.base.files, "s/data", &version, &index),
		0);
	for (uint32_t i = 0; i < N_ALL; i++) {
		uint32_t p;

		ck_assert_int_eq(cfs_catalogue_add_param(
					 cat, params[i].name, params[i].ndim,
					 params[i].shape, params[i].group, &p),
				 0);
	}
	ck_assert_int_eq(cfs_catalogue_add_role(cat, "exp_avg", &role), 0);
	for (uint32_t k = 0; k < 2; k++) {
		uint64_t at = (uint64_t)k * (ALL_G0 + ALL_G1) * 4;

		for (uint32_t i = 0; i < N_TRAIN; i++) {
			struct cfs_extent e = {.count = numel_of(i),
					       .offset = at,
					       .file = index};
			uint32_t r = k ? role : CFS_ROLE_MASTER;

			ck_assert_int_eq(
				cfs_catalogue_set_dtype(cat, i, r, CFS_F32), 0);
			ck_assert_int_eq(
				cfs_catalogue_add_extent(cat, i, r, &e), 0);
			at += 4 * numel_of(i);
		}
	}
	frozen.offset = raw.len - 10;
	frozen.file = index;
	ck_assert_int_eq(cfs_catalogue_set_dtype(cat, N_TRAIN, CFS_ROLE_WEIGHT,
						 CFS_BF16),
			 0);
	ck_assert_int_eq(cfs_catalogue_add_extent(cat, N_TRAIN, CFS_ROLE_WEIGHT,
						  &frozen),
			 0);
	ck_assert_msg(!cfs_catalogue_seal(cat, &err), "%s", err.text);
	f->base_rank.catalogue = cat;
}

/* Under the same class these tell the writer which keys there are. */
static const char *const inner_keys[] = {
	"clip_grad",	  "base_optimizer_state",
	"zero_stage",	  "single_partition_of_fp32_groups",
	"group_paddings", "partition_count",
	"ds_version",	  "param_slice_mappings",
};

/* step as a tensor, so that sharing one would show; then exp_avg. */
static struct cfs_torchfile *source_optim(struct fixture *f)
{
	struct cfs_torch_writer *w =
		cfs_torch_writer_new(f->step.base.files, "optim");
	struct cfs_pickle *d = cfs_torch_writer_doc(w);
	struct cfs_node *root = cfs_node_dict(d), *inner = cfs_node_dict(d);
	struct cfs_node *groups = cfs_node_list(d);
	struct cfs_torchfile *tf;

	for (uint32_t g = 0; g < 2; g++) {
		struct cfs_node *hyper = cfs_node_dict(d);
		struct cfs_node *scalars = cfs_node_dict(d);
		struct cfs_node *both = cfs_node_dict(d);

		cfs_node_set_str(d, hyper, "lr", cfs_node_float(d, 0.5 + g));
		cfs_node_set_str(d, hyper, "params", cfs_node_list(d));
		cfs_node_set_str(
			d, scalars, "step",
			ramp(w, f->step.base.files, 7, 1, CFS_F32, 0, NULL));
		cfs_node_set_str(d, both, "hyper", hyper);
		cfs_node_set_str(d, both, "scalars", scalars);
		cfs_node_append(d, groups, both);
	}
	for (uint32_t i = 0; i < CFS_ARRAY_SIZE(inner_keys); i++)
		cfs_node_set_str(d, inner, inner_keys[i], cfs_node_none(d));
	cfs_node_replace(d, inner, "clip_grad", cfs_node_float(d, 1.5));
	cfs_node_set_str(d, inner, "groups", groups);
	cfs_node_set_str(d, root, "optimizer_state_dict", inner);
	tf = write_source(f, "s/optim.pt", w, root);
	cfs_torch_writer_free(w);
	return tf;
}

static void fixture_free(struct cfs_step *base)
{
	struct fixture *f =
		container_of(cfs_ds_step_of(base), struct fixture, step);

	cfs_torchfile_free(f->model);
	cfs_torchfile_free(f->optim);
	cfs_catalogue_free(f->base_rank.catalogue);
	cfs_filetab_unref(base->files);
	cfs_filepool_free(base->pool);
	cfs_pickle_free(f->step.scratch);
	cfs_source_free(f->source);
	free(base->path);
	free(f);
}

static const struct cfs_format test_format = {.name = "test",
					      .step_free = fixture_free};

static struct fixture *fixture_new(int stage, const char *version)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct cfs_pickle *d = cfs_pickle_new(NULL);
	struct cfs_node *groups, *order = cfs_node_list(d);
	struct cfs_step *s = &f->step.base;

	f->source = cfs_source_mem_new();
	s->format = &test_format;
	s->path = strdup("s");
	s->source = f->source;
	s->pool = cfs_filepool_new(f->source);
	s->files = cfs_filetab_new();
	s->topology = (struct cfs_topology){
		.dp = 4,
		.tp = 1,
		.pp = 1,
		.zero_stage = stage,
		.optimizer = stage == 3 ? CFS_OPT_ZERO3 : CFS_OPT_ZERO12};
	s->dtype = CFS_BF16;
	s->n_ranks = 1;
	s->ranks = &f->base_rank;
	s->global_steps = 7;
	s->writer_version = version;
	s->mode = 0440;
	s->refs = 1;
	f->step.ranks = &f->rank;
	f->step.bf16_names = true;
	f->step.scratch = d;
	f->rank.model = &f->files[0];
	f->rank.n_model = 1;
	f->rank.optim = &f->files[1];
	f->rank.n_optim = 1;
	f->model = source_model(f, stage, version);
	f->rank.model_root = cfs_torchfile_root(f->model);
	f->step.ds_config = cfs_node_get(f->rank.model_root, "ds_config");
	source_catalogue(f);
	f->optim = source_optim(f);
	f->rank.optim_root = cfs_torchfile_root(f->optim);
	f->rank.optim_state =
		cfs_node_get(f->rank.optim_root, "optimizer_state_dict");
	groups = cfs_node_get(f->rank.optim_state, "groups");
	cfs_node_append(d, order, cfs_node_str(d, "step"));
	cfs_node_append(d, order, cfs_node_str(d, "exp_avg"));
	for (uint32_t g = 0; g < 2; g++) {
		struct cfs_node *both = cfs_seq_node_item(groups, g);

		f->groups[g].hyper = cfs_node_get(both, "hyper");
		f->groups[g].scalars = cfs_node_get(both, "scalars");
		f->groups[g].state_order = order;
	}
	f->rank.groups = f->groups;
	f->rank.n_groups = 2;
	return f;
}

static void fixture_drop(struct fixture **f)
{
	cfs_step_unref(&(*f)->step.base);
}

static struct cfs_tree *shown(struct fixture *f, struct cfs_topology topo)
{
	struct cfs_resolved target = {.topology = topo};
	struct cfs_error err = {""};
	struct cfs_tree *tree;

	ck_assert_msg(!cfs_ds_write(&f->step.base, &target, &tree, &err), "%s",
		      err.text);
	return tree;
}

static struct cfs_topology topo(uint32_t dp, int stage,
				enum cfs_optimizer_class cls)
{
	return (struct cfs_topology){.dp = dp,
				     .tp = 1,
				     .pp = 1,
				     .zero_stage = stage,
				     .optimizer = cls,
				     .sub_group_size = 1000000000};
}

/* One shown file, read back; its bytes are kept in the source as @name. */
static struct cfs_torchfile *shown_file(struct fixture *f,
					struct cfs_tree *tree, const char *name)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;
	struct cfs_error err = {""};
	static unsigned serial;
	char path[200];
	uint32_t row;

	ck_assert_msg(!cfs_tree_find(tree, name, &row), "%s is missing", name);
	ck_assert_msg(!cfs_tree_map(tree, row, &map, &err), "%s", err.text);
	map_bytes(map, f->step.base.pool, &bytes);
	(void)snprintf(path, sizeof(path), "shown%u/%s", serial++, name);
	return put_and_read(f, path, &bytes);
}

static struct cfs_node *inner_of(struct cfs_torchfile *tf)
{
	return cfs_node_get(cfs_torchfile_root(tf), "optimizer_state_dict");
}

static int64_t int_at(const struct cfs_node *seq, uint32_t i)
{
	int64_t v = INT64_MIN;

	ck_assert(cfs_node_as_int(cfs_seq_node_item(seq, i), &v));
	return v;
}

static struct cfs_torch_tensor tensor(const struct cfs_node *node)
{
	struct cfs_torch_tensor t;

	ck_assert_int_eq(cfs_torch_tensor_get(node, &t), 0);
	ck_assert(t.contiguous);
	return t;
}

/* Elements of a tensor as floats, whatever its type. */
static void elements(struct fixture *f, const struct cfs_node *node,
		     struct cfs_buf *out)
{
	struct cfs_torch_tensor t = tensor(node);
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	_cleanup_(cfs_freep) uint8_t *raw = NULL;
	uint32_t size = cfs_dtype_size(t.dtype);
	struct cfs_error err = {""};
	uint64_t off;
	uint8_t *p;

	if (!t.numel)
		return;
	ck_assert_int_eq(
		f->source->ops->open(
			f->source,
			cfs_filetab_path(f->step.base.files,
					 cfs_torchfile_index(t.storage->file)),
			&file),
		0);
	ck_assert_int_eq(cfs_torch_storage_extent(t.storage, file, &off, &err),
			 0);
	raw = malloc(t.numel * size);
	p = cfs_buf_grow(out, t.numel * sizeof(float));
	ck_assert(raw && p);
	ck_assert_int_eq(cfs_file_pread_all(file, raw, t.numel * size,
					    off + t.storage_offset * size),
			 0);
	cfs_dtype_cast(t.dtype, raw, CFS_F32, p, t.numel);
}

/* @node holds first, first + 1, … (@n of them), then @zeros zeros. */
static void check_ramp(struct fixture *f, const struct cfs_node *node,
		       float first, uint64_t n, uint64_t zeros)
{
	_cleanup_(cfs_buf_free) struct cfs_buf got = CFS_BUF_INIT;

	elements(f, node, &got);
	ck_assert_uint_eq(got.len, (n + zeros) * sizeof(float));
	for (uint64_t i = 0; i < n + zeros; i++) {
		float v;

		memcpy(&v, got.data + i * sizeof(v), sizeof(v));
		ck_assert_msg(v == (i < n ? first + (float)i : 0.0f),
			      "element %u of %u: %g", (unsigned)i,
			      (unsigned)(n + zeros), (double)v);
	}
}

#endif
