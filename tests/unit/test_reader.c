/* store/map: readers that run together, the block cache, failing sources. */
#include "tests/unit/map_bed.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

/*
 * Several blocks: a column slice (gather) of a tensor that is cast, as two
 * tensor-parallel ranks would read their halves.
 */
#define ROWS 600
#define COLS 1024

static void tensor_pair(struct bed *bed, struct pair *p, bool transposed)
{
	_cleanup_(cfs_freep) float *x = malloc(ROWS * COLS * sizeof(*x));
	_cleanup_(cfs_freep) uint16_t *y = malloc(ROWS * COLS * sizeof(*y));
	_cleanup_(cfs_map_unrefp) struct cfs_map *raw = cfs_map_new(bed->tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *cast = cfs_map_new(bed->tab);
	const uint64_t shape[] = {ROWS, COLS / 2}, stride[] = {COLS * 2, 2};
	const uint64_t flip[] = {COLS / 2, ROWS}, walk[] = {2, COLS * 2};
	uint32_t file;

	for (size_t i = 0; i < ROWS * COLS; i++)
		x[i] = (float)(int32_t)rng() * 1e-5f;
	ck_assert_int_eq(cfs_source_mem_put(bed->source, "tensor", x,
					    ROWS * COLS * sizeof(*x)),
			 0);
	cfs_dtype_cast(CFS_F32, x, CFS_BF16, y, ROWS * COLS);
	file = tab_add(bed->tab, bed->source, "tensor");
	ck_assert_int_eq(
		cfs_map_add_range(raw, file, 0, ROWS * COLS * sizeof(*x)), 0);
	ck_assert_int_eq(cfs_map_add_cast(cast, raw, CFS_F32, CFS_BF16), 0);
	p->map = cfs_map_new(bed->tab);
	ck_assert_int_eq(cfs_map_add_literal(p->map, "odd", 3), 0);
	cfs_buf_put(&p->bytes, "odd", 3);
	ck_assert_int_eq(cfs_map_add_gather(p->map, cast, 2, 2,
					    transposed ? flip : shape,
					    transposed ? walk : stride, COLS),
			 0);
	for (size_t i = 0; i < ROWS * COLS / 2; i++) {
		size_t row = transposed ? i % ROWS : i / (COLS / 2);
		size_t col = transposed ? i / ROWS : i % (COLS / 2);

		cfs_buf_put(&p->bytes, &y[row * COLS + COLS / 2 + col], 2);
	}
	cfs_map_seal(p->map);
}

START_TEST(many_blocks)
{
	_cleanup_(cfs_blockcache_freep) struct cfs_blockcache *cache =
		cfs_blockcache_new(600000);
	_cleanup_(pair_free) struct pair p = {NULL, CFS_BUF_INIT};
	struct cfs_blockcache_stats stats;
	static struct bed bed;

	rng_seed();
	bed_open(&bed);
	tensor_pair(&bed, &p, _i);
	expect_map(&bed, p.map, &p.bytes, cache, 20);
	cfs_blockcache_stats(cache, &stats);
	ck_assert_uint_le(stats.bytes, 600000);
	expect_map(&bed, p.map, &p.bytes, NULL, 1);
	bed_close(&bed);
}
END_TEST

struct together {
	struct cfs_reader *reader;
	const struct cfs_buf *bytes;
	pthread_barrier_t *start;
	atomic_uint *wrong;
};

static void *read_in_order(void *arg)
{
	struct together *t = arg;
	uint8_t buf[30000];

	(void)pthread_barrier_wait(t->start);
	for (size_t off = 0; off < t->bytes->len; off += sizeof(buf)) {
		size_t n = CFS_MIN(sizeof(buf), t->bytes->len - off);

		if (cfs_reader_pread(t->reader, buf, sizeof(buf), off) !=
			    (ssize_t)n ||
		    memcmp(buf, t->bytes->data + off, n) != 0)
			(void)atomic_fetch_add(t->wrong, 1);
	}
	return NULL;
}

#define N_READERS 6

/* Everything is computed once, whoever comes first. */
START_TEST(readers_share_work)
{
	_cleanup_(cfs_blockcache_freep) struct cfs_blockcache *cache =
		cfs_blockcache_new(64 << 20);
	_cleanup_(pair_free) struct pair p = {NULL, CFS_BUF_INIT};
	struct cfs_reader *readers[N_READERS];
	struct together t[N_READERS];
	struct cfs_blockcache_stats stats;
	pthread_t threads[N_READERS];
	pthread_barrier_t start;
	atomic_uint wrong = 0;
	static struct bed bed;

	rng_seed();
	bed_open(&bed);
	tensor_pair(&bed, &p, false);
	ck_assert_int_eq(pthread_barrier_init(&start, NULL, N_READERS), 0);
	for (int i = 0; i < N_READERS; i++) {
		ck_assert_int_eq(cfs_reader_open(p.map, bed.pool, cache,
						 &readers[i], NULL),
				 0);
		t[i] = (struct together){readers[i], &p.bytes, &start, &wrong};
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, read_in_order, &t[i]),
			0);
	}
	ck_assert_uint_eq(cfs_filepool_count(bed.pool), 1);
	for (int i = 0; i < N_READERS; i++) {
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
		cfs_reader_close(readers[i]);
	}
	(void)pthread_barrier_destroy(&start);
	ck_assert_uint_eq(wrong, 0);
	cfs_blockcache_stats(cache, &stats);
	/* 614,400 bytes of slices and 1,228,800 of the tensor, in 256 KiB */
	ck_assert_uint_eq(stats.computed, 3 + 5);
	bed_close(&bed);
}
END_TEST

