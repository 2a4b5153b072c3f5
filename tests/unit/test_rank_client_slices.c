/*
 * Any slice of what was put comes back, whatever format it was saved in: boxes
 * and flat ranges put, other boxes and ranges and element types asked for.
 */
#include "tests/unit/rank_client_bed.h"

#include "fs/container/pickle.h"
#include "store/map/dtype.h"
#include "tests/unit/rank_model.h"

#define GETS 150
#define N    CFS_ARRAY_SIZE(model)

static struct daemon d;
static float *state[N][3];
static uint64_t rng;

static void start(void)
{
	setup();
	daemon_new(&d);
	for (size_t t = 0; t < N; t++)
		for (size_t k = 0; k < 3; k++)
			state[t][k] = values(&model[t], t * 8 + k);
}

static void stop(void)
{
	for (size_t t = 0; t < N; t++)
		for (size_t k = 0; k < 3; k++)
			free(state[t][k]);
	daemon_stop(&d);
	teardown();
}

static uint64_t below_n(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % n;
}

static struct cfs_rank_tensor whole(size_t t, const char *role, uint32_t dtype)
{
	struct cfs_rank_tensor out = {
		.size = sizeof(out),
		.name = model[t].name,
		.role = role,
		.dtype = dtype,
		.ndim = model[t].columns > 1 ? 2 : 1,
		.shape = {model[t].rows, model[t].columns},
		.extent = {model[t].rows, model[t].columns},
	};

	if (out.ndim == 1)
		out.shape[1] = out.extent[1] = 0;
	return out;
}

static uint64_t box_of(const struct cfs_rank_tensor *t)
{
	return t->extent[0] * (t->ndim > 1 ? t->extent[1] : 1);
}

/* The elements of @t out of all of the tensor's. */
static float *cut(const struct cfs_rank_tensor *t, const float *all)
{
	uint64_t columns = t->ndim > 1 ? t->extent[1] : 1;
	uint64_t stride = t->ndim > 1 ? t->shape[1] : 1;
	uint64_t count = t->flat_count ? t->flat_count : box_of(t);
	float *out = malloc((count + 1) * sizeof(*out));

	for (uint64_t i = 0; i < count; i++) {
		uint64_t at = t->flat_start + i;

		out[i] = all[(t->offset[0] + at / columns) * stride +
			     t->offset[1] + at % columns];
	}
	return out;
}

/* ---- saving ---- */

static void put_piece(struct cfs_rank_save *save,
		      const struct cfs_rank_tensor *t, const float *all)
{
	uint64_t n = t->flat_count ? t->flat_count : box_of(t);
	bool half = t->dtype == CFS_RANK_BF16;
	float *v = cut(t, all);
	uint8_t *bf16 = malloc(n * 2);

	cfs_dtype_cast(CFS_F32, v, CFS_BF16, bf16, n);
	ok(cfs_rank_put(save, t, half ? (void *)bf16 : v, CFS_RANK_HOST, NULL));
	free(bf16);
	free(v);
}

/* As tensor parallel ranks have it, each half of it in two flat pieces. */
static void put_boxes(struct cfs_rank_save *save, struct cfs_rank_tensor t,
		      const float *all)
{
	uint32_t k = t.ndim - 1;
	uint64_t size = t.shape[k], half = size / 2 + 1;

	for (int i = 0; i < 2; i++) {
		uint64_t n;

		t.offset[k] = i ? half : 0;
		t.extent[k] = i ? size - half : half;
		n = box_of(&t);
		t.flat_start = 0;
		t.flat_count = n / 3;
		put_piece(save, &t, all);
		t.flat_start = n / 3;
		t.flat_count = n - n / 3;
		put_piece(save, &t, all);
	}
}

static void put_groups(struct cfs_rank_save *save)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;
	struct cfs_node *list = cfs_node_list(doc), *names = cfs_node_list(doc);
	struct cfs_node *group = cfs_node_dict(doc);
	struct cfs_error err = {""};

	for (size_t t = 0; t < N; t++)
		cfs_node_append(doc, names, cfs_node_str(doc, model[t].name));
	cfs_node_set_str(doc, group, "lr", cfs_node_float(doc, 0.5));
	cfs_node_set_str(doc, group, "step", cfs_node_int(doc, 7));
	cfs_node_set_str(doc, group, "params", names);
	cfs_node_append(doc, list, group);
	ck_assert_int_eq(cfs_pickle_encode(list, NULL, &bytes, &err), 0);
	ok(cfs_rank_put_object(save, "param_groups", bytes.data, bytes.len));
}

static void save_model(struct cfs_rank *rank, const char *format, int zero)
{
	struct cfs_rank_save_options o = {.size = sizeof(o),
					  .format = format,
					  .dp = zero ? 3 : 1,
					  .zero_stage = zero};
	struct cfs_rank_save *save = NULL;

	ok(cfs_rank_save_begin(rank, "global_step7", &o, &save));
	for (size_t t = 0; t < N; t++) {
		struct cfs_rank_tensor w = whole(t, "weight", CFS_RANK_BF16);

		put_piece(save, &w, state[t][0]);
		for (size_t k = 0; k < 3; k++)
			put_boxes(save, whole(t, roles[k], CFS_RANK_F32),
				  state[t][k]);
	}
	put_groups(save);
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
}

