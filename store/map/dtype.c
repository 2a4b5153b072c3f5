/*
 * Element types and exact conversions between the four float types.
 *
 * Every pair goes through f32 (f64 where one side is f64); the loops hold no
 * branches, so that the compiler vectorises them.  f64 becomes a 16-bit type
 * by rounding to odd in f32 first: that keeps the sticky bit, so the second
 * rounding gives what a single one would.
 */
#include "store/map/dtype.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "store/util/base.h"

#define BATCH ((size_t)1024) /* elements; temporaries stay in L1 */

static const struct {
	const char *name;
	uint32_t size;
} dtypes[CFS_N_DTYPES] = {
	[CFS_DTYPE_NONE] = {"none", 0},
	[CFS_F64] = {"f64", 8},
	[CFS_F32] = {"f32", 4},
	[CFS_F16] = {"f16", 2},
	[CFS_BF16] = {"bf16", 2},
	[CFS_I64] = {"i64", 8},
	[CFS_I32] = {"i32", 4},
	[CFS_I16] = {"i16", 2},
	[CFS_I8] = {"i8", 1},
	[CFS_U8] = {"u8", 1},
	[CFS_U16] = {"u16", 2},
	[CFS_U32] = {"u32", 4},
	[CFS_U64] = {"u64", 8},
	[CFS_BOOL] = {"bool", 1},
	[CFS_C64] = {"c64", 8},
	[CFS_C128] = {"c128", 16},
	[CFS_F8_E4M3] = {"f8_e4m3", 1},
	[CFS_F8_E5M2] = {"f8_e5m2", 1},
	[CFS_DTYPE_OTHER] = {"other", 1},
};

uint32_t cfs_dtype_size(enum cfs_dtype dtype)
{
	return (unsigned)dtype < CFS_N_DTYPES ? dtypes[dtype].size : 0;
}

const char *cfs_dtype_name(enum cfs_dtype dtype)
{
	return (unsigned)dtype < CFS_N_DTYPES ? dtypes[dtype].name : "?";
}

bool cfs_dtype_is_float(enum cfs_dtype dtype)
{
	return dtype == CFS_F64 || dtype == CFS_F32 || dtype == CFS_F16 ||
	       dtype == CFS_BF16;
}

static float float_of(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static uint32_t bits_of(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return bits;
}

/* The scalars work on bits held as 32-bit words; see the loops below. */
static inline uint32_t bf16_of_f32(uint32_t x)
{
	uint32_t rounded = (x + 0x7fff + ((x >> 16) & 1)) >> 16;

	return (x & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

static inline uint32_t f16_of_f32(uint32_t x)
{
	const uint32_t denorm = (127 - 15 + 23 - 10 + 1) << 23;
	uint32_t sign = x >> 16 & 0x8000, a = x & 0x7fffffff;
	/* below 2^-14: the adder of the FPU shifts and rounds for us */
	uint32_t small = bits_of(float_of(a) + float_of(denorm)) - denorm;
	uint32_t normal =
		(a - ((127U - 15) << 23) + 0xfff + (a >> 13 & 1)) >> 13;
	uint32_t nan = 0x7e00 | (a >> 13 & 0x3ff);
	uint32_t big = a > 0x7f800000 ? nan : 0x7c00;
	uint32_t r = a < (127U - 14) << 23 ? small : normal;

	return sign | (a >= (127U + 16) << 23 ? big : r);
}

static inline uint32_t f32_of_f16(uint32_t h)
{
	uint32_t sign = (h & 0x8000) << 16, m = (h & 0x7fff) << 13;
	/* the multiplication normalises subnormals; it is exact */
	uint32_t finite = bits_of(float_of(m) * float_of((127U + 112) << 23));
	uint32_t quiet = (h & 0x3ff) ? 0x400000 : 0;
	uint32_t special = 0x7f800000 | (m & 0x7fffff) | quiet;

	return sign | ((h & 0x7c00) == 0x7c00 ? special : finite);
}

static void f32_to_bf16(const uint8_t *src, uint8_t *dst, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t x;
		uint16_t y;

		memcpy(&x, src + 4 * i, sizeof(x));
		y = (uint16_t)bf16_of_f32(x);
		memcpy(dst + 2 * i, &y, sizeof(y));
	}
}

static void f32_to_f16(const uint8_t *src, uint8_t *dst, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t x;
		uint16_t y;

		memcpy(&x, src + 4 * i, sizeof(x));
		y = (uint16_t)f16_of_f32(x);
		memcpy(dst + 2 * i, &y, sizeof(y));
	}
}

static void bf16_to_f32(const uint8_t *src, uint8_t *dst, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t x;
		uint32_t y;

		memcpy(&x, src + 2 * i, sizeof(x));
		y = (uint32_t)x << 16;
		memcpy(dst + 4 * i, &y, sizeof(y));
	}
}