/* A block that takes until all the others wait for it. */
struct flight {
	struct cfs_blockcache *cache;
	atomic_uint calls, failed;
	int r;
};

static int slow_block(void *arg, uint8_t *data, size_t len)
{
	struct flight *f = arg;
	struct cfs_blockcache_stats stats;

	(void)atomic_fetch_add(&f->calls, 1);
	do {
		cfs_blockcache_stats(f->cache, &stats);
	} while (stats.hits < N_READERS - 1);
	memset(data, 7, len);
	return f->r;
}

static void *ask_block(void *arg)
{
	struct flight *f = arg;
	struct cfs_block *b;
	int r = cfs_blockcache_get(f->cache, 1, 2, 100, slow_block, f, &b);

	if (r < 0) {
		ck_assert_int_eq(r, f->r);
		(void)atomic_fetch_add(&f->failed, 1);
		return NULL;
	}
	ck_assert_uint_eq(cfs_blockcache_data(b)[99], 7);
	cfs_blockcache_put(f->cache, b);
	return NULL;
}

START_TEST(single_flight)
{
	_cleanup_(cfs_blockcache_freep) struct cfs_blockcache *cache =
		cfs_blockcache_new(_i == 0 ? 1000 : 0);
	struct flight f = {.cache = cache, .r = _i == 2 ? -EIO : 0};
	struct cfs_blockcache_stats stats;
	pthread_t threads[N_READERS];

	for (int i = 0; i < N_READERS; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, ask_block, &f), 0);
	for (int i = 0; i < N_READERS; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_uint_eq(f.calls, 1);
	ck_assert_uint_eq(f.failed, f.r ? N_READERS : 0);
	/* kept only if it may be, and an error never */
	f.r = 0;
	(void)ask_block(&f);
	ck_assert_uint_eq(f.calls, _i == 0 ? 1 : 2);
	cfs_blockcache_stats(cache, &stats);
	ck_assert_uint_eq(stats.bytes, _i == 0 ? 100 : 0);
}
END_TEST

static int count_block(void *arg, uint8_t *data, size_t len)
{
	++*(unsigned *)arg;
	memset(data, 1, len);
	return 0;
}

static void use_block(struct cfs_blockcache *cache, uint64_t index,
		      unsigned *calls)
{
	struct cfs_block *b;

	ck_assert_int_eq(cfs_blockcache_get(cache, 9, index, 100, count_block,
					    calls, &b),
			 0);
	cfs_blockcache_put(cache, b);
}

START_TEST(least_recently_used_goes)
{
	_cleanup_(cfs_blockcache_freep) struct cfs_blockcache *cache =
		cfs_blockcache_new(300);
	unsigned calls = 0;

	for (uint64_t i = 0; i < 3; i++)
		use_block(cache, i, &calls);
	use_block(cache, 0, &calls);
	ck_assert_uint_eq(calls, 3);
	use_block(cache, 3, &calls); /* 1 goes */
	use_block(cache, 0, &calls);
	use_block(cache, 2, &calls);
	ck_assert_uint_eq(calls, 4);
	use_block(cache, 1, &calls);
	ck_assert_uint_eq(calls, 5);
}
END_TEST

/* A reader over the whole of @path, cast to bf16 if @computed. */
static struct cfs_reader *open_whole(struct cfs_filetab *tab,
				     struct cfs_filepool *pool,
				     struct cfs_blockcache *cache,
				     uint32_t file, uint64_t len, bool computed)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_map_new(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *top = cfs_map_new(tab);
	struct cfs_reader *reader;

	ck_assert_int_eq(cfs_map_add_range(map, file, 0, len), 0);
	if (computed)
		ck_assert_int_eq(cfs_map_add_cast(top, map, CFS_F32, CFS_BF16),
				 0);
	else
		ck_assert_int_eq(cfs_map_add_map(top, map), 0);
	cfs_map_seal(top);
	ck_assert_int_eq(cfs_reader_open(top, pool, cache, &reader, NULL), 0);
	return reader;
}

