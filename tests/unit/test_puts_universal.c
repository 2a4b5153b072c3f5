/*
 * What ranks put, as a universal checkpoint: read by this project's reader,
 * written as DeepSpeed's own files at other sizes, and read again, every tensor
 * has the bytes that were put.
 */
#include "tests/unit/puts_bed.h"

#include <time.h>

#include "fs/format/deepspeed/deepspeed.h"

static const struct model {
	const char *name;
	uint64_t shape[2];
	uint32_t ndim, group; /* or CFS_GROUP_FROZEN */
} model[] = {
	{"emb.weight", {14, 5}, 2, 0},
	{"l1.weight", {6, 5}, 2, 0},
	{"l1.bias", {6}, 1, 1},
	{"ln.weight", {5}, 1, 1},
	{"head.weight", {14, 5}, 2, 0},
	{"scale", {0}, 0, 1},
	{"frozen", {9}, 1, CFS_GROUP_FROZEN},
};
#define N_MODEL CFS_ARRAY_SIZE(model)

static const char *const f32_roles[] = {"master", "exp_avg", "exp_avg_sq"};

static uint64_t numel_of(const struct model *m)
{
	uint64_t n = 1;

	for (uint32_t i = 0; i < m->ndim; i++)
		n *= m->shape[i];
	return n;
}

/* Element i of tensor @t in role @k. */
static float value_of(size_t t, uint32_t k, uint64_t i)
{
	return (float)(1000 * (uint32_t)t + 100 * k) + (float)i * 0.5f;
}

static void fill(size_t t, uint32_t k, enum cfs_dtype dtype, uint8_t *out)
{
	for (uint64_t i = 0; i < numel_of(&model[t]); i++) {
		float v = value_of(t, k, i);

		cfs_dtype_cast(CFS_F32, &v, dtype,
			       out + i * cfs_dtype_size(dtype), 1);
	}
}

/* Flat over all ranks, as ZeRO cuts. */
static void put_flat(struct bed *b, size_t t, const char *role, uint32_t k)
{
	uint64_t n = numel_of(&model[t]),
		 part = (n + b->n_ranks - 1) / b->n_ranks;
	uint8_t whole[4 * 256];

	fill(t, k, CFS_F32, whole);
	for (uint32_t rank = 0; rank < b->n_ranks; rank++) {
		struct cfs_put put =
			bed_whole(rank, model[t].name, role, CFS_F32,
				  model[t].ndim, model[t].shape);

		put.flat_start = CFS_MIN(rank * part, n);
		put.flat_count = CFS_MIN(part, n - put.flat_start);
		if (put.flat_count)
			bed_put(b, &put, whole);
	}
}

enum wrong {
	ALL_RIGHT,
	NO_GROUPS,
	NO_STEP,
	NO_OPTIMIZER,
	UNLISTED,
	UNKNOWN_PARAM,
	OTHER_STEP,
	NO_WEIGHTS,
	STEP_IN_GROUPS,
	BF16_STATE,
	NO_MOMENT,
	NO_MOMENTS, /* of the second group */
	TIED_UNPUT,
	TIED_LISTED,
	TIED_TWICE,
	NO_SCALAR, /* which several tensor-parallel ranks cannot have */
	N_WRONG
};

static bool is_left_out(size_t t, enum wrong wrong)
{
	return wrong == NO_SCALAR && !model[t].ndim;
}

static void put_weight(struct bed *b, size_t t)
{
	uint8_t whole[4 * 256];
	struct cfs_put put = bed_whole(0, model[t].name, "weight", CFS_BF16,
				       model[t].ndim, model[t].shape);

	fill(t, 0, CFS_BF16, whole);
	bed_put(b, &put, whole);
	if (b->n_ranks > 1) { /* a replica */
		put.rank = b->n_ranks - 1;
		bed_put(b, &put, whole);
	}
}

static void put_step(struct bed *b, size_t t, enum wrong wrong)
{
	float count = wrong == OTHER_STEP && t == 1 ? 8.0f : 7.0f;
	struct cfs_put put =
		bed_whole(0, model[t].name, "step", CFS_F32, 0, NULL);

	bed_put(b, &put, (const uint8_t *)&count);
}

static struct cfs_node *groups_of(struct cfs_pickle *doc, enum wrong wrong)
{
	struct cfs_node *list = cfs_node_list(doc);

