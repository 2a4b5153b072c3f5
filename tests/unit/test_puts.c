/*
 * Slices to whole tensors: random tensors in random slices have the bytes they
 * had; gaps, overlaps and contradictions are refused by name.
 */
#include "tests/unit/puts_bed.h"

#include <time.h>

#include "fs/format/puts_tensors.h"

static uint64_t state;

static uint64_t random_below(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return n ? state % n : 0;
}

static void seed(int i)
{
	const char *fixed = getenv("CFS_SEED");

	state = fixed ? strtoull(fixed, NULL, 0)
		      : (uint64_t)time(NULL) * 1000 + (uint64_t)i;
	state |= 1;
	printf("seed %llu\n", (unsigned long long)state);
}

/* ---- one put ---- */

static int check_one(uint32_t ndim, uint64_t shape, uint64_t offset,
		     uint64_t extent, uint64_t start, uint64_t count)
{
	struct cfs_put put = {.name = "a",
			      .role = "weight",
			      .dtype = CFS_F32,
			      .ndim = ndim,
			      .flat_start = start,
			      .flat_count = count};

	for (uint32_t i = 0; i < ndim && i < CFS_PUT_DIMS_MAX; i++) {
		put.shape[i] = shape;
		put.offset[i] = offset;
		put.extent[i] = extent;
	}
	return cfs_put_check(&put, NULL);
}

START_TEST(test_check)
{
	struct cfs_put put = bed_whole(0, "a", "weight", CFS_BF16, 0, NULL);
	struct cfs_error err = {""};

	ck_assert_int_eq(check_one(2, 4, 0, 4, 0, 0), 0);
	ck_assert_int_eq(check_one(2, 4, 1, 3, 8, 1), 0);
	ck_assert_int_eq(check_one(2, 0, 0, 0, 0, 0), 0);
	ck_assert_int_eq(check_one(2, 4, 1, 3, 8, 2), -EINVAL);
	ck_assert_int_eq(check_one(2, 4, 1, 3, 1, 0), -EINVAL);
	ck_assert_int_eq(check_one(2, 4, 2, 3, 0, 0), -EINVAL);
	ck_assert_int_eq(check_one(1, 4, UINT64_MAX, 2, 0, 0), -EINVAL);
	ck_assert_int_eq(check_one(9, 1, 0, 1, 0, 0), -EINVAL);
	ck_assert_int_eq(check_one(8, 1 << 20, 0, 1, 0, 0), -EINVAL);
	ck_assert_int_eq(check_one(1, 4, 0, 4, UINT64_MAX, 2), -EINVAL);
	ck_assert_int_eq(cfs_put_check(&put, &err), 0);
	ck_assert_uint_eq(put.flat_count, 1);
	ck_assert_uint_eq(cfs_put_bytes(&put), 2);
	put.role = "a/b";
	ck_assert_int_eq(cfs_put_check(&put, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, "tensor a"), "%s", err.text);
	put.role = "exp_avg";
	put.dtype = CFS_C64;
	ck_assert_int_eq(cfs_put_check(&put, &err), -EINVAL);
	put.dtype = CFS_F32;
	put.name = "a\nb";
	ck_assert_int_eq(cfs_put_check(&put, &err), -EINVAL);
}
END_TEST

/* ---- random slices ---- */

struct tensor {
	char name[16];
	struct cfs_put like;
	uint64_t numel;
	uint8_t *bytes;
};

static void make_tensor(struct tensor *t, uint32_t i)
{
	static const enum cfs_dtype dtypes[] = {CFS_F32, CFS_BF16, CFS_U8,
						CFS_F64};
	uint64_t shape[4];
	uint32_t ndim = (uint32_t)random_below(5);

	(void)snprintf(t->name, sizeof(t->name), "t%u", i);
	t->numel = 1;
	for (uint32_t k = 0; k < ndim; k++) {
		shape[k] = 1 + random_below(ndim > 2 ? 6 : 40);
		t->numel *= shape[k];
	}
	t->like = bed_whole(0, t->name, "weight", dtypes[random_below(4)], ndim,
			    shape);
	t->bytes = malloc(t->numel * 8);
	ck_assert_ptr_nonnull(t->bytes);
	for (uint64_t k = 0; k < t->numel * 8; k++)
		t->bytes[k] = (uint8_t)random_below(256);
}

