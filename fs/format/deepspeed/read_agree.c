/* Are the files of a step of one save?  Names and lengths do not tell: a rank
 * of an older step, or of another run of the same model, fits everywhere. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/container/zip.h"
#include "store/map/source.h"
#include "store/util/arena.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/parallel.h"

#define PICKLE_BYTES_MAX ((size_t)1 << 30)

/* ---- saying so ---- */

/* ZeroStageEnum(2) -> 2; others as they are. */
static const struct cfs_node *enum_value(const struct cfs_node *node)
{
	const struct cfs_node *args;

	if (!node || node->kind != CFS_NODE_OBJECT)
		return node;
	args = node->u.object->args;
	return cfs_seq_node_count(args) == 1 ? cfs_seq_node_item(args, 0)
					     : node;
}

static void put_value(struct cfs_buf *buf, const struct cfs_node *node)
{
	const char *s = cfs_node_as_str(node);
	double real;
	int64_t v;

	if (!node)
		cfs_buf_put_str(buf, "missing");
	else if (s)
		cfs_buf_printf(buf, "%.60s", s);
	else if (cfs_node_is_none(node))
		cfs_buf_put_str(buf, "None");
	else if (cfs_node_as_int(enum_value(node), &v))
		cfs_buf_printf(buf, "%lld", (long long)v);
	else if (cfs_node_as_real(node, &real))
		cfs_buf_printf(buf, "%g", real);
	else if (cfs_node_is_map(node) || cfs_node_is_seq(node))
		cfs_buf_printf(buf, "a collection of %u",
			       cfs_node_is_map(node)
				       ? cfs_map_node_count(node)
				       : cfs_seq_node_count(node));
	else
		cfs_buf_put_str(buf, cfs_torch_is_tensor(node) ? "a tensor"
							       : "an object");
}

static int unlike(const char *file_a, const char *file_b, const char *key,
		  const struct cfs_node *a, const struct cfs_node *b,
		  struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf x = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf y = CFS_BUF_INIT;

	put_value(&x, a);
	put_value(&y, b);
	if (!strcmp(cfs_buf_str(&x), cfs_buf_str(&y)))
		cfs_buf_put_str(&y, " with other contents");
	return cfs_fail(err, -EINVAL,
			"%s and %s are not of one save: %s is %s there and %s "
			"here",
			file_a, file_b, key, cfs_buf_str(&x), cfs_buf_str(&y));
}

/* ---- model states ---- */

/* Counters of the run and sizes of its world, equal in every file. */
static const char *const world_keys[] = {"global_steps",  "global_samples",
					 "skipped_steps", "dp_world_size",
					 "mp_world_size", "ds_version"};

static int agree_world(const struct cfs_node *a, const char *file_a,
		       const struct cfs_node *b, const char *file_b,
		       struct cfs_error *err)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(world_keys); i++) {
		const struct cfs_node *x = cfs_node_get(a, world_keys[i]);
		const struct cfs_node *y = cfs_node_get(b, world_keys[i]);

		if ((x || y) && !cfs_ds_same_value(x, NULL, y, NULL))
			return unlike(file_a, file_b, world_keys[i], x, y, err);
	}
	return 0;
}

/* One checkpoint's model states, another's optimizer files. */
static int refuse_leftovers(const struct cfs_ds_rank *rank,
			    struct cfs_error *err)
{
	const struct cfs_node *root = rank->model_root;
	const struct cfs_node *shapes = cfs_node_get(root, "param_shapes");

	if (!rank->n_optim || cfs_node_is_seq(shapes) ||
	    !cfs_node_is_map(cfs_node_get(root, "optimizer")) ||
	    cfs_ds_is_twice(rank))
		return 0;
	return cfs_fail(err, -EINVAL,
			"%s holds the whole optimizer, %s a part of one: two "
			"checkpoints are mixed in one directory",
			rank->model[0].name, rank->optim[0].name);
}