	for (uint32_t g = 0; g < 2; g++) {
		struct cfs_node *group = cfs_node_dict(doc);
		struct cfs_node *names = cfs_node_list(doc);

		cfs_node_set_str(doc, group, "lr", cfs_node_float(doc, 0.125));
		cfs_node_set_str(doc, group, "weight_decay",
				 cfs_node_float(doc, g ? 0.0 : 0.1));
		if (wrong == STEP_IN_GROUPS)
			cfs_node_set_str(doc, group, "step",
					 cfs_node_int(doc, 7));
		for (size_t t = 0; t < N_MODEL; t++)
			if (model[t].group == g && !is_left_out(t, wrong) &&
			    !(wrong == UNLISTED && t == 4))
				cfs_node_append(
					doc, names,
					cfs_node_str(doc, model[t].name));
		if (wrong == UNKNOWN_PARAM && g)
			cfs_node_append(doc, names, cfs_node_str(doc, "l2.x"));
		cfs_node_set_str(doc, group, "params", names);
		cfs_node_append(doc, list, group);
	}
	return list;
}

static void put_shared(struct bed *b, struct cfs_pickle *doc,
		       struct cfs_node *client, enum wrong wrong)
{
	struct cfs_node *shared = cfs_node_dict(doc);
	const char *alias = wrong == TIED_LISTED ? "head.weight" : "out.weight";

	cfs_node_set_str(doc, shared, alias,
			 cfs_node_str(doc, wrong == TIED_UNPUT ? "in.weight"
							       : "emb.weight"));
	bed_object(b, "shared_params", shared);
	if (wrong == TIED_TWICE)
		cfs_node_set_str(doc, client, "shared_params", shared);
}

static void put_model(struct bed *b, enum wrong wrong)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *client = cfs_node_dict(doc);
	static const uint64_t shape[] = {3};
	struct cfs_put buffer =
		bed_whole(0, "inv_freq", "buffer", CFS_F32, 1, shape);
	float freqs[] = {1.0f, 0.5f, 0.25f};

	for (size_t t = 0; t < N_MODEL; t++) {
		bool frozen = model[t].group == CFS_GROUP_FROZEN;

		if (is_left_out(t, wrong))
			continue;
		if (wrong != NO_WEIGHTS)
			put_weight(b, t);
		for (uint32_t k = 0; !frozen && wrong != NO_OPTIMIZER && k < 3;
		     k++)
			if (!(wrong == NO_MOMENT && t == 1 && k == 2) &&
			    !(wrong == NO_MOMENTS && model[t].group && k))
				put_flat(b, t, f32_roles[k], k);
		if (!frozen && wrong != NO_STEP && wrong != NO_OPTIMIZER &&
		    wrong != STEP_IN_GROUPS)
			put_step(b, t, wrong);
	}
	if (wrong == BF16_STATE) {
		uint8_t some[4 * 256] = {0};
		struct cfs_put put = bed_whole(0, model[0].name, "extra",
					       CFS_BF16, 2, model[0].shape);

		bed_put(b, &put, some);
	}
	bed_put(b, &buffer, (const uint8_t *)freqs);
	if (wrong != NO_GROUPS)
		bed_object(b, "param_groups", groups_of(doc, wrong));
	cfs_node_set_str(doc, client, "iteration", cfs_node_int(doc, 70));
	cfs_node_set_str(doc, client, "skipped_steps", cfs_node_int(doc, 2));
	if (wrong == TIED_UNPUT || wrong == TIED_LISTED || wrong == TIED_TWICE)
		put_shared(b, doc, client, wrong);
	bed_object(b, "client_state", client);
	if (wrong == NO_WEIGHTS) {
		struct cfs_node *config = cfs_node_dict(doc);
		struct cfs_node *bf16 = cfs_node_dict(doc);

		cfs_node_set_str(doc, bf16, "enabled",
				 cfs_node_bool(doc, true));
		cfs_node_set_str(doc, config, "bf16", bf16);
		bed_object(b, "ds_config", config);
	}
}

/* ---- what comes back ---- */

static void expect_tensor(struct bed *b, const struct cfs_step *step, size_t t,
			  uint32_t role, uint32_t k, enum cfs_dtype dtype)
{
	const struct cfs_catalogue *cat = step->ranks[0].catalogue;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(step->files);
	_cleanup_(cfs_buf_free) struct cfs_buf have = CFS_BUF_INIT;
	uint8_t want[4 * 256];
	uint32_t i;

	ck_assert_int_eq(cfs_catalogue_find(cat, model[t].name, &i), 0);
	ck_assert_int_eq(cfs_catalogue_param(cat, i)->group, model[t].group);
	ck_assert_uint_eq(cfs_catalogue_param(cat, i)->ndim, model[t].ndim);
	ck_assert_msg(cfs_catalogue_has(cat, i, role), "%s role %u",
		      model[t].name, role);
	ck_assert_int_eq(cfs_catalogue_dtype(cat, i, role), dtype);
	ck_assert_int_eq(
		cfs_catalogue_append(cat, i, role, 0, numel_of(&model[t]), map),
		0);
	cfs_map_seal(map);
	bed_read(b, map, &have);
	fill(t, k, dtype, want);
	ck_assert_uint_eq(have.len,
			  numel_of(&model[t]) * cfs_dtype_size(dtype));
	ck_assert_mem_eq(have.data, want, have.len);
}

