/* store/map/dtype: conversions against a slow model of rounding. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "store/map/dtype.h"
#include "store/util/base.h"

static const enum cfs_dtype floats[] = {CFS_F64, CFS_F32, CFS_F16, CFS_BF16};

static const struct layout {
	enum cfs_dtype dtype;
	int mantissa, exp_bits;
} layouts[] = {
	{CFS_F64, 52, 11},
	{CFS_F32, 23, 8},
	{CFS_F16, 10, 5},
	{CFS_BF16, 7, 8},
};

static const struct layout *layout_of(enum cfs_dtype dtype)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(layouts); i++)
		if (layouts[i].dtype == dtype)
			return &layouts[i];
	ck_abort();
}

static int bias(const struct layout *l)
{
	return (1 << (l->exp_bits - 1)) - 1;
}

/* The value of the bits; NaN has none that counts. */
static double value(const struct layout *l, uint64_t bits)
{
	uint64_t mant = bits & ((1ULL << l->mantissa) - 1);
	int exp = (int)(bits >> l->mantissa & ((1ULL << l->exp_bits) - 1));
	bool neg = bits >> (l->mantissa + l->exp_bits) & 1;
	double v;

	if (exp == (1 << l->exp_bits) - 1)
		v = mant ? (double)NAN : (double)INFINITY;
	else if (exp)
		v = ldexp((double)(mant | 1ULL << l->mantissa),
			  exp - bias(l) - l->mantissa);
	else
		v = ldexp((double)mant, 1 - bias(l) - l->mantissa);
	return neg ? -v : v;
}

/* The bits nearest to @v, ties to even: counts in units of the last place. */
static uint64_t nearest(const struct layout *l, double v)
{
	uint64_t sign = signbit(v) ? 1ULL << (l->mantissa + l->exp_bits) : 0;
	uint64_t inf = ((1ULL << l->exp_bits) - 1) << l->mantissa;
	double a = fabs(v), units;
	int exp = 1 - bias(l);

	if (isinf(a))
		return sign | inf;
	if (a > 0 && ilogb(a) > exp)
		exp = ilogb(a);
	units = nearbyint(ldexp(a, l->mantissa - exp));
	/* units is at most 2^(mantissa + 1), which carries by itself */
	if (units < ldexp(1, l->mantissa))
		return sign | (uint64_t)units;
	if (exp > bias(l))
		return sign | inf;
	return sign | (((uint64_t)(exp + bias(l) - 1) << l->mantissa) +
		       (uint64_t)units);
}

static uint64_t get(const void *p, size_t i, uint32_t size)
{
	uint64_t v = 0;

	memcpy(&v, (const char *)p + i * size, size);
	return v;
}

/* @n patterns of @from, converted to @to, each as the model says. */
static void expect_all(enum cfs_dtype from, const void *src, enum cfs_dtype to,
		       size_t n)
{
	const struct layout *lf = layout_of(from), *lt = layout_of(to);
	uint32_t in = cfs_dtype_size(from), out = cfs_dtype_size(to);
	_cleanup_(cfs_freep) uint8_t *dst = malloc(n * out + 1);

	ck_assert_ptr_nonnull(dst);
	dst[n * out] = 0x5a;
	cfs_dtype_cast(from, src, to, dst, n);
	ck_assert_uint_eq(dst[n * out], 0x5a);
	for (size_t i = 0; i < n; i++) {
		uint64_t x = get(src, i, in), y = get(dst, i, out);
		double v = value(lf, x);

		if (isnan(v) ? isnan(value(lt, y)) : y == nearest(lt, v))
			continue;
		ck_abort_msg("%s %#llx -> %s %#llx, want %#llx",
			     cfs_dtype_name(from), (unsigned long long)x,
			     cfs_dtype_name(to), (unsigned long long)y,
			     (unsigned long long)nearest(lt, v));
	}
}

START_TEST(every_16_bit_pattern)
{
	static uint16_t all[65536];

	for (unsigned i = 0; i < 65536; i++)
		all[i] = (uint16_t)i;
	for (size_t k = 0; k < CFS_ARRAY_SIZE(floats); k++) {
		expect_all(CFS_F16, all, floats[k], 65536);
		expect_all(CFS_BF16, all, floats[k], 65536);
	}
}
END_TEST

static uint64_t rng_state;