/* A flat part of @box, in @n pieces of ranks from @rank on. */
static void put_flat(struct bed *b, const struct tensor *t,
		     const struct cfs_put *box, uint64_t numel)
{
	uint64_t at = 0;

	while (at < numel) {
		struct cfs_put put = *box;

		put.rank = (uint32_t)random_below(b->n_ranks);
		put.flat_start = at;
		put.flat_count = 1 + random_below(numel - at);
		bed_put(b, &put, t->bytes);
		at += put.flat_count;
	}
}

/* Halves the box at random places until it is small enough, or nobody cares. */
static void put_boxes(struct bed *b, const struct tensor *t,
		      const struct cfs_put *box, int depth)
{
	uint64_t numel = 1, cut;
	struct cfs_put half = *box;
	uint32_t k = box->ndim ? (uint32_t)random_below(box->ndim) : 0;

	for (uint32_t i = 0; i < box->ndim; i++)
		numel *= box->extent[i];
	if (!depth || !box->ndim || box->extent[k] < 2) {
		if (random_below(3)) {
			half.rank = (uint32_t)random_below(b->n_ranks);
			bed_put(b, &half, t->bytes);
		} else {
			put_flat(b, t, box, numel);
		}
		return;
	}
	cut = 1 + random_below(box->extent[k] - 1);
	half.extent[k] = cut;
	put_boxes(b, t, &half, depth - 1);
	half.offset[k] += cut;
	half.extent[k] = box->extent[k] - cut;
	put_boxes(b, t, &half, depth - 1);
}

/* Equal boxes, as tensor parallelism cuts. */
static void put_grid(struct bed *b, const struct tensor *t)
{
	struct cfs_put cell = t->like;
	uint64_t cells[CFS_PUT_DIMS_MAX], n = 1;

	for (uint32_t k = 0; k < cell.ndim; k++) {
		cells[k] = 1 + random_below(3);
		while (cell.shape[k] % cells[k])
			cells[k]--;
		cell.extent[k] = cell.shape[k] / cells[k];
		n *= cells[k];
	}
	for (uint64_t i = 0; i < n; i++) {
		uint64_t at = i;

		for (uint32_t k = cell.ndim; k-- > 0;) {
			cell.offset[k] = at % cells[k] * cell.extent[k];
			at /= cells[k];
		}
		cell.rank = (uint32_t)random_below(b->n_ranks);
		bed_put(b, &cell, t->bytes);
	}
}

/* A slice that is there again, of the last rank. */
static void put_replica(struct bed *b, const struct tensor *t)
{
	size_t i = random_below(b->n_puts);
	struct cfs_put put = b->puts[i];

	if (strcmp(put.name, t->name) != 0)
		return;
	put.rank = b->n_ranks - 1;
	bed_put(b, &put, t->bytes);
}

#define N_TENSORS 12