static int refuse_mics(const struct cfs_ds_step *step, struct cfs_error *err)
{
	uint64_t size;

	if (!cfs_node_as_u64(
		    cfs_ds_config_get(step->ds_config,
				      "zero_optimization.mics_shard_size"),
		    &size) ||
	    !size)
		return 0;
	return cfs_fail(err, -ENOTSUP,
			"%s: mics_shard_size is %llu: MiCS, which cuts over "
			"groups of ranks, is not supported",
			step->ranks[0].model[0].name, (unsigned long long)size);
}

/* Ranks of one model-parallel rank's model states that have the same pickle
 * say the same; the first of each kind is parsed.  Stage 3 only. */
struct twins {
	struct cfs_ds_step *step;
	uint32_t mp;
	uint64_t *digest; /* by dp rank; 0: none, it is like no other */
	uint32_t *unique; /* those to parse */
	uint32_t n;
};

/* Tensors are records of their own, so what is hashed is the tree. */
static int digest_pickle(struct cfs_file *file, uint64_t size, uint64_t *out)
{
	_cleanup_(cfs_arena_freep) struct cfs_arena *arena = cfs_arena_new(0);
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_zip zip = {0};

	/* A file that is no archive is for the parser to judge. */
	if (!arena || cfs_zip_read(file, size, arena, &zip, NULL) < 0)
		return 0;
	for (uint32_t i = 0; i < zip.n_entries; i++) {
		const struct cfs_zip_entry *e = &zip.entries[i];
		const char *slash = strrchr(e->name, '/');

		if (!slash || strcmp(slash, "/data.pkl") != 0)
			continue;
		if (cfs_zip_extract(file, size, e, PICKLE_BYTES_MAX, &buf,
				    NULL) < 0)
			return 0;
		*out = cfs_hash64(buf.data, buf.len, buf.len) | 1;
		return 0;
	}
	return 0;
}

static int digest_one(void *arg, uint32_t i, struct cfs_error *err)
{
	struct twins *t = arg;
	const struct cfs_step *base = &t->step->base;
	uint32_t row = t->step->ranks[t->mp].model[i].index;
	struct cfs_file *file;
	int r = cfs_ds_open(base, row, &file, err);

	if (r < 0)
		return r;
	r = digest_pickle(file, cfs_filetab_version(base->files, row)->size,
			  &t->digest[i]);
	cfs_filepool_put(base->pool, file);
	return r;
}

static int compare_one(void *arg, uint32_t i, struct cfs_error *err)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *torch = NULL;
	struct twins *t = arg;
	const struct cfs_ds_rank *rank = &t->step->ranks[t->mp];
	const struct cfs_ds_file *file = &rank->model[t->unique[i]];
	const struct cfs_node *root, *a, *b;
	int r = cfs_ds_parse(&t->step->base, file, &torch, err);

	if (r < 0)
		return r;
	root = cfs_torchfile_root(torch);
	r = agree_world(rank->model_root, rank->model[0].name, root, file->name,
			err);
	if (r < 0)
		return r;
	a = cfs_node_get(rank->model_root, "param_shapes");
	b = cfs_node_get(root, "param_shapes");
	return (!a && !b) || cfs_ds_same_value(a, NULL, b, NULL)
		       ? 0
		       : unlike(rank->model[0].name, file->name, "param_shapes",
				a, b, err);
}

static void find_unique(struct twins *t, uint32_t n)
{
	for (uint32_t r = 1; r < n; r++) {
		uint32_t like = 0;

		while (like < r &&
		       (!t->digest[r] || t->digest[like] != t->digest[r]))
			like++;
		if (like == r)
			t->unique[t->n++] = r;
	}
}

static int agree_ranks(struct cfs_ds_step *step, uint32_t mp,
		       struct cfs_error *err)
{
	uint32_t n = step->ranks[mp].n_model;
	_cleanup_(cfs_freep) uint64_t *digest = calloc(n, sizeof(*digest));
	_cleanup_(cfs_freep) uint32_t *unique = calloc(n, sizeof(*unique));
	struct twins t = {step, mp, digest, unique, 0};
	int r;