/* ---- loading ---- */

static const struct {
	uint32_t rank;
	enum cfs_dtype ours;
} dtypes[] = {{CFS_RANK_F32, CFS_F32},
	      {CFS_RANK_BF16, CFS_BF16},
	      {CFS_RANK_F16, CFS_F16},
	      {CFS_RANK_F64, CFS_F64}};

static void random_slice(struct cfs_rank_tensor *t)
{
	uint64_t n;

	for (uint32_t i = 0; i < t->ndim; i++) {
		if (!below_n(3))
			continue;
		t->offset[i] = below_n(t->shape[i]);
		t->extent[i] = 1 + below_n(t->shape[i] - t->offset[i]);
	}
	n = box_of(t);
	if (below_n(2)) {
		t->flat_start = below_n(n);
		t->flat_count = 1 + below_n(n - t->flat_start);
	}
}

/* Weights are bf16, so all else is made of that. */
static void *expected(const struct cfs_rank_tensor *t, size_t k, bool weight,
		      uint64_t n, enum cfs_dtype to)
{
	float *v = cut(t, state[k / 4][weight ? 0 : k % 4 - 1]);
	uint8_t *bf16 = malloc(n * 2), *out = malloc(n * 8);

	if (weight) {
		cfs_dtype_cast(CFS_F32, v, CFS_BF16, bf16, n);
		cfs_dtype_cast(CFS_BF16, bf16, to, out, n);
	} else {
		cfs_dtype_cast(CFS_F32, v, to, out, n);
	}
	free(bf16);
	free(v);
	return out;
}

static void get_one(struct cfs_rank_load *load)
{
	size_t k = below_n(N * 4), as = below_n(CFS_ARRAY_SIZE(dtypes));
	bool weight = k % 4 == 0;
	struct cfs_rank_tensor t = whole(
		k / 4, weight ? "weight" : roles[k % 4 - 1], dtypes[as].rank);
	size_t size = cfs_dtype_size(dtypes[as].ours);
	uint64_t n;
	void *want, *got;

	random_slice(&t);
	n = t.flat_count ? t.flat_count : box_of(&t);
	want = expected(&t, k, weight, n, dtypes[as].ours);
	got = malloc(n * size);
	ok(cfs_rank_get(load, &t, got, CFS_RANK_HOST, NULL));
	ck_assert_msg(!memcmp(got, want, n * size),
		      "%s of %s as %u: [%llu+%llu, %llu+%llu], %llu+%llu",
		      t.role, t.name, t.dtype, (unsigned long long)t.offset[0],
		      (unsigned long long)t.extent[0],
		      (unsigned long long)t.offset[1],
		      (unsigned long long)t.extent[1],
		      (unsigned long long)t.flat_start, (unsigned long long)n);
	free(want);
	free(got);
}

struct seen {
	unsigned n, of[N][4];
};

static int see(void *arg, const struct cfs_rank_tensor *t)
{
	struct seen *seen = arg;
	size_t i = 0, k = 0;

	while (i < N && strcmp(model[i].name, t->name) != 0)
		i++;
	while (k < 3 && strcmp(roles[k], t->role) != 0)
		k++;
	ck_assert_msg(i < N && (k < 3 || !strcmp(t->role, "weight")), "%s %s",
		      t->name, t->role);
	seen->n++;
	seen->of[i][k]++;
	ck_assert_uint_eq(t->dtype, k < 3 ? CFS_RANK_F32 : CFS_RANK_BF16);
	ck_assert_uint_eq(t->shape[0], model[i].rows);
	ck_assert_uint_eq(t->ndim, model[i].columns > 1 ? 2 : 1);
	if (t->ndim > 1)
		ck_assert_uint_eq(t->shape[1], model[i].columns);
	return 0;
}

static void there_and_back(const char *format, int zero)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_load *load = NULL;
	struct seen seen = {.n = 0};

	rng = (uint64_t)time(NULL) + 1;
	printf("%s, stage %d: seed %llu\n", format, zero,
	       (unsigned long long)rng);
	save_model(rank, format, zero);
	ok(cfs_rank_load_open(rank, NULL, &load));
	ck_assert_str_eq(cfs_rank_load_step(load), "global_step7");
	ok(cfs_rank_list(load, see, &seen));
	ck_assert_uint_eq(seen.n, N * 4);
	for (size_t i = 0; i < N; i++)
		for (size_t k = 0; k < 4; k++)
			ck_assert_uint_eq(seen.of[i][k], 1);
	for (int i = 0; i < GETS; i++)
		get_one(load);
	cfs_rank_load_close(load);
	cfs_rank_close(rank);
}

START_TEST(test_deepspeed)
{
	there_and_back("deepspeed", _i);
}
END_TEST

START_TEST(test_universal)
{
	there_and_back("universal", 0);
}
END_TEST

START_TEST(test_safetensors)
{
	there_and_back("safetensors", 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("rank_client_slices");
	TCase *t = tcase_create("slices");

	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_checked_fixture(t, start, stop);
	tcase_add_loop_test(t, test_deepspeed, 1, 4);
	tcase_add_test(t, test_universal);
	tcase_add_test(t, test_safetensors);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
