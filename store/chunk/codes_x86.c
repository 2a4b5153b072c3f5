/*
 * To codes: 32 bytes are compared with each value at once.  Back: bits are
 * spread to bytes, which choose their values by one shuffle.
 */
#include "store/chunk/codes_x86.h"

#ifdef CFS_CODES_X86

#include <immintrin.h>
#include <string.h>

#define VECTOR 32u
#define AVX2   __attribute__((target("avx2,bmi")))
#define INLINE AVX2 inline __attribute__((always_inline))

/* ---- to codes ---- */

static INLINE void code(const uint8_t *values, unsigned bits,
			const uint8_t *src, uint64_t *planes)
{
	const unsigned escape = (1u << bits) - 1;
	unsigned half, k, b;

	for (b = 0; b < bits; b++)
		planes[b] = 0;
	for (half = 0; half < CFS_CODES_BLOCK; half += VECTOR) {
		const __m256i bytes =
			_mm256_loadu_si256((const void *)(src + half));
		__m256i less = _mm256_setzero_si256(); /* than the escape */
		__m256i codes;

		for (k = 0; k < escape; k++) {
			__m256i is = _mm256_cmpeq_epi8(
				bytes, _mm256_set1_epi8((char)values[k]));

			less = _mm256_or_si256(
				less, _mm256_and_si256(
					      is, _mm256_set1_epi8(
							  (char)(escape - k))));
		}
		codes = _mm256_sub_epi8(_mm256_set1_epi8((char)escape), less);
		for (b = 0; b < bits; b++)
			planes[b] |=
				(uint64_t)(uint32_t)_mm256_movemask_epi8(
					_mm256_slli_epi64(codes, 7 - (int)b))
				<< half;
	}
}

static INLINE bool put(struct cfs_codes_put *p, unsigned bits,
		       const uint8_t *src, size_t n)
{
	uint64_t planes[4], mask;
	size_t at;
	unsigned b;

	for (at = 0; at < n; at += CFS_CODES_BLOCK) {
		code(p->values, bits, src + at, planes);
		for (b = 0, mask = ~0ull; b < bits; b++) {
			mask &= planes[b];
			memcpy(p->planes + b * p->plane + at / 8, &planes[b],
			       sizeof(planes[b]));
		}
		for (; mask; mask &= mask - 1) {
			if (p->escaped == p->end)
				return false;
			*p->escaped++ = src[at + (size_t)__builtin_ctzll(mask)];
		}
	}
	return true;
}

AVX2 bool cfs_codes_x86_put(struct cfs_codes_put *p, unsigned bits,
			    const uint8_t *src, size_t n)
{
	switch (bits) {
	case 1:
		return put(p, 1, src, n);
	case 2:
		return put(p, 2, src, n);
	case 3:
		return put(p, 3, src, n);
	default:
		return put(p, 4, src, n);
	}
}

/* ---- and back ---- */

/* In each of 32 bytes @bit, where @word has the byte's bit. */
static INLINE __m256i spread(uint32_t word, unsigned bit)
{
	const __m256i which = _mm256_setr_epi64x(
		0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
	const __m256i place = _mm256_set1_epi64x((long long)0x8040201008040201);
	__m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int)word), which);

	v = _mm256_cmpeq_epi8(_mm256_and_si256(v, place), place);
	return _mm256_and_si256(v, _mm256_set1_epi8((char)(1u << bit)));
}

static INLINE bool get(struct cfs_codes_get *g, unsigned bits, uint8_t *dst,
		       size_t n)
{
	const __m256i values = _mm256_broadcastsi128_si256(
		_mm_loadu_si128((const void *)g->values));
	uint64_t planes[4], mask;
	size_t at;
	unsigned b, half;

	for (at = 0; at < n; at += CFS_CODES_BLOCK) {
		for (b = 0, mask = ~0ull; b < bits; b++) {
			memcpy(&planes[b], g->planes + b * g->plane + at / 8,
			       sizeof(planes[b]));
			mask &= planes[b];
		}
		for (half = 0; half < CFS_CODES_BLOCK; half += VECTOR) {
			__m256i codes = _mm256_setzero_si256();

			for (b = 0; b < bits; b++)
				codes = _mm256_or_si256(
					codes,
					spread((uint32_t)(planes[b] >> half),
					       b));
			_mm256_storeu_si256((void *)(dst + at + half),
					    _mm256_shuffle_epi8(values, codes));
		}
		for (; mask; mask &= mask - 1) {
			if (g->escaped == g->end)
				return false;
			dst[at + (size_t)__builtin_ctzll(mask)] = *g->escaped++;
		}
	}
	return true;
}

AVX2 bool cfs_codes_x86_get(struct cfs_codes_get *g, unsigned bits,
			    uint8_t *dst, size_t n)
{
	switch (bits) {
	case 1:
		return get(g, 1, dst, n);
	case 2:
		return get(g, 2, dst, n);
	case 3:
		return get(g, 3, dst, n);
	default:
		return get(g, 4, dst, n);
	}
}

#endif