START_TEST(faults)
{
	_cleanup_(cfs_blockcache_freep) struct cfs_blockcache *cache =
		cfs_blockcache_new(1 << 20);
	struct cfs_reader *reader;
	static struct bed bed;
	uint8_t buf[100];

	bed_open(&bed);
	log_begin();
	reader = open_whole(bed.tab, bed.pool, cache, 1, FILE_SIZE, _i);
	ck_assert_int_eq(cfs_source_mem_break(bed.source, "file1", 0, -EIO), 0);
	ck_assert_int_eq(cfs_reader_pread(reader, buf, 100, 50), -EIO);
	ck_assert_int_eq(cfs_reader_pread(reader, buf, 100, 50), -EIO);
	ck_assert_uint_eq(log_lines, 1);
	ck_assert_ptr_nonnull(strstr(log_text, "file1"));
	ck_assert_int_eq(cfs_source_mem_break(bed.source, "file1", 0, 0), 0);
	ck_assert_int_eq(cfs_reader_pread(reader, buf, 100, 50), 100);
	if (!_i)
		ck_assert_mem_eq(buf, bed.files[1] + 50, 100);
	cfs_reader_close(reader);
	bed_close(&bed);
}
END_TEST

/* The map says more than the file holds, and the file is the planned one. */
START_TEST(short_files)
{
	struct cfs_reader *reader;
	static struct bed bed;
	uint8_t buf[100];

	bed_open(&bed);
	log_begin();
	reader = open_whole(bed.tab, bed.pool, NULL, 2, FILE_SIZE + 4, false);
	ck_assert_int_eq(cfs_reader_pread(reader, buf, 4, FILE_SIZE - 4), 4);
	ck_assert_int_eq(cfs_reader_pread(reader, buf, 8, FILE_SIZE - 4), -EIO);
	ck_assert_uint_eq(log_lines, 1);
	ck_assert_ptr_nonnull(strstr(log_text, "file2: too short"));
	cfs_reader_close(reader);
	bed_close(&bed);
}
END_TEST

START_TEST(open_compares_versions)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_reader *reader;
	struct cfs_error err = {""};
	static struct bed bed;

	bed_open(&bed);
	map = cfs_map_new(bed.tab);
	for (uint32_t i = 0; i < N_FILES; i++)
		ck_assert_int_eq(cfs_map_add_range(map, i, 0, 5), 0);
	cfs_map_seal(map);
	ck_assert_int_eq(cfs_source_mem_put(bed.source, "file3", "x", 1), 0);
	ck_assert_int_eq(cfs_reader_open(map, bed.pool, NULL, &reader, &err),
			 -ESTALE);
	ck_assert_ptr_nonnull(strstr(err.text, "file3"));
	ck_assert_int_eq(cfs_source_mem_remove(bed.source, "file1"), 0);
	ck_assert_int_eq(cfs_reader_open(map, bed.pool, NULL, &reader, &err),
			 -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "file1"));
	bed_close(&bed);
}
END_TEST

/* A pooled file read as a file: shared, checked, given back. */
START_TEST(pooled_files)
{
	struct cfs_file *a, *b;
	static struct bed bed;
	uint8_t buf[10];

	bed_open(&bed);
	log_begin();
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(
			cfs_filepool_get(bed.pool, "file0",
					 cfs_filetab_version(bed.tab, 0),
					 i ? &b : &a, NULL),
			0);
	ck_assert_ptr_eq(a, b);
	ck_assert_uint_eq(cfs_filepool_count(bed.pool), 1);
	cfs_filepool_put(bed.pool, b);
	ck_assert_int_eq(cfs_file_pread_all(a, buf, 10, 0), 0);
	ck_assert_mem_eq(buf, bed.files[0], 10);
	ck_assert_int_eq(cfs_source_mem_rewrite(bed.source, "file0", buf, 10),
			 0);
	ck_assert_int_eq(cfs_file_pread_all(a, buf, 10, 0), -ESTALE);
	ck_assert_int_eq(cfs_filepool_get(bed.pool, "file0",
					  cfs_filetab_version(bed.tab, 0), &b,
					  NULL),
			 -ESTALE);
	cfs_filepool_put(bed.pool, a);
	bed_close(&bed);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("reader");
	TCase *t = tcase_create("all");

	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_loop_test(t, many_blocks, 0, 2);
	tcase_add_test(t, readers_share_work);
	tcase_add_loop_test(t, single_flight, 0, 3);
	tcase_add_test(t, least_recently_used_goes);
	tcase_add_loop_test(t, faults, 0, 2);
	tcase_add_test(t, short_files);
	tcase_add_test(t, open_compares_versions);
	tcase_add_test(t, pooled_files);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