static void expect_step(struct bed *b, const struct cfs_step *step,
			bool frozen_weights)
{
	const struct cfs_ds_step *ds = container_of(
		(struct cfs_step *)(uintptr_t)step, struct cfs_ds_step, base);
	int64_t v;

	ck_assert_int_eq(step->global_steps, 7);
	ck_assert_int_eq(step->dtype, CFS_BF16);
	ck_assert_uint_eq(cfs_catalogue_groups(step->ranks[0].catalogue), 2);
	ck_assert(cfs_node_as_int(
		cfs_node_get(ds->ranks[0].model_root, "iteration"), &v));
	ck_assert_int_eq(v, 70);
	ck_assert(cfs_node_as_int(
		cfs_node_get(ds->ranks[0].model_root, "skipped_steps"), &v));
	ck_assert_int_eq(v, 2);
	for (size_t t = 0; t < N_MODEL; t++) {
		bool frozen = model[t].group == CFS_GROUP_FROZEN;

		/* stage 3 has no weights but frozen ones */
		if (step->topology.zero_stage < 3 ? !frozen || frozen_weights
						  : frozen && frozen_weights)
			expect_tensor(b, step, t, CFS_ROLE_WEIGHT, 0, CFS_BF16);
		for (uint32_t k = 0; !frozen && k < 3; k++)
			expect_tensor(b, step, t, CFS_ROLE_MASTER + k, k,
				      CFS_F32);
	}
}

/* The files of @from at @dp and @zero, in a directory of their own. */
static void write_at(struct bed *b, struct cfs_step *from, uint32_t dp,
		     int zero, const char *dir)
{
	struct cfs_request request = CFS_REQUEST_INIT;
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	struct bed_dir out = {b, dir, 0};
	struct cfs_resolved target;

	request.dp = dp;
	request.zero_stage = zero;
	ck_assert_msg(!from->format->resolve(from, &request, &target, &b->err),
		      "%s", b->err.text);
	ck_assert_msg(!from->format->write(from, &target, &tree, &b->err),
		      "dp%u zero%d: %s", dp, zero, b->err.text);
	for (uint32_t i = 0; i < tree->n_files; i++) {
		_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;

		ck_assert_msg(!cfs_tree_map(tree, i, &map, &b->err), "%s",
			      b->err.text);
		(void)bed_file(&out, tree->files[i].name, map);
	}
}

static void round_trip(enum wrong how, uint32_t n_ranks)
{
	_cleanup_(cfs_step_unrefp) struct cfs_step *step = NULL;
	static struct bed b;
	struct bed_dir dir = {&b, "u", 0};
	struct cfs_puts puts;

	bed_init(&b, n_ranks);
	put_model(&b, how);
	puts = bed_puts(&b);
	ck_assert_msg(!cfs_puts_universal(&puts, bed_file, &dir, &b.err), "%s",
		      b.err.text);
	ck_assert_int_eq(cfs_format_universal.probe(b.source, "u"), 1);
	ck_assert_int_eq(cfs_format_universal.complete(b.source, "u", &b.err),
			 1);
	ck_assert_msg(!cfs_format_universal.read(b.source, b.pool, "u", &step,
						 &b.err),
		      "%s", b.err.text);
	expect_step(&b, step, how != NO_WEIGHTS);
	for (uint32_t dp = 1; dp <= 4; dp++)
		for (int zero = 1; zero <= 3; zero++) {
			_cleanup_(cfs_step_unrefp) struct cfs_step *again =
				NULL;
			char name[32];

			(void)snprintf(name, sizeof(name), "dp%u-%d", dp, zero);
			write_at(&b, step, dp, zero, name);
			ck_assert_msg(
				!cfs_format_deepspeed.read(
					b.source, b.pool, name, &again, &b.err),
				"%s: %s", name, b.err.text);
			ck_assert_uint_eq(again->topology.dp, dp);
			ck_assert_int_eq(again->topology.zero_stage, zero);
			expect_step(&b, again, how != NO_WEIGHTS);
		}
	cfs_step_unref(cfs_steal(step));
	bed_fini(&b);
}

