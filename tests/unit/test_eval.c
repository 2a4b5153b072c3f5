/* store/map/eval: random maps against plain arrays of bytes. */
#include "tests/unit/map_bed.h"

static void pair_random(struct bed *bed, struct pair *p, int depth);

static void add_literal(struct pair *p)
{
	uint8_t raw[50];
	size_t n = pick(1, sizeof(raw));

	fill_random(raw, n);
	ck_assert_int_eq(cfs_map_add_literal(p->map, raw, n), 0);
	cfs_buf_put(&p->bytes, raw, n);
}

static void add_zero(struct pair *p)
{
	size_t n = pick(1, 300);

	ck_assert_int_eq(cfs_map_add_zero(p->map, n), 0);
	ck_assert_ptr_nonnull(cfs_buf_grow(&p->bytes, n));
}

static void add_range(struct bed *bed, struct pair *p)
{
	uint32_t file = (uint32_t)pick(0, N_FILES - 1);
	size_t n = pick(1, rng() % 4 ? 60 : FILE_SIZE);
	size_t off = pick(0, FILE_SIZE - n);

	ck_assert_int_eq(cfs_map_add_range(p->map, file, off, n), 0);
	cfs_buf_put(&p->bytes, bed->files[file] + off, n);
}

/* A random piece of a random map. */
static void add_slice(struct bed *bed, struct pair *p, int depth)
{
	_cleanup_(pair_free) struct pair c = {NULL, CFS_BUF_INIT};
	size_t off, n;

	pair_random(bed, &c, depth);
	off = pick(0, c.bytes.len - 1);
	n = pick(1, c.bytes.len - off);
	ck_assert_int_eq(cfs_map_add_slice(p->map, c.map, off, n), 0);
	cfs_buf_put(&p->bytes, c.bytes.data + off, n);
}

static enum cfs_dtype random_float(void)
{
	const enum cfs_dtype floats[] = {CFS_F64, CFS_F32, CFS_F16, CFS_BF16};

	return floats[pick(0, 3)];
}

/* A random map of @n bytes, repeated and cut to that. */
static void pair_of_len(struct bed *bed, struct pair *p, size_t n, int depth)
{
	_cleanup_(pair_free) struct pair c = {NULL, CFS_BUF_INIT};

	pair_random(bed, &c, depth);
	p->map = cfs_map_new(bed->tab);
	while (p->bytes.len < n) {
		size_t part = CFS_MIN(n - p->bytes.len, c.bytes.len);

		ck_assert_int_eq(cfs_map_add_slice(p->map, c.map, 0, part), 0);
		cfs_buf_put(&p->bytes, c.bytes.data, part);
	}
}

static void add_cast(struct bed *bed, struct pair *p, int depth)
{
	_cleanup_(pair_free) struct pair c = {NULL, CFS_BUF_INIT};
	enum cfs_dtype from = random_float(), to = random_float();
	size_t n = pick(1, 2000);
	uint8_t *out;

	pair_of_len(bed, &c, n * cfs_dtype_size(from), depth - 1);
	ck_assert_int_eq(cfs_map_add_cast(p->map, c.map, from, to), 0);
	out = cfs_buf_grow(&p->bytes, n * cfs_dtype_size(to));
	ck_assert_ptr_nonnull(out);
	cfs_dtype_cast(from, c.bytes.data, to, out, n);
}

static void add_linear(struct bed *bed, struct pair *p, int depth)
{
	struct pair c[3] = {{NULL, CFS_BUF_INIT}};
	struct cfs_map *maps[3];
	double w[3], sum[1000], term;
	enum cfs_dtype from = random_float();
	uint32_t k = (uint32_t)pick(1, 3), size = cfs_dtype_size(from);
	size_t n = pick(1, 1000);
	uint8_t *out;

	for (uint32_t i = 0; i < k; i++) {
		pair_of_len(bed, &c[i], n * size, depth - 1);
		maps[i] = c[i].map;
		w[i] = (double)pick(0, 8) / 4 - 1;
	}
	for (size_t e = 0; e < n; e++) {
		for (uint32_t i = 0; i < k; i++) {
			cfs_dtype_cast(from, c[i].bytes.data + e * size,
				       CFS_F64, &term, 1);
			sum[e] = i ? sum[e] + w[i] * term : w[i] * term;
		}
	}
	/* bf16 has one NaN only, so operand order cannot show */
	ck_assert_int_eq(cfs_map_add_linear(p->map, maps, w, k, from, CFS_BF16),
			 0);
	out = cfs_buf_grow(&p->bytes, n * 2);
	ck_assert_ptr_nonnull(out);
	if (k == 1 && w[0] >= 1 && w[0] <= 1)
		cfs_dtype_cast(from, c[0].bytes.data, CFS_BF16, out, n);
	else
		cfs_dtype_cast(CFS_F64, sum, CFS_BF16, out, n);
	for (uint32_t i = 0; i < k; i++)
		pair_free(&c[i]);
}