	if (!digest || !unique)
		return -ENOMEM;
	r = cfs_parallel(n, digest_one, &t, err);
	if (r < 0)
		return r;
	find_unique(&t, n);
	return cfs_parallel(t.n, compare_one, &t, err);
}

int cfs_ds_agree_models(struct cfs_ds_step *step, struct cfs_error *err)
{
	const struct cfs_ds_rank *first = &step->ranks[0];
	int r = refuse_mics(step, err);

	for (uint32_t m = 0; !r && m < step->base.n_ranks; m++) {
		const struct cfs_ds_rank *rank = &step->ranks[m];

		r = refuse_leftovers(rank, err);
		if (!r && m)
			r = agree_world(first->model_root, first->model[0].name,
					rank->model_root, rank->model[0].name,
					err);
		if (!r && rank->n_model > 1)
			r = agree_ranks(step, m, err);
	}
	return r;
}

/* ---- optimizer files of one model-parallel rank ---- */

/* What each rank has its own of; its lengths and contents are judged where
 * they are read.  ds_config may name devices and paths. */
static const char *const own_keys[] = {"base_optimizer_state",
				       "optimizer_state_dict",
				       "single_partition_of_fp32_groups",
				       "local_sub_partitions_of_fp32_groups",
				       "fp32_flat_groups",
				       "param_slice_mappings",
				       "group_paddings",
				       "ds_config"};

static bool is_own(const char *key)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(own_keys); i++)
		if (!strcmp(own_keys[i], key))
			return true;
	return false;
}

/* Does @value hold a tensor of the partition's length? */
static bool looks_cut(const struct cfs_ds_layout *layout,
		      const struct cfs_node *value)
{
	struct cfs_torch_tensor t;

	if (cfs_node_is_seq(value) && !cfs_torch_is_tensor(value)) {
		for (uint32_t i = 0; i < cfs_seq_node_count(value); i++)
			if (looks_cut(layout, cfs_seq_node_item(value, i)))
				return true;
		return false;
	}
	if (!cfs_torch_is_tensor(value) || cfs_torch_tensor_get(value, &t) < 0)
		return false;
	for (uint32_t u = 0; u < layout->n_units; u++)
		if (t.numel > 1 && t.numel == layout->units[u].len)
			return true;
	return false;
}

/* Every key of @a that all ranks must have alike. */
static int agree_keys(const struct cfs_ds_layout *layout, uint32_t dp,
		      const struct cfs_node *a, struct cfs_file *file_a,
		      const struct cfs_node *b, struct cfs_file *file_b,
		      struct cfs_error *err)
{
	const struct cfs_ds_file *files = layout->rank->optim;

	for (uint32_t i = 0; i < cfs_map_node_count(a); i++) {
		struct cfs_node *key, *x, *y;
		const char *name;

		cfs_map_node_pair(a, i, &key, &x);
		name = cfs_node_as_str(key);
		if (!name || is_own(name))
			continue;
		y = cfs_node_get(b, name);
		if (dp && !cfs_ds_same_value(x, file_a, y, file_b))
			return unlike(files[0].name, files[dp].name, name, x, y,
				      err);
		if (looks_cut(layout, x))
			return cfs_fail(err, -ENOTSUP,
					"%s: %s, which is not known, is as "
					"long as the rank's part of the "
					"parameters: it may be cut like them",
					files[dp].name, name);
	}
	for (uint32_t i = 0; dp && i < cfs_map_node_count(b); i++) {
		struct cfs_node *key, *y;
		const char *name;

		cfs_map_node_pair(b, i, &key, &y);
		name = cfs_node_as_str(key);
		if (name && !is_own(name) && !cfs_node_get(a, name))
			return unlike(files[0].name, files[dp].name, name, NULL,
				      y, err);
	}
	return 0;
}

int cfs_ds_agree_part(const struct cfs_ds_layout *layout, uint32_t dp,
		      struct cfs_file *file0, const struct cfs_node *root,
		      struct cfs_file *file, struct cfs_error *err)
{
	const struct cfs_ds_rank *rank = layout->rank;
	int r;

