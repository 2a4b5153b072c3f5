/*
 * store/map: what ranks that share a tensor read of its file.  Every byte of
 * the file is counted: a reader that goes through its map in order reads none
 * twice, and ranks that show parts of one computed tensor compute it once.
 */
#include "tests/unit/map_bed.h"

struct counting {
	struct cfs_source base;
	struct cfs_source *mem;
	uint8_t *counts; /* of the file's bytes */
	size_t len;
};

struct counting_file {
	struct cfs_file base, *mem;
	struct counting *source;
};

static struct counting_file *file_of(struct cfs_file *file)
{
	return container_of(file, struct counting_file, base);
}

static int file_stat(struct cfs_file *file, struct stat *st_out)
{
	struct cfs_file *mem = file_of(file)->mem;

	return mem->ops->stat(mem, st_out);
}

static ssize_t file_pread(struct cfs_file *file, void *buf, size_t len,
			  uint64_t off)
{
	struct counting_file *f = file_of(file);

	ck_assert_uint_le(off + len, f->source->len);
	for (size_t i = 0; i < len; i++)
		f->source->counts[off + i]++;
	return f->mem->ops->pread(f->mem, buf, len, off);
}

static void file_advise(struct cfs_file *file, uint64_t off, uint64_t len)
{
	(void)file;
	(void)off;
	(void)len;
}

static void file_close(struct cfs_file *file)
{
	cfs_file_close(file_of(file)->mem);
	free(file_of(file));
}

static int source_open(struct cfs_source *source, const char *path,
		       struct cfs_file **file_out)
{
	static const struct cfs_file_ops ops = {
		.stat = file_stat,
		.pread = file_pread,
		.advise = file_advise,
		.close = file_close,
	};
	struct counting *c = container_of(source, struct counting, base);
	struct counting_file *f = calloc(1, sizeof(*f));
	int r;

	ck_assert_ptr_nonnull(f);
	r = c->mem->ops->open(c->mem, path, &f->mem);
	if (r < 0) {
		free(f);
		return r;
	}
	f->base.ops = &ops;
	f->source = c;
	*file_out = &f->base;
	return 0;
}

static int source_stat(struct cfs_source *source, const char *path,
		       struct stat *st_out)
{
	struct counting *c = container_of(source, struct counting, base);

	return c->mem->ops->stat(c->mem, path, st_out);
}

/* A matrix of @rows x @cols elements of @elem bytes in a file. */
struct matrix {
	struct counting source;
	struct cfs_filetab *tab;
	struct cfs_filepool *pool;
	struct cfs_blockcache *cache;
	struct cfs_map *map; /* all of it */
	uint8_t *data;
	uint64_t rows, cols;
	uint32_t elem;
};

static void matrix_open(struct matrix *m, uint64_t rows, uint64_t cols,
			uint32_t elem)
{
	static const struct cfs_source_ops ops = {.stat = source_stat,
						  .open = source_open};
	size_t len = (size_t)(rows * cols * elem);
	uint32_t file;

	*m = (struct matrix){.rows = rows, .cols = cols, .elem = elem};
	m->source = (struct counting){.base.ops = &ops,
				      .mem = cfs_source_mem_new(),
				      .counts = calloc(len, 1),
				      .len = len};
	m->data = malloc(len);
	ck_assert(m->source.mem && m->source.counts && m->data);
	fill_random(m->data, len);
	ck_assert_int_eq(
		cfs_source_mem_put(m->source.mem, "tensor", m->data, len), 0);
	m->tab = cfs_filetab_new();
	m->pool = cfs_filepool_new(&m->source.base);
	m->cache = cfs_blockcache_new(64 << 20);
	m->map = cfs_map_new(m->tab);
	file = tab_add(m->tab, &m->source.base, "tensor");
	ck_assert_int_eq(cfs_map_add_range(m->map, file, 0, len), 0);
}

static void matrix_close(struct matrix *m)
{
	cfs_map_unref(m->map);
	cfs_blockcache_free(m->cache);
	cfs_filepool_free(m->pool);
	cfs_filetab_unref(m->tab);
	cfs_source_free(m->source.mem);
	free(m->source.counts);
	free(m->data);
}

/* The columns of rank @t of @tp, of @child, which has elements of @elem. */
static struct cfs_map *columns(struct matrix *m, struct cfs_map *child,
			       uint32_t elem, uint64_t tp, uint64_t t)
{
	const uint64_t shape[] = {m->rows, m->cols / tp};
	const uint64_t stride[] = {m->cols * elem, elem};
	struct cfs_map *map = cfs_map_new(m->tab);

	ck_assert_int_eq(cfs_map_add_gather(map, child, elem, 2, shape, stride,
					    t * shape[1] * elem),
			 0);
	cfs_map_seal(map);
	return map;
}