/* A random box, its strides in any order, with and without gaps. */
static void add_gather(struct bed *bed, struct pair *p, int depth)
{
	_cleanup_(pair_free) struct pair c = {NULL, CFS_BUF_INIT};
	uint64_t shape[4], stride[4], index[4] = {0}, step;
	uint32_t ndim = (uint32_t)pick(0, 4), elem = (uint32_t)pick(1, 16);
	uint64_t base = pick(0, 40), end = base + elem, n = 1;

	step = elem;
	for (uint32_t i = ndim; i-- > 0;) {
		shape[i] = pick(1, 7);
		stride[i] = step + (rng() % 2 ? 0 : pick(0, 100));
		if (rng() % 8 == 0)
			stride[i] = pick(0, 20); /* overlapping */
		step = CFS_MAX(stride[i] * shape[i], step);
		end += (shape[i] - 1) * stride[i];
		n *= shape[i];
	}
	for (uint32_t i = 1; i < ndim; i++) { /* transposed now and then */
		uint64_t s = shape[i], t = stride[i];

		if (rng() % 3)
			continue;
		shape[i] = shape[0];
		stride[i] = stride[0];
		shape[0] = s;
		stride[0] = t;
	}
	pair_of_len(bed, &c, end + pick(0, 9), depth - 1);
	ck_assert_int_eq(cfs_map_add_gather(p->map, c.map, elem, ndim, shape,
					    stride, base),
			 0);
	for (uint64_t e = 0; e < n; e++) {
		uint64_t at = base;

		for (uint32_t i = 0; i < ndim; i++)
			at += index[i] * stride[i];
		cfs_buf_put(&p->bytes, c.bytes.data + at, elem);
		for (uint32_t i = ndim; i-- > 0;) {
			if (++index[i] < shape[i])
				break;
			index[i] = 0;
		}
	}
}

/* @depth: how many levels of children it may have. */
static void pair_random(struct bed *bed, struct pair *p, int depth)
{
	unsigned n = (unsigned)pick(1, 6);

	p->map = cfs_map_new(bed->tab);
	ck_assert_ptr_nonnull(p->map);
	while (n--) {
		switch (pick(0, depth ? 7 : 2)) {
		case 0:
			add_literal(p);
			break;
		case 1:
			add_zero(p);
			break;
		case 2:
		case 3:
			add_range(bed, p);
			break;
		case 4:
			add_slice(bed, p, depth - 1);
			break;
		case 5:
			add_cast(bed, p, depth);
			break;
		case 6:
			add_linear(bed, p, depth);
			break;
		default:
			add_gather(bed, p, depth);
		}
	}
	ck_assert(!p->bytes.failed);
	ck_assert_uint_eq(cfs_map_size(p->map), p->bytes.len);
	cfs_map_seal(p->map);
}

START_TEST(random_maps)
{
	_cleanup_(cfs_blockcache_freep) struct cfs_blockcache *small =
		cfs_blockcache_new(5000);
	_cleanup_(cfs_blockcache_freep) struct cfs_blockcache *big =
		cfs_blockcache_new(64 << 20);
	static struct bed bed;

	rng_seed();
	bed_open(&bed);
	for (int i = 0; i < 400; i++) {
		_cleanup_(pair_free) struct pair p = {NULL, CFS_BUF_INIT};
		_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;
		_cleanup_(cfs_map_unrefp) struct cfs_map *back = NULL;

		pair_random(&bed, &p, i % (CFS_MAP_DEPTH_MAX + 1));
		expect_map(&bed, p.map, &p.bytes, NULL, 20);
		expect_map(&bed, p.map, &p.bytes, small, 20);
		expect_map(&bed, p.map, &p.bytes, big, 20);
		ck_assert_int_eq(cfs_map_encode(p.map, &raw), 0);
		ck_assert_int_eq(cfs_map_decode(raw.data, raw.len, &back), 0);
		expect_map(&bed, back, &p.bytes, big, 5);
	}
	bed_close(&bed);
}
END_TEST

/* Values with and without a sign, in every type: 0.5 a - b + 2 c. */
START_TEST(linear_values)
{
	const float a[] = {1, -0.0f, 3e38f, 1e-45f};
	const float b[] = {2, 0.0f, -3e38f, 0};
	const float c[] = {0.25f, -0.0f, 0, 0};
	const double w[] = {0.5, -1, 2};
	const double want[] = {-1, -0.0, 1.5 * (double)3e38f, 0.5 * 0x1p-149};
	struct cfs_map *maps[3];
	static struct bed bed;

	bed_open(&bed);
	for (int i = 0; i < 3; i++) {
		maps[i] = cfs_map_new(bed.tab);
		ck_assert_int_eq(cfs_map_add_literal(maps[i],
						     i == 0   ? a
						     : i == 1 ? b
							      : c,
						     sizeof(a)),
				 0);
	}
	for (int t = CFS_F64; t <= CFS_BF16; t++) {
		_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;
		_cleanup_(cfs_map_unrefp) struct cfs_map *m =
			cfs_map_new(bed.tab);
		enum cfs_dtype to = (enum cfs_dtype)t;
		uint8_t *out = cfs_buf_grow(&bytes, 4 * cfs_dtype_size(to));

		ck_assert_ptr_nonnull(out);
		cfs_dtype_cast(CFS_F64, want, to, out, 4);
		ck_assert_int_eq(cfs_map_add_linear(m, maps, w, 3, CFS_F32, to),
				 0);
		cfs_map_seal(m);
		expect_map(&bed, m, &bytes, NULL, 5);
	}
	for (int i = 0; i < 3; i++)
		cfs_map_unref(maps[i]);
	bed_close(&bed);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("eval");
	TCase *t = tcase_create("all");

	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_test(t, random_maps);
	tcase_add_test(t, linear_values);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