START_TEST(test_random)
{
	_cleanup_(cfs_put_tensors_fini) struct cfs_put_tensors got = {0};
	struct tensor tensors[N_TENSORS];
	static struct bed b;
	struct cfs_puts puts;

	seed(_i);
	bed_init(&b, 2 + (uint32_t)random_below(8));
	b.n_ranks--; /* the last one's are replicas */
	for (uint32_t i = 0; i < N_TENSORS; i++) {
		make_tensor(&tensors[i], i);
		if (random_below(2))
			put_boxes(&b, &tensors[i], &tensors[i].like,
				  (int)random_below(5));
		else
			put_grid(&b, &tensors[i]);
	}
	b.n_ranks++;
	for (uint32_t i = 0; i < 8 * N_TENSORS; i++)
		put_replica(&b, &tensors[i % N_TENSORS]);
	puts = bed_puts(&b);
	ck_assert_msg(!cfs_put_tensors_init(&got, &puts, &b.err), "%s",
		      b.err.text);
	ck_assert_uint_eq(got.n, N_TENSORS);
	for (uint32_t i = 0; i < N_TENSORS; i++) {
		_cleanup_(cfs_buf_free) struct cfs_buf have = CFS_BUF_INIT;
		const struct cfs_put_tensor *t =
			cfs_put_tensors_find(&got, tensors[i].name, "weight");

		ck_assert_ptr_nonnull(t);
		ck_assert_ptr_null(
			cfs_put_tensors_find(&got, t->first->name, "master"));
		ck_assert_uint_eq(t->numel, tensors[i].numel);
		bed_read(&b, t->map, &have);
		ck_assert_uint_eq(have.len,
				  t->numel * cfs_dtype_size(t->first->dtype));
		ck_assert_mem_eq(have.data, tensors[i].bytes, have.len);
		free(tensors[i].bytes);
	}
	bed_fini(&b);
}
END_TEST

/* One put less, and what it alone had is missing. */
START_TEST(test_random_gap)
{
	_cleanup_(cfs_put_tensors_fini) struct cfs_put_tensors got = {0};
	struct tensor t;
	static struct bed b;
	struct cfs_puts puts;
	size_t lost;

	seed(_i);
	bed_init(&b, 4);
	make_tensor(&t, 0);
	do {
		b.n_puts = 0;
		put_boxes(&b, &t, &t.like, 4);
	} while (b.n_puts < 2 && t.numel > 1);
	puts = bed_puts(&b);
	lost = random_below(b.n_puts);
	memmove(b.puts + lost, b.puts + lost + 1,
		(b.n_puts - lost - 1) * sizeof(*b.puts));
	puts.n_puts--;
	if (puts.n_puts) {
		ck_assert_int_eq(cfs_put_tensors_init(&got, &puts, &b.err),
				 -EINVAL);
		ck_assert_msg(strstr(b.err.text, "tensor t0 (weight): no rank "
						 "put elements"),
			      "%s", b.err.text);
	}
	free(t.bytes);
	bed_fini(&b);
}
END_TEST

/* ---- words ---- */

static const uint64_t shape64[] = {6, 4};

static void expect_refused(struct bed *b, const char *text)
{
	_cleanup_(cfs_put_tensors_fini) struct cfs_put_tensors got = {0};
	struct cfs_puts puts = bed_puts(b);

	ck_assert_int_eq(cfs_put_tensors_init(&got, &puts, &b->err), -EINVAL);
	ck_assert_str_eq(b->err.text, text);
	bed_fini(b);
}

START_TEST(test_gap)
{
	static struct bed b;
	static const uint8_t zeros[256];
	struct cfs_put put = bed_whole(0, "w", "exp_avg", CFS_F32, 2, shape64);

	bed_init(&b, 2);
	put.extent[0] = 2;
	bed_put(&b, &put, zeros);
	put.rank = 1;
	put.offset[0] = 3;
	put.extent[0] = 3;
	bed_put(&b, &put, zeros);
	expect_refused(&b, "tensor w (exp_avg): no rank put elements 8 to 11 "
			   "of 24, [2, 0] to [2, 3]");
}
END_TEST

START_TEST(test_column_gap)
{
	static struct bed b;
	static const uint8_t zeros[256];
	struct cfs_put put = bed_whole(1, "w", "master", CFS_F32, 2, shape64);

	bed_init(&b, 2);
	put.extent[1] = 2;
	put.offset[1] = 2;
	bed_put(&b, &put, zeros);
	bed_put(&b, &put, zeros);
	expect_refused(&b, "tensor w (master): no rank put elements 0 to 1 of "
			   "24, [0, 0] to [0, 1]");
}
END_TEST