START_TEST(test_round_trip)
{
	round_trip(ALL_RIGHT, (uint32_t)_i);
}
END_TEST

START_TEST(test_masters_only)
{
	round_trip(NO_WEIGHTS, 3);
}
END_TEST

START_TEST(test_step_in_groups)
{
	round_trip(STEP_IN_GROUPS, 2);
}
END_TEST

/* ---- tensor parallelism ---- */

static struct cfs_node *patterns(struct cfs_pickle *doc)
{
	static const char *const same[] = {"ln.weight", "frozen", "emb.weight",
					   "head.weight"};
	struct cfs_node *info = cfs_node_dict(doc), *list = cfs_node_list(doc);

	for (size_t i = 0; i < CFS_ARRAY_SIZE(same); i++)
		cfs_node_append(doc, list, cfs_node_str(doc, same[i]));
	cfs_node_set_str(doc, info, "universal_checkpoint_version",
			 cfs_node_float(doc, 0.2));
	cfs_node_set_str(doc, info, "tp_replicated_parameter_patterns", list);
	return info;
}

/* Rows where no pattern says that all ranks have it. */
START_TEST(test_tensor_parallel)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	_cleanup_(cfs_step_unrefp) struct cfs_step *step = NULL, *two = NULL;
	struct cfs_request request = CFS_REQUEST_INIT;
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	static struct bed b;
	struct bed_dir dir = {&b, "u", 0}, out = {&b, "tp2", 0};
	struct cfs_resolved target;
	struct cfs_puts puts;
	uint32_t i;

	bed_init(&b, 2);
	put_model(&b, NO_SCALAR);
	bed_object(&b, "universal_checkpoint_info", patterns(doc));
	puts = bed_puts(&b);
	ck_assert_msg(!cfs_puts_universal(&puts, bed_file, &dir, &b.err), "%s",
		      b.err.text);
	ck_assert_msg(!cfs_format_universal.read(b.source, b.pool, "u", &step,
						 &b.err),
		      "%s", b.err.text);
	request.tp = 2;
	request.dp = 2;
	ck_assert_msg(!step->format->resolve(step, &request, &target, &b.err),
		      "%s", b.err.text);
	ck_assert_msg(!step->format->write(step, &target, &tree, &b.err), "%s",
		      b.err.text);
	for (i = 0; i < tree->n_files; i++) {
		_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;

		ck_assert_msg(!cfs_tree_map(tree, i, &map, &b.err), "%s",
			      b.err.text);
		(void)bed_file(&out, tree->files[i].name, map);
	}
	ck_assert_msg(!cfs_format_deepspeed.read(b.source, b.pool, "tp2", &two,
						 &b.err),
		      "%s", b.err.text);
	ck_assert_uint_eq(two->n_ranks, 2);
	ck_assert_int_eq(
		cfs_catalogue_find(two->ranks[1].catalogue, "l1.weight", &i),
		0);
	ck_assert_uint_eq(
		cfs_catalogue_param(two->ranks[1].catalogue, i)->shape[0], 3);
	ck_assert_int_eq(
		cfs_catalogue_find(two->ranks[1].catalogue, "ln.weight", &i),
		0);
	ck_assert_uint_eq(
		cfs_catalogue_param(two->ranks[1].catalogue, i)->numel, 5);
	cfs_tree_unref(cfs_steal(tree));
	cfs_step_unref(cfs_steal(two));
	cfs_step_unref(cfs_steal(step));
	bed_fini(&b);
}
END_TEST

/* ---- refusals ---- */

static const struct {
	enum wrong wrong;
	const char *text;
} refusals[] = {
	{NO_GROUPS, "put object param_groups"},
	{NO_STEP, "emb.weight: how many steps"},
	{NO_OPTIMIZER, "safetensors"},
	{UNLISTED, "tensor head.weight"},
	{UNKNOWN_PARAM, "l2.x"},
	{BF16_STATE, "tensor emb.weight (extra)"},
	{OTHER_STEP, "emb.weight and l1.weight of one group: their counts"},
	{NO_MOMENT, "parameter l1.weight: no exp_avg_sq was put"},
	{NO_MOMENTS, "parameter l1.bias: no state"},
	{TIED_UNPUT, "out.weight is to be another name of in.weight"},
	{TIED_LISTED, "lists head.weight, which shared_params"},
	{TIED_TWICE, "put one of them"},
};

