/*
 * Stages that make a format's files of what was put: they are ordinary files,
 * which a format's reader takes, and the same state saved again adds next to
 * nothing.
 */
#include "tests/unit/rank_bed.h"

#include "fs/container/pickle.h"
#include "fs/daemon/nstree.h"
#include "tests/unit/rank_model.h"

#define MIB ((size_t)1 << 20)

static struct cfs_put put_of(uint32_t rank, const struct tensor *t,
			     const char *role, enum cfs_dtype dtype)
{
	struct cfs_put put = {.name = t->name,
			      .role = role,
			      .dtype = dtype,
			      .ndim = t->columns > 1 ? 2 : 1,
			      .shape = {t->rows, t->columns},
			      .extent = {t->rows, t->columns},
			      .rank = rank};

	if (put.ndim == 1)
		put.shape[1] = put.extent[1] = 0;
	return put;
}

static void put_bytes(struct cfs_stage *stage, const struct cfs_put *put,
		      const void *data, size_t len)
{
	struct cfs_error err = {""};
	struct cfs_stage_stream *s = NULL;
	int r = cfs_stage_put(stage, put, &s, &err);

	ck_assert_msg(r == 0, "put: %d %s", r, err.text);
	for (size_t at = 0; at < len; at += MIB) {
		r = cfs_stage_write(s, (const uint8_t *)data + at,
				    CFS_MIN(len - at, MIB), &err);
		ck_assert_msg(r == 0, "write: %d %s", r, err.text);
	}
	stage_end(s);
}

/* Flat slices, one a rank. */
static void put_flat(struct cfs_stage *stage, uint32_t n_ranks, size_t t,
		     size_t role)
{
	_cleanup_(cfs_freep) float *v = values(&model[t], t * 8 + role);
	uint64_t n = model[t].rows * model[t].columns;
	uint64_t each = (n + n_ranks - 1) / n_ranks;

	for (uint32_t rank = 0; rank < n_ranks; rank++) {
		struct cfs_put put =
			put_of(rank, &model[t], roles[role], CFS_F32);

		put.flat_start = rank * each;
		put.flat_count = CFS_MIN(each, n - put.flat_start);
		put_bytes(stage, &put, v + put.flat_start,
			  put.flat_count * sizeof(float));
	}
}

static void put_weight(struct cfs_stage *stage, size_t t)
{
	_cleanup_(cfs_freep) float *v = values(&model[t], t * 8);
	uint64_t n = model[t].rows * model[t].columns;
	struct cfs_put put = put_of(0, &model[t], "weight", CFS_BF16);
	_cleanup_(cfs_freep) uint8_t *half = malloc(n * 2);

	ck_assert_ptr_nonnull(half);
	cfs_dtype_cast(CFS_F32, v, CFS_BF16, half, n);
	put_bytes(stage, &put, half, n * 2);
}

static void put_groups(struct cfs_stage *stage)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;
	struct cfs_node *list = cfs_node_list(doc), *names = cfs_node_list(doc);
	struct cfs_node *group = cfs_node_dict(doc);
	struct cfs_stage_stream *s;
	struct cfs_error err = {""};

	for (size_t t = 0; t < CFS_ARRAY_SIZE(model); t++)
		cfs_node_append(doc, names, cfs_node_str(doc, model[t].name));
	cfs_node_set_str(doc, group, "lr", cfs_node_float(doc, 0.5));
	cfs_node_set_str(doc, group, "step", cfs_node_int(doc, 7));
	cfs_node_set_str(doc, group, "params", names);
	cfs_node_append(doc, list, group);
	ck_assert_int_eq(cfs_pickle_encode(list, NULL, &bytes, &err), 0);
	for (uint32_t rank = 0; rank < 2; rank++) {
		ck_assert_int_eq(
			cfs_stage_object(stage, rank, "param_groups", &s, &err),
			0);
		ck_assert_int_eq(
			cfs_stage_write(s, bytes.data, bytes.len, &err), 0);
		stage_end(s);
	}
}

static void put_model(struct cfs_stage *stage, uint32_t n_ranks)
{
	for (size_t t = 0; t < CFS_ARRAY_SIZE(model); t++) {
		put_weight(stage, t);
		for (size_t role = 0; role < 3; role++)
			put_flat(stage, n_ranks, t, role);
	}
	put_groups(stage);
}

static uint64_t save(struct cfs_stage_options o)
{
	struct cfs_store_facts before, after;
	struct cfs_stage *stage;

	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_store_facts(bed.bed.store, &before), 0);
	stage = stage_new(&o);
	put_model(stage, o.n_ranks);
	stage_commit(stage);
	cfs_stage_free(stage);
	ck_assert(!is_there(CFS_NSTREE_TRASH));
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_store_facts(bed.bed.store, &after), 0);
	ns_no_problems(&bed);
	return after.stored_bytes - before.stored_bytes;
}