	r = agree_keys(layout, dp, rank->optim_root, file0, root, file, err);
	if (r < 0)
		return r;
	return agree_keys(layout, dp, rank->optim_state, file0,
			  cfs_node_get(root, "optimizer_state_dict"), file,
			  err);
}

/* ---- optimizers of different model-parallel ranks ---- */

/* The optimizer's own count of steps, a number or a tensor of one. */
static const struct cfs_node *step_of(const struct cfs_ds_layout *layout)
{
	const struct cfs_node *inner = layout->rank->optim_state;
	const struct cfs_node *step =
		cfs_node_get(inner, "base_optimizer_state_step");

	for (uint32_t u = 0; !step && u < layout->n_units; u++)
		step = cfs_node_get(layout->units[u].state, "step");
	if (!step)
		step = cfs_node_get(
			cfs_seq_node_item(
				cfs_node_get(cfs_ds_base_state(layout, inner),
					     "param_groups"),
				0),
			"step");
	return step;
}

/* A number for messages; that of a tensor is in its file. */
static void put_step(struct cfs_buf *buf, const struct cfs_node *node,
		     struct cfs_file *file)
{
	struct cfs_torch_tensor t;
	uint64_t off;
	float v;

	if (cfs_torch_tensor_get(node, &t) < 0 || t.dtype != CFS_F32 ||
	    t.numel != 1 || !t.storage ||
	    cfs_torch_storage_extent(t.storage, file, &off, NULL) < 0 ||
	    cfs_file_pread_all(file, &v, sizeof(v),
			       off + t.storage_offset * sizeof(v)) < 0)
		put_value(buf, node);
	else
		cfs_buf_printf(buf, "%.10g", (double)v);
}

static int unlike_steps(const struct cfs_ds_layout *a, struct cfs_file *file_a,
			const struct cfs_ds_layout *b, struct cfs_file *file_b,
			struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf x = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf y = CFS_BUF_INIT;

	put_step(&x, step_of(a), file_a);
	put_step(&y, step_of(b), file_b);
	return cfs_fail(err, -EINVAL,
			"%s and %s are not of one save: the optimizer's step "
			"is %s there and %s here",
			a->rank->optim[0].name, b->rank->optim[0].name,
			cfs_buf_str(&x), cfs_buf_str(&y));
}

static int agree_steps(const struct cfs_ds_layout *a,
		       const struct cfs_ds_layout *b, struct cfs_error *err)
{
	const struct cfs_step *base = &a->step->base;
	const struct cfs_node *x = step_of(a), *y = step_of(b);
	struct cfs_file *file_a, *file_b;
	int r;

	if (!x || !y || x->kind != y->kind)
		return 0;
	r = cfs_ds_open(base, a->rank->optim[0].index, &file_a, err);
	if (r < 0)
		return r;
	r = cfs_ds_open(base, b->rank->optim[0].index, &file_b, err);
	if (!r) {
		if (!cfs_ds_same_value(x, file_a, y, file_b))
			r = unlike_steps(a, file_a, b, file_b, err);
		cfs_filepool_put(base->pool, file_b);
	}
	cfs_filepool_put(base->pool, file_a);
	return r;
}

int cfs_ds_agree_layouts(const struct cfs_ds_layout *layouts, uint32_t n,
			 struct cfs_error *err)
{
	const struct cfs_ds_rank *first = layouts[0].rank;

	for (uint32_t m = 1; m < n; m++) {
		const struct cfs_ds_rank *rank = layouts[m].rank;
		const struct cfs_node *a, *b;
		int r;

		a = cfs_node_get(first->optim_state, "zero_stage");
		b = cfs_node_get(rank->optim_state, "zero_stage");
		if ((a || b) && !cfs_ds_same_value(a, NULL, b, NULL))
			return unlike(first->optim[0].name, rank->optim[0].name,
				      "zero_stage", a, b, err);
		r = agree_steps(&layouts[0], &layouts[m], err);
		if (r < 0)
			return r;
	}
	return 0;
}