static struct cfs_map *rows(struct matrix *m, uint64_t tp, uint64_t t)
{
	uint64_t n = m->source.len / tp;
	struct cfs_map *map = cfs_map_new(m->tab);

	ck_assert_int_eq(cfs_map_add_slice(map, m->map, t * n, n), 0);
	cfs_map_seal(map);
	return map;
}

/* All of @map in order, as the kernel asks; @out is NULL or takes it. */
static void read_through(struct matrix *m, struct cfs_map *map,
			 struct cfs_blockcache *cache, uint8_t *out)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;
	_cleanup_(cfs_freep) uint8_t *buf = malloc(1 << 20);
	uint64_t size = cfs_map_size(map);

	ck_assert_int_eq(cfs_reader_open(map, m->pool, cache, &reader, NULL),
			 0);
	for (uint64_t off = 0, n; off < size; off += n) {
		n = pick(1, 1 << 20);
		n = CFS_MIN(n, size - off);
		ck_assert_int_eq(cfs_reader_pread(reader, buf, (size_t)n, off),
				 (ssize_t)n);
		if (out)
			memcpy(out + off, buf, (size_t)n);
	}
}

static bool is_ours(const struct matrix *m, bool by_rows, uint64_t tp,
		    uint64_t t, uint64_t at)
{
	uint64_t column = at / m->elem % m->cols;

	return by_rows ? at / (m->source.len / tp) == t
		       : column / (m->cols / tp) == t;
}

/* What is wanted was read once, what lies between at most once. */
static void check_counts(struct matrix *m, bool by_rows, uint64_t tp,
			 uint64_t t, const uint8_t *got)
{
	for (uint64_t at = 0, i = 0; at < m->source.len; at++) {
		bool ours = is_ours(m, by_rows, tp, t, at);

		if (ours)
			ck_assert_uint_eq(got[i++], m->data[at]);
		ck_assert_msg(ours ? m->source.counts[at] == 1
				   : m->source.counts[at] <= 1,
			      "byte %llu was read %u times",
			      (unsigned long long)at, m->source.counts[at]);
		if (by_rows && !ours)
			ck_assert_uint_eq(m->source.counts[at], 0);
	}
}

/* Runs of a few bytes, of some that lie close, and of many KiB. */
static const struct {
	uint64_t rows, cols;
	uint32_t elem;
} sizes[] = {{5000, 24, 4},   {3000, 64, 2}, {1000, 1024, 4},
	     {1000, 2304, 2}, {64, 8192, 4}, {16, 65536, 4}};

START_TEST(nothing_twice)
{
	struct matrix m;

	rng_seed();
	matrix_open(&m, sizes[_i].rows, sizes[_i].cols, sizes[_i].elem);
	for (unsigned k = 0; k < 8; k++) {
		bool by_rows = k & 1;
		uint64_t tp = k & 2 ? 4 : 2, t = pick(0, tp - 1);
		_cleanup_(cfs_freep) uint8_t *got = malloc(m.source.len / tp);
		_cleanup_(cfs_map_unrefp) struct cfs_map *map =
			by_rows ? rows(&m, tp, t)
				: columns(&m, m.map, m.elem, tp, t);

		ck_assert_ptr_nonnull(got);
		memset(m.source.counts, 0, m.source.len);
		read_through(&m, map, k & 4 ? m.cache : NULL, got);
		check_counts(&m, by_rows, tp, t, got);
	}
	matrix_close(&m);
}
END_TEST

/* Columns of a tensor that is cast: computed for whichever rank came first. */
START_TEST(ranks_share)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *cast = NULL;
	struct matrix m;

	rng_seed();
	matrix_open(&m, 600, 1024, 4);
	cast = cfs_map_new(m.tab);
	ck_assert_int_eq(cfs_map_add_cast(cast, m.map, CFS_F32, CFS_BF16), 0);
	for (uint64_t t = 0; t < 4; t++) {
		_cleanup_(cfs_map_unrefp) struct cfs_map *map =
			columns(&m, cast, 2, 4, t);

		read_through(&m, map, m.cache, NULL);
	}
	for (size_t i = 0; i < m.source.len; i++)
		ck_assert_uint_eq(m.source.counts[i], 1);
	matrix_close(&m);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("slices");
	TCase *t = tcase_create("all");

	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_loop_test(t, nothing_twice, 0, CFS_ARRAY_SIZE(sizes));
	tcase_add_test(t, ranks_share);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