START_TEST(test_contradictions)
{
	static struct bed b;
	static const uint8_t zeros[256];
	struct cfs_put put = bed_whole(1, "w", "master", CFS_F32, 2, shape64);

	bed_init(&b, 2);
	bed_put(&b, &put, zeros);
	put.rank = 0;
	put.dtype = CFS_BF16;
	bed_put(&b, &put, zeros);
	expect_refused(&b, "tensor w (master): rank 0 says it is bf16 [6, 4], "
			   "rank 1 f32 [6, 4]");
	bed_init(&b, 2);
	put.rank = 0;
	bed_put(&b, &put, zeros);
	put.rank = 1;
	put.ndim = 1;
	put.flat_count = 0;
	bed_put(&b, &put, zeros);
	expect_refused(&b, "tensor w (master): rank 0 says it is bf16 [6, 4], "
			   "rank 1 bf16 [6]");
}
END_TEST

/* Of what several ranks put, nothing is lost in silence. */
START_TEST(test_replicas_differ)
{
	static struct bed b;
	static const uint8_t zeros[256], other[256] = {[95] = 1};
	struct cfs_put put = bed_whole(0, "w", "master", CFS_F32, 2, shape64);

	bed_init(&b, 3);
	put.extent[1] = 2;
	bed_put(&b, &put, zeros);
	put.rank = 2;
	put.offset[1] = 2;
	bed_put(&b, &put, zeros);
	put.rank = 1;
	bed_put(&b, &put, other);
	expect_refused(&b, "tensor w (master): ranks 1 and 2 put the same "
			   "elements with different values: replicas must be "
			   "equal, or one rank puts it");
}
END_TEST

/* Equal or not: also of wide rows, of columns, and where the number of
 * elements is right. */
START_TEST(test_overlap)
{
	static const uint64_t wide[] = {4, 2048};
	static const uint8_t zeros[4 * 4 * 2048];
	static struct bed b;
	struct cfs_put put = bed_whole(0, "w", "master", CFS_F32, 2, shape64);

	bed_init(&b, 2);
	put.extent[0] = 4;
	bed_put(&b, &put, zeros);
	put.rank = 1;
	put.offset[0] = 3;
	put.extent[0] = 3;
	bed_put(&b, &put, zeros);
	expect_refused(&b, "tensor w (master): ranks 0 and 1 both put elements "
			   "12 to 15, in slices that are not the same");
	bed_init(&b, 2);
	put = bed_whole(1, "w", "master", CFS_F32, 2, wide);
	bed_put(&b, &put, zeros);
	put.rank = 0;
	put.extent[1] = 1024;
	bed_put(&b, &put, zeros);
	expect_refused(&b, "tensor w (master): ranks 0 and 1 both put elements "
			   "0 to 1023, in slices that are not the same");
	bed_init(&b, 2);
	put = bed_whole(0, "w", "master", CFS_F32, 2, shape64);
	put.extent[0] = 3;
	bed_put(&b, &put, zeros);
	put.rank = 1;
	put.offset[0] = 2;
	bed_put(&b, &put, zeros);
	expect_refused(&b, "tensor w (master): ranks 0 and 1 both put elements "
			   "8 to 11, in slices that are not the same");
}
END_TEST

/* ---- what maps are made of ---- */

