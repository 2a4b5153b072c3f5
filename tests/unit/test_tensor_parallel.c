/*
 * Ranks' tensors against a slicer that copies one element at a time out of the
 * global tensor.
 */
#include "fs/reslice/tensor_parallel.h"

#include <errno.h>

#include "tests/unit/map_bed.h"

#define RANKS_MAX 6u
#define NUMEL_MAX 20000u

/* The global tensor, and what each of the ranks there are has, in files. */
struct world {
	struct bed bed;
	struct cfs_tp_layout from;
	uint32_t tp;
	float global[NUMEL_MAX];
	uint64_t numel; /* of one rank's */
	uint32_t file[RANKS_MAX];
};

static uint64_t product(const uint64_t *shape, uint32_t lo, uint32_t hi)
{
	uint64_t n = 1;

	for (uint32_t i = lo; i < hi; i++)
		n *= shape[i];
	return n;
}

/* @global cut for @rank of @tp, element by element; how many there are. */
static uint64_t slice(const struct cfs_tp_layout *l, const float *global,
		      uint32_t tp, uint32_t rank, float *out)
{
	uint64_t outer = product(l->shape, 0, l->dim), n = 0;
	uint64_t inner = product(l->shape, l->dim + 1, l->ndim);

	for (uint64_t o = 0; o < outer; o++) {
		uint64_t begin = 0;

		for (uint32_t p = 0; p < l->n_parts; p++) {
			for (uint64_t i = 0; i < l->parts[p]; i++) {
				if (i / (l->parts[p] / tp) != rank)
					continue;
				for (uint64_t k = 0; k < inner; k++)
					out[n++] =
						global[(o * l->shape[l->dim] +
							begin + i) *
							       inner +
						       k];
			}
			begin += l->parts[p];
		}
	}
	return n;
}

static void put(struct world *w, uint32_t rank, const float *data, uint64_t n)
{
	char path[16];

	(void)snprintf(path, sizeof(path), "rank%u", rank);
	ck_assert_int_eq(cfs_source_mem_put(w->bed.source, path, data,
					    n * sizeof(*data)),
			 0);
	w->file[rank] = tab_add(w->bed.tab, w->bed.source, path);
}

static int append(void *arg, uint32_t rank, struct cfs_map *map)
{
	const struct world *w = arg;

	ck_assert_uint_lt(rank, w->tp);
	return cfs_map_add_range(map, w->file[rank], 0,
				 w->numel * sizeof(float));
}

static void read_all(struct world *w, struct cfs_map *map, float *out,
		     uint64_t n)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;

	cfs_map_seal(map);
	ck_assert_uint_eq(cfs_map_size(map), n * sizeof(float));
	ck_assert_int_eq(cfs_reader_open(map, w->bed.pool, NULL, &reader, NULL),
			 0);
	ck_assert_int_eq(cfs_reader_pread(reader, out, n * sizeof(float), 0),
			 (ssize_t)(n * sizeof(float)));
}

/* A random tensor that 1, 2, 3, 4 and 6 ranks can share. */
static void random_cut(struct cfs_tp_layout *l)
{
	*l = (struct cfs_tp_layout){.kind = CFS_TP_CUT,
				    .ndim = (uint32_t)pick(1, 3)};
	for (uint32_t i = 0; i < l->ndim; i++)
		l->shape[i] = pick(1, 5);
	l->dim = (uint32_t)pick(0, l->ndim - 1);
	l->n_parts = (uint32_t)pick(1, 3);
	l->shape[l->dim] = 0;
	for (uint32_t i = 0; i < l->n_parts; i++) {
		l->parts[i] = 12 * pick(1, 3);
		l->shape[l->dim] += l->parts[i];
	}
}

static void open_world(struct world *w, uint32_t tp)
{
	static float local[NUMEL_MAX];

	w->tp = tp;
	for (uint64_t i = 0; i < NUMEL_MAX; i++)
		w->global[i] = (float)(i + 1);
	for (uint32_t rank = 0; rank < tp; rank++) {
		w->numel = slice(&w->from, w->global, tp, rank, local);
		put(w, rank, local, w->numel);
	}
}

static const uint32_t sizes[] = {1, 2, 3, 4, 6};

START_TEST(cuts)
{
	static float got[NUMEL_MAX], want[NUMEL_MAX];

	rng_seed();
	for (int i = 0; i < 300; i++) {
		static struct world w;
		uint32_t to = sizes[pick(0, 4)];
		struct cfs_tp_source source = {.append = append,
					       .arg = &w,
					       .tp = sizes[pick(0, 4)],
					       .dtype = CFS_F32};

		bed_open(&w.bed);
		random_cut(&w.from);
		open_world(&w, source.tp);
		for (uint32_t rank = 0; rank < to; rank++) {
			_cleanup_(cfs_map_unrefp) struct cfs_map *map =
				cfs_map_new(w.bed.tab);
			uint64_t n = slice(&w.from, w.global, to, rank, want);
			uint64_t shape[CFS_TP_DIMS_MAX];

			ck_assert_int_eq(cfs_tp_local_shape(&w.from, to, shape),
					 0);
			ck_assert_uint_eq(product(shape, 0, w.from.ndim), n);
			ck_assert_int_eq(cfs_tp_append(&w.from, &source,
						       &w.from, to, rank, map),
					 0);
			read_all(&w, map, got, n);
			ck_assert_mem_eq(got, want, n * sizeof(*got));
		}
		bed_close(&w.bed);
	}
}
END_TEST