START_TEST(universal)
{
	struct cfs_stage_options o = rank_options("universal");
	uint64_t first, again;

	first = save(o);
	rank_expect_step(bed.ns, "universal", "runs/a/global_step7", 0);
	expect_text("runs/a/latest_universal", "global_step7");
	ck_assert(!is_there("runs/a/latest"));
	o.run = "runs/b";
	again = save(o);
	ck_assert_msg(again < first / 20, "%llu, then %llu",
		      (unsigned long long)first, (unsigned long long)again);
}
END_TEST

START_TEST(deepspeed)
{
	struct cfs_stage_options o = rank_options("deepspeed");
	uint64_t first, again;

	o.zero_stage = 1 + _i;
	o.dp = 3;
	first = save(o);
	rank_expect_step(bed.ns, "deepspeed", "runs/a/global_step7", 3);
	expect_text("runs/a/latest", "global_step7");
	o.run = "runs/b";
	again = save(o);
	ck_assert_msg(again < first / 20, "%llu, then %llu",
		      (unsigned long long)first, (unsigned long long)again);
	/* nothing of it needs what the ranks put */
	ns_bed_reopen(&bed);
	context.ns = bed.ns;
	rank_expect_step(bed.ns, "deepspeed", "runs/b/global_step7", 3);
}
END_TEST

START_TEST(file_of_both)
{
	struct cfs_stage_options o = rank_options("universal");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_error err = {""};

	put_model(stage, o.n_ranks);
	stage_file(stage, 2, "zero/l1.bias/fp32.pt", 1, 10);
	ck_assert_int_eq(cfs_stage_commit(stage, &err), -EEXIST);
	ck_assert_str_eq(err.text,
			 "zero/l1.bias/fp32.pt: rank 2 wrote it, and the "
			 "format universal makes it, too");
	cfs_stage_free(stage);
	ck_assert(!is_there("runs"));
	ck_assert(!is_there(CFS_NSTREE_TRASH));
	ns_no_problems(&bed);
}
END_TEST

START_TEST(gap)
{
	struct cfs_stage_options o = rank_options("universal");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_put put = put_of(1, &model[2], "master", CFS_F32);
	struct cfs_error err = {""};
	uint8_t some[800] = {0};

	put.flat_count = 200;
	put_groups(stage);
	put_bytes(stage, &put, some, 800);
	ck_assert_int_eq(cfs_stage_commit(stage, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, "l1.bias"), "%s", err.text);
	cfs_stage_free(stage);
	ck_assert(!is_there("runs"));
	ck_assert(!is_there(CFS_NSTREE_TRASH));
}
END_TEST

/* Replicas: however their bytes came they are equal, or refused. */
START_TEST(replicas)
{
	static const size_t sizes[] = {1, 70000, 131072, 262145, MIB};
	struct cfs_stage_options o = rank_options("universal");
	struct cfs_stage *stage = stage_new(&o);
	_cleanup_(cfs_freep) float *v = values(&model[0], 0);
	struct cfs_put put = put_of(0, &model[0], "master", CFS_F32);
	size_t len = model[0].rows * model[0].columns * sizeof(*v);
	struct cfs_error err = {""};

	put_model(stage, o.n_ranks);
	put.name = "buf";
	put.role = "buffer";
	for (put.rank = 0; put.rank < 4; put.rank++) {
		struct cfs_stage_stream *s = NULL;
		size_t k = put.rank;

		if (_i && put.rank == 3)
			((uint8_t *)v)[len - 1] ^= 1;
		ck_assert_int_eq(cfs_stage_put(stage, &put, &s, &err), 0);
		for (size_t at = 0; at < len;) {
			size_t most = sizes[k++ % 5];
			size_t n = CFS_MIN(most, len - at);

			ck_assert_int_eq(
				cfs_stage_write(s, (uint8_t *)v + at, n, &err),
				0);
			at += n;
		}
		stage_end(s);
	}
	if (_i) {
		ck_assert_int_eq(cfs_stage_commit(stage, &err), -EINVAL);
		ck_assert_msg(strstr(err.text, "tensor buf (buffer): ranks 0 "
					       "and 3 put the same elements "
					       "with different values"),
			      "%s", err.text);
	} else {
		stage_commit(stage);
		rank_expect_step(bed.ns, "universal", "runs/a/global_step7", 0);
	}
	cfs_stage_free(stage);
	ck_assert(is_there("runs") == !_i);
}
END_TEST