START_TEST(test_refusals)
{
	static struct bed b;
	struct bed_dir dir = {&b, "u", 0};
	struct cfs_puts puts;

	bed_init(&b, 2);
	put_model(&b, refusals[_i].wrong);
	puts = bed_puts(&b);
	ck_assert_int_lt(cfs_puts_universal(&puts, bed_file, &dir, &b.err), 0);
	ck_assert_msg(strstr(b.err.text, refusals[_i].text), "%s", b.err.text);
	ck_assert_uint_eq(dir.n, 0);
	bed_fini(&b);
}
END_TEST

/* ---- very many ---- */

#define MANY_RANKS  2816u
#define MANY_PARAMS 125u

static int count_file(void *arg, const char *name, struct cfs_map *map)
{
	uint32_t *n = arg;

	(void)name;
	ck_assert_uint_gt(cfs_map_size(map), 0);
	++*n;
	return 0;
}

static void many_objects(struct bed *b, char names[][64])
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *list = cfs_node_list(doc), *group = cfs_node_dict(doc);
	struct cfs_node *params = cfs_node_list(doc);

	for (uint32_t i = 0; i < MANY_PARAMS; i++)
		cfs_node_append(doc, params, cfs_node_str(doc, names[i]));
	cfs_node_set_str(doc, group, "lr", cfs_node_float(doc, 0.125));
	cfs_node_set_str(doc, group, "step", cfs_node_int(doc, 7));
	cfs_node_set_str(doc, group, "params", params);
	cfs_node_append(doc, list, group);
	bed_object(b, "param_groups", list);
}

/* Each rank has a piece of each of 500 tensors. */
START_TEST(test_many)
{
	static const char *const roles[] = {"weight", "master", "exp_avg",
					    "exp_avg_sq"};
	struct cfs_put *all =
		calloc((size_t)MANY_RANKS * MANY_PARAMS * 4, sizeof(*all));
	static char names[MANY_PARAMS][64];
	static const uint64_t shape[] = {MANY_RANKS, 64};
	static struct bed b;
	struct cfs_puts puts;
	struct timespec a, z;
	uint32_t n = 0;

	ck_assert_ptr_nonnull(all);
	for (uint32_t i = 0; i < MANY_PARAMS; i++)
		(void)snprintf(names[i], sizeof(names[i]),
			       "transformer.h.%u.attention.w", i);
	bed_init(&b, 0);
	many_objects(&b, names);
	puts = bed_puts(&b);
	puts.puts = all;
	for (uint32_t rank = 0; rank < MANY_RANKS; rank++) {
		struct cfs_version version = {.ino = rank + 1, .size = 1 << 30};
		char name[32];
		uint32_t row;

		(void)snprintf(name, sizeof(name), "part-%u", rank);
		ck_assert_int_eq(cfs_filetab_add(b.files, name, &version, &row),
				 0);
		for (uint32_t t = 0; t < MANY_PARAMS * 4; t++) {
			struct cfs_put *put = &all[puts.n_puts++];

			*put = bed_whole(rank, names[t / 4], roles[t % 4],
					 CFS_F32, 2, shape);
			put->flat_start = (uint64_t)rank * 64;
			put->flat_count = 64;
			put->file = row;
			put->file_off = t * UINT64_C(256);
		}
	}
	ck_assert_int_eq(clock_gettime(CLOCK_MONOTONIC, &a), 0);
	ck_assert_msg(!cfs_puts_universal(&puts, count_file, &n, &b.err), "%s",
		      b.err.text);
	ck_assert_int_eq(clock_gettime(CLOCK_MONOTONIC, &z), 0);
	printf("%zu puts, %u files: %.3f s\n", puts.n_puts, n,
	       (double)(z.tv_sec - a.tv_sec) +
		       (double)(z.tv_nsec - a.tv_nsec) * 1e-9);
	/* three states, a count, optimizer_state.pt, two model states */
	ck_assert_uint_eq(n, MANY_PARAMS * 4 + 3);
	free(all);
	bed_fini(&b);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("puts_universal");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, TEST_TIMEOUT);
	tcase_add_loop_test(tc, test_round_trip, 1, 5);
	tcase_add_test(tc, test_masters_only);
	tcase_add_test(tc, test_step_in_groups);
	tcase_add_test(tc, test_tensor_parallel);
	tcase_add_loop_test(tc, test_refusals, 0,
			    (int)CFS_ARRAY_SIZE(refusals));
	tcase_add_test(tc, test_many);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