/* Rows that a vocabulary gets are zero, rows it loses are gone, whichever
 * dimension is cut. */
START_TEST(vocabularies)
{
	static float padded[NUMEL_MAX], got[NUMEL_MAX], want[NUMEL_MAX];

	rng_seed();
	for (int i = 0; i < 200; i++) {
		static struct world w;
		uint32_t to_tp = sizes[pick(0, 4)];
		struct cfs_tp_source source = {.append = append,
					       .arg = &w,
					       .tp = sizes[pick(0, 4)],
					       .dtype = CFS_F32};
		struct cfs_tp_layout to;
		bool columns = pick(0, 1);
		uint64_t cols = columns ? 12 * pick(1, 3) : pick(1, 7);
		uint64_t rows = columns ? pick(1, 9) : 12 * pick(1, 6);

		bed_open(&w.bed);
		w.from = (struct cfs_tp_layout){
			.kind = CFS_TP_CUT,
			.ndim = 2,
			.shape = {rows, cols},
			.dim = columns,
			.n_parts = 1,
			.parts = {columns ? cols : rows}};
		open_world(&w, source.tp);
		to = w.from;
		to.shape[0] = columns ? pick(1, 9) : 12 * pick(1, 6);
		to.parts[0] = columns ? cols : to.shape[0];
		memset(padded, 0, sizeof(padded));
		memcpy(padded, w.global,
		       CFS_MIN(rows, to.shape[0]) * cols * sizeof(float));
		for (uint32_t rank = 0; rank < to_tp; rank++) {
			_cleanup_(cfs_map_unrefp) struct cfs_map *map =
				cfs_map_new(w.bed.tab);
			uint64_t n = slice(&to, padded, to_tp, rank, want);

			ck_assert_int_eq(cfs_tp_append(&w.from, &source, &to,
						       to_tp, rank, map),
					 0);
			read_all(&w, map, got, n);
			ck_assert_mem_eq(got, want, n * sizeof(*got));
		}
		bed_close(&w.bed);
	}
}
END_TEST

static void make(struct world *w, enum cfs_tp_kind kind, uint32_t from,
		 uint32_t to, uint32_t rank, float *out)
{
	struct cfs_tp_layout l = {.kind = kind, .ndim = 1, .shape = {3}};
	struct cfs_tp_source source = {
		.append = append, .arg = w, .tp = from, .dtype = CFS_F32};
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_map_new(w->bed.tab);

	ck_assert_int_eq(cfs_tp_append(&l, &source, &l, to, rank, map), 0);
	read_all(w, map, out, 3);
}

static void expect_equal(float got, float want)
{
	ck_assert_mem_eq(&got, &want, sizeof(got));
}

START_TEST(sums_and_copies)
{
	static const float a[] = {1, 2, 0.1f}, b[] = {3, 5, 0.3f};
	static struct world w = {.tp = 2, .numel = 3};
	float got[3];

	bed_open(&w.bed);
	put(&w, 0, a, 3);
	put(&w, 1, b, 3);
	make(&w, CFS_TP_SUM, 2, 1, 0, got);
	for (int i = 0; i < 3; i++)
		expect_equal(got[i], (float)((double)a[i] + (double)b[i]));
	for (uint32_t rank = 0; rank < 4; rank++) {
		make(&w, CFS_TP_SUM, 2, 4, rank, got);
		for (int i = 0; i < 3; i++)
			expect_equal(got[i], (float)((double)a[i] / 4 +
						     (double)b[i] / 4));
	}
	/* unchanged sizes: nothing is added up */
	make(&w, CFS_TP_SUM, 2, 2, 1, got);
	ck_assert_mem_eq(got, b, sizeof(b));
	/* nor are copies that went apart kept, whatever the sizes */
	for (uint32_t tp = 1; tp < 5; tp++) {
		make(&w, CFS_TP_MEAN, 2, tp, tp - 1, got);
		for (int i = 0; i < 3; i++)
			expect_equal(got[i], (float)((double)a[i] / 2 +
						     (double)b[i] / 2));
	}
	make(&w, CFS_TP_SAME, 2, 4, 3, got);
	ck_assert_mem_eq(got, b, sizeof(b));
	make(&w, CFS_TP_SAME, 2, 1, 0, got);
	ck_assert_mem_eq(got, a, sizeof(a));
	bed_close(&w.bed);
}
END_TEST

START_TEST(uneven)
{
	struct cfs_tp_layout l = {.kind = CFS_TP_CUT,
				  .ndim = 2,
				  .shape = {12, 5},
				  .n_parts = 2,
				  .parts = {8, 4}};
	uint64_t shape[CFS_TP_DIMS_MAX];

	ck_assert_int_eq(cfs_tp_local_shape(&l, 4, shape), 0);
	ck_assert_uint_eq(shape[0], 3);
	ck_assert_int_eq(cfs_tp_local_shape(&l, 3, shape), -EINVAL);
	ck_assert_int_eq(cfs_tp_local_shape(&l, 0, shape), -EINVAL);
	l.dim = 2;
	ck_assert_int_eq(cfs_tp_local_shape(&l, 1, shape), -EINVAL);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("tensor_parallel");
	TCase *tc = tcase_create("tensor_parallel");

	tcase_add_test(tc, cuts);
	tcase_add_test(tc, vocabularies);
	tcase_add_test(tc, sums_and_copies);
	tcase_add_test(tc, uneven);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