START_TEST(odd_puts)
{
	struct cfs_stage_options o = rank_options("universal");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_put put = put_of(1, &model[2], "master", CFS_F32);
	struct cfs_error err = {""};
	struct cfs_stage_stream *s;
	uint8_t some[800] = {0};

	put.flat_count = 200;
	put_groups(stage);
	/* too few bytes, too many, two at once */
	ck_assert_int_eq(cfs_stage_put(stage, &put, &s, &err), 0);
	ck_assert_int_eq(cfs_stage_put(stage, &put,
				       &(struct cfs_stage_stream *){NULL},
				       &err),
			 -EBUSY);
	ck_assert_int_eq(cfs_stage_write(s, some, 700, &err), 0);
	ck_assert_int_eq(cfs_stage_write(s, some, 101, &err), -EINVAL);
	ck_assert_int_eq(cfs_stage_end(s, &err), -EINVAL);
	ck_assert_str_eq(err.text,
			 "l1.bias: of rank 1's slice 100 bytes are missing");
	/* a step one of whose puts failed */
	ck_assert_int_eq(cfs_stage_commit(stage, &err), -EINVAL);
	put.extent[0] = 601;
	ck_assert_int_eq(cfs_stage_put(stage, &put, &s, &err), -EINVAL);
	cfs_stage_free(stage);
	ck_assert(!is_there("runs"));
}
END_TEST

/* Nothing of the step, and of the directories above it. */
static void expect_nothing(const struct cfs_error *err)
{
	ck_assert_str_ne(err->text, "");
	ck_assert(!is_there("runs"));
}

START_TEST(no_room)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = stage_new(&o);
	_cleanup_(cfs_freep) uint8_t *some = bed_bytes(2, 64 * MIB);
	struct cfs_error err = {""};
	struct cfs_stage_stream *s;
	int r = 0;

	ck_assert_int_eq(cfs_stage_file(stage, 0, "big", &s, &err), 0);
	cfs_engine_mem_limit(bed.bed.engine, 16 * MIB);
	for (size_t at = 0; at < 64 * MIB && !r; at += MIB)
		r = cfs_stage_write(s, some + at, MIB, &err);
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_str_eq(err.text, "big: No space left on device");
	cfs_stage_drop(s);
	ck_assert_int_eq(cfs_stage_commit(stage, &err), -EINVAL);
	expect_nothing(&err);
	cfs_engine_mem_limit(bed.bed.engine, 0);
	cfs_stage_free(stage);
	ck_assert(!is_there(CFS_NSTREE_TRASH));
	ns_no_problems(&bed);
}
END_TEST

/* Any write, and what mends it, fails. */
START_TEST(broken_disk)
{
	struct cfs_stage_options o = rank_options("universal");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_error err = {""};
	const int at = _i * TEST_STEP;
	int r;

	put_model(stage, o.n_ranks);
	cfs_engine_mem_fail(bed.bed.engine,
			    at % 2 ? CFS_ENGINE_WRITE : CFS_ENGINE_SYNC,
			    (unsigned)at / 2 + 1, -EIO);
	cfs_engine_mem_fail(bed.bed.engine, CFS_ENGINE_CREATE, 1, -EIO);
	r = cfs_stage_commit(stage, &err);
	for (unsigned call = 0; call < CFS_ENGINE_CALLS; call++)
		cfs_engine_mem_fail(bed.bed.engine, (enum cfs_engine_call)call,
				    0, 0);
	if (r < 0)
		expect_nothing(&err);
	cfs_stage_free(stage);
	ck_assert(!is_there(CFS_NSTREE_TRASH));
	if (!r)
		rank_expect_step(bed.ns, "universal", "runs/a/global_step7", 0);
	ns_no_problems(&bed);
	/* and that is what a crash leaves */
	ns_bed_crash(&bed, 0);
	ck_assert(is_there("runs/a/global_step7") == !r);
	ck_assert(is_there("runs/a/latest_universal") == !r);
}
END_TEST

Suite *suite(void);
Suite *suite(void)
{
	Suite *s = suite_create("rank_formats");
	TCase *c = tcase_create("all");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, universal);
	tcase_add_loop_test(c, deepspeed, 0, 3);
	tcase_add_test(c, file_of_both);
	tcase_add_test(c, gap);
	tcase_add_loop_test(c, replicas, 0, 2);
	tcase_add_test(c, odd_puts);
	tcase_add_test(c, no_room);
	tcase_add_loop_test(c, broken_disk, 0, 59 / TEST_STEP + 1);
	suite_add_tcase(s, c);
	return s;
}

TEST_MAIN(suite)