static uint64_t rng(void)
{
	uint64_t z = rng_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static void rng_seed(void)
{
	const char *env = getenv("CFS_SEED");

	rng_state = env ? strtoull(env, NULL, 0) : 20261121;
	(void)printf("CFS_SEED=%llu\n", (unsigned long long)rng_state);
}

#define N ((size_t)1 << 20)

/* Every sign and exponent with mantissas around each bit and at random. */
START_TEST(f32_patterns)
{
	static uint32_t x[N];
	size_t n = 0;

	rng_seed();
	for (uint32_t top = 0; top < 512; top++) {
		for (int bit = 0; bit <= 23; bit++) {
			uint32_t m = 1U << bit;

			for (int d = -2; d <= 2; d++) {
				uint32_t low = (m + (uint32_t)d) & 0x7fffff;

				x[n++] = top << 23 | low;
				/* ties that round up, not only down */
				x[n++] =
					top << 23 | ((low | m << 1) & 0x7fffff);
			}
		}
	}
	while (n < N)
		x[n++] = (uint32_t)rng();
	for (size_t k = 0; k < CFS_ARRAY_SIZE(floats); k++)
		expect_all(CFS_F32, x, floats[k], N);
}
END_TEST

/* Doubles next to what the small types can just tell apart. */
START_TEST(f64_patterns)
{
	static uint64_t x[N];
	size_t n = 0;

	rng_seed();
	for (uint32_t h = 0; h < 65536; h++) {
		for (int d = -1; d <= 1; d++) {
			/* f16, bf16 and their midpoints, and one ulp aside */
			double v = value(&layouts[2], h);
			double w = value(&layouts[3], h);
			uint64_t b;

			memcpy(&b, &v, 8);
			x[n++] = (b | 1ULL << 41) + (uint64_t)d;
			memcpy(&b, &w, 8);
			x[n++] = (b | 1ULL << 44) + (uint64_t)d;
		}
	}
	for (; n < N; n++) {
		x[n] = rng();
		if (n % 2) /* near the range of f32 */
			x[n] = (x[n] & 0x800fffffffffffff) |
			       (1023 - 160 + rng() % 300) << 52;
	}
	for (size_t k = 0; k < CFS_ARRAY_SIZE(floats); k++)
		expect_all(CFS_F64, x, floats[k], N);
}
END_TEST

START_TEST(any_length_any_alignment)
{
	static float x[2100];
	uint8_t in[sizeof(x) + 8], out[2 * 2100 + 16];

	for (size_t i = 0; i < CFS_ARRAY_SIZE(x); i++)
		x[i] = (float)i * 0.37f - 300;
	for (size_t shift = 0; shift < 4; shift++) {
		memcpy(in + shift, x, sizeof(x));
		for (size_t n = 0; n < 2100; n += n < 70 ? 1 : 113) {
			memset(out, 0x5a, sizeof(out));
			cfs_dtype_cast(CFS_F32, in + shift, CFS_BF16,
				       out + shift, n);
			ck_assert_uint_eq(out[shift + 2 * n], 0x5a);
			for (size_t i = 0; i < n; i++)
				ck_assert_uint_eq(
					get(out + shift, i, 2),
					nearest(&layouts[3], (double)x[i]));
		}
	}
}
END_TEST

/* What dtype.h promises about NaN. */
START_TEST(nan_bits)
{
	const uint32_t x[] = {0x7fc00000, 0x7f800001, 0xffffffff, 0xff802000};
	const uint16_t bf16[] = {0x7fc0, 0x7fc0, 0x7fc0, 0x7fc0};
	const uint16_t f16[] = {0x7e00, 0x7e00, 0xffff, 0xfe01};
	uint16_t y[4];

	cfs_dtype_cast(CFS_F32, x, CFS_BF16, y, 4);
	ck_assert_mem_eq(y, bf16, sizeof(y));
	cfs_dtype_cast(CFS_F32, x, CFS_F16, y, 4);
	ck_assert_mem_eq(y, f16, sizeof(y));
}
END_TEST

START_TEST(sizes_and_names)
{
	for (int t = CFS_F64; t < CFS_N_DTYPES; t++) {
		ck_assert_uint_gt(cfs_dtype_size((enum cfs_dtype)t), 0);
		for (int u = CFS_DTYPE_NONE; u < t; u++)
			ck_assert_str_ne(cfs_dtype_name((enum cfs_dtype)t),
					 cfs_dtype_name((enum cfs_dtype)u));
	}
	ck_assert_uint_eq(cfs_dtype_size(CFS_DTYPE_NONE), 0);
	ck_assert_uint_eq(cfs_dtype_size(CFS_C128), 16);
	ck_assert(!cfs_dtype_is_float(CFS_F8_E4M3));
	ck_assert(cfs_dtype_is_float(CFS_BF16));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("dtype");
	TCase *t = tcase_create("all");

	tcase_add_test(t, every_16_bit_pattern);
	tcase_add_test(t, f32_patterns);
	tcase_add_test(t, f64_patterns);
	tcase_add_test(t, any_length_any_alignment);
	tcase_add_test(t, nan_bits);
	tcase_add_test(t, sizes_and_names);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