/* Columns of few bytes are gathered, long rows are ranges. */
START_TEST(test_segments)
{
	static const uint64_t narrow[] = {64, 64}, wide[] = {4, 8192};
	static uint8_t zeros[4 * 4 * 8192];
	_cleanup_(cfs_put_tensors_fini) struct cfs_put_tensors got = {0};
	static struct bed b;
	struct cfs_segment s;
	struct cfs_puts puts;

	bed_init(&b, 2);
	for (uint32_t rank = 0; rank < 2; rank++) {
		struct cfs_put put =
			bed_whole(rank, "narrow", "weight", CFS_F32, 2, narrow);

		put.offset[1] = 32 * rank;
		put.extent[1] = 32;
		bed_put(&b, &put, zeros);
		put = bed_whole(rank, "wide", "weight", CFS_F32, 2, wide);
		put.offset[1] = 4096 * rank;
		put.extent[1] = 4096;
		bed_put(&b, &put, zeros);
	}
	puts = bed_puts(&b);
	ck_assert_int_eq(cfs_put_tensors_init(&got, &puts, &b.err), 0);
	ck_assert_uint_eq(cfs_map_count(got.v[0].map), 1);
	cfs_map_segment(got.v[0].map, 0, &s);
	ck_assert_int_eq(s.kind, CFS_SEG_GATHER);
	ck_assert_uint_eq(cfs_map_count(got.v[1].map), 8);
	cfs_map_segment(got.v[1].map, 7, &s);
	ck_assert_int_eq(s.kind, CFS_SEG_RANGE);
	cfs_put_tensors_fini(&got);
	bed_fini(&b);
}
END_TEST

/* ---- very many ---- */

#define MANY_RANKS   2816u
#define MANY_TENSORS 500u

START_TEST(test_many)
{
	size_t n = (size_t)MANY_RANKS * MANY_TENSORS;
	struct cfs_put *all = calloc(n, sizeof(*all));
	_cleanup_(cfs_put_tensors_fini) struct cfs_put_tensors got = {0};
	struct cfs_filetab *files = cfs_filetab_new();
	struct cfs_puts puts = {.files = files, .puts = all};
	static char names[MANY_TENSORS][64];
	struct cfs_error err = {""};
	struct timespec a, z;

	ck_assert(all && files);
	for (uint32_t rank = 0; rank < MANY_RANKS; rank++) {
		struct cfs_version version = {.ino = rank + 1, .size = 1 << 30};
		uint32_t row;
		char name[32];

		(void)snprintf(name, sizeof(name), "part-%u", rank);
		ck_assert_int_eq(cfs_filetab_add(files, name, &version, &row),
				 0);
		for (uint32_t t = 0; t < MANY_TENSORS; t++) {
			struct cfs_put *put = &all[puts.n_puts++];
			uint64_t shape[] = {MANY_RANKS, 64};

			if (!rank)
				(void)snprintf(names[t], sizeof(names[t]),
					       "transformer.h.%u.attention.w",
					       t);
			*put = bed_whole(rank, names[t], "exp_avg", CFS_F32, 2,
					 shape);
			put->flat_start = (uint64_t)rank * 64;
			put->flat_count = 64;
			put->file = row;
			put->file_off = t * UINT64_C(256);
		}
	}
	ck_assert_int_eq(clock_gettime(CLOCK_MONOTONIC, &a), 0);
	ck_assert_msg(!cfs_put_tensors_init(&got, &puts, &err), "%s", err.text);
	ck_assert_int_eq(clock_gettime(CLOCK_MONOTONIC, &z), 0);
	printf("%zu puts: %.3f s\n", n,
	       (double)(z.tv_sec - a.tv_sec) +
		       (double)(z.tv_nsec - a.tv_nsec) * 1e-9);
	ck_assert_uint_eq(got.n, MANY_TENSORS);
	for (uint32_t t = 0; t < MANY_TENSORS; t++) {
		ck_assert_str_eq(got.v[t].first->name, names[t]);
		ck_assert_uint_eq(cfs_map_count(got.v[t].map), MANY_RANKS);
	}
	cfs_put_tensors_fini(&got);
	cfs_filetab_unref(files);
	free(all);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("puts");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, TEST_TIMEOUT);
	tcase_add_test(tc, test_check);
	tcase_add_loop_test(tc, test_random, 0, 60);
	tcase_add_loop_test(tc, test_random_gap, 0, 60);
	tcase_add_test(tc, test_gap);
	tcase_add_test(tc, test_column_gap);
	tcase_add_test(tc, test_contradictions);
	tcase_add_test(tc, test_replicas_differ);
	tcase_add_test(tc, test_overlap);
	tcase_add_test(tc, test_segments);
	tcase_add_test(tc, test_many);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