static void f16_to_f32(const uint8_t *src, uint8_t *dst, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t x;
		uint32_t y;

		memcpy(&x, src + 2 * i, sizeof(x));
		y = f32_of_f16(x);
		memcpy(dst + 4 * i, &y, sizeof(y));
	}
}

static void f32_to_f64(const uint8_t *src, uint8_t *dst, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float x;
		double y;

		memcpy(&x, src + 4 * i, sizeof(x));
		y = (double)x;
		memcpy(dst + 8 * i, &y, sizeof(y));
	}
}

static void f64_to_f32(const uint8_t *src, uint8_t *dst, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double x;
		float y;

		memcpy(&x, src + 8 * i, sizeof(x));
		y = (float)x;
		memcpy(dst + 4 * i, &y, sizeof(y));
	}
}

/*
 * Towards zero, then the last bit set if anything was lost.  Overflow becomes
 * the largest float, which the next step rounds to infinity.
 */
static uint32_t f32_odd_of_f64(double x)
{
	float f = (float)x;
	uint32_t bits = bits_of(f);
	double back = (double)f;

	if (!(back < x || back > x))
		return bits; /* exact, or NaN */
	if ((back > x) == (x > 0))
		bits--; /* was rounded away from zero: infinity, too */
	return bits | 1;
}

static void f64_to_f32_odd(const uint8_t *src, uint8_t *dst, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double x;
		uint32_t y;

		memcpy(&x, src + 8 * i, sizeof(x));
		y = f32_odd_of_f64(x);
		memcpy(dst + 4 * i, &y, sizeof(y));
	}
}

static void copy_f32(const uint8_t *src, uint8_t *dst, size_t n)
{
	memcpy(dst, src, 4 * n);
}

typedef void convert_fn(const uint8_t *src, uint8_t *dst, size_t n);

static convert_fn *to_f32(enum cfs_dtype from, enum cfs_dtype to)
{
	switch (from) {
	case CFS_F64:
		return to == CFS_F32 ? f64_to_f32 : f64_to_f32_odd;
	case CFS_F16:
		return f16_to_f32;
	case CFS_BF16:
		return bf16_to_f32;
	default:
		return copy_f32;
	}
}

static convert_fn *from_f32(enum cfs_dtype to)
{
	switch (to) {
	case CFS_F64:
		return f32_to_f64;
	case CFS_F16:
		return f32_to_f16;
	case CFS_BF16:
		return f32_to_bf16;
	default:
		return copy_f32;
	}
}

void cfs_dtype_cast(enum cfs_dtype from, const void *src, enum cfs_dtype to,
		    void *dst, uint64_t n)
{
	size_t in = cfs_dtype_size(from), out = cfs_dtype_size(to);
	convert_fn *first = to_f32(from, to), *second = from_f32(to);
	const uint8_t *s = src;
	uint8_t tmp[4 * BATCH], *d = dst;

	assert(cfs_dtype_is_float(from) && cfs_dtype_is_float(to));
	if (from == to) {
		memcpy(dst, src, in * n);
	} else if (from == CFS_F32) {
		second(s, d, n);
	} else if (to == CFS_F32) {
		first(s, d, n);
	} else {
		for (uint64_t i = 0; i < n; i += BATCH) {
			size_t m = (size_t)CFS_MIN(n - i, BATCH);

			first(s + in * i, tmp, m);
			second(tmp, d + out * i, m);
		}
	}
}
