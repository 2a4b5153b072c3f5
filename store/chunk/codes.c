/*
 * Choosing codes, and 64 bytes at a time to them and back: in portable C for
 * the last block and where codes_x86.c does not serve.  Bytes are compared with
 * each value (loops that the compiler turns into vectors), then a word of each
 * bit plane is made.  The last code, all bits set, says that the byte itself
 * stands behind.
 */
#include "store/chunk/codes.h"

#include <errno.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "store/chunk/codes_x86.h"
#include "store/util/endian.h"

#define GROUP 8u /* bytes whose codes fill a word */
#define BLOCK CFS_CODES_BLOCK
#define LOW   0x0101010101010101ull
#define HIGH  0x8080808080808080ull
/* Takes the lowest bits of eight bytes to the highest byte, in order. */
#define GATHER 0x0102040810204080ull
/* Of a byte in all eight places, the bit that each place is for. */
#define SPREAD 0x8040201008040201ull

static unsigned values_of(unsigned bits)
{
	return (1u << bits) - 1;
}

static size_t plane_bytes(size_t n)
{
	return (n + 7) / 8;
}

/* ---- choosing ---- */

/* The most frequent values first, as many as may be needed; all differ. */
static void rank(const uint32_t count[256], uint8_t *values)
{
	const unsigned want = values_of(CFS_CODES_BITS);
	unsigned n = 0, i, k;

	for (i = 0; i < 256; i++) {
		if (n < want)
			k = n++;
		else if (count[i] > count[values[want - 1]])
			k = want - 1;
		else
			continue;
		for (; k && count[values[k - 1]] < count[i]; k--)
			values[k] = values[k - 1];
		values[k] = (uint8_t)i;
	}
}

void cfs_codes_pick(const uint32_t count[256], uint32_t n,
		    struct cfs_codebook *book)
{
	/* in bits, of n bytes: the codes, and 8 for each byte that has none */
	uint64_t best = (uint64_t)n * 4 + 1, cost;
	uint32_t covered = 0;
	unsigned bits, k = 0;

	book->bits = 0;
	rank(count, book->values);
	if (count[book->values[0]] == n)
		return; /* a run, which others tell in a few bytes */
	for (bits = 1; bits <= CFS_CODES_BITS; bits++) {
		for (; k < values_of(bits); k++)
			covered += count[book->values[k]];
		cost = (uint64_t)n * bits + (uint64_t)(n - covered) * 8;
		if (cost < best) {
			best = cost;
			book->bits = bits;
		}
	}
}

/* ---- to codes ---- */

/* Bit @b of each of 16 bytes. */
static inline uint64_t bit_of(const uint8_t *codes, unsigned b)
{
#ifdef __SSE2__
	__m128i v;

	memcpy(&v, codes, sizeof(v));
	return (unsigned)_mm_movemask_epi8(_mm_slli_epi64(v, 7 - (int)b));
#else
	uint64_t low = cfs_get_le64(codes), high = cfs_get_le64(codes + 8);

	return (((low >> b) & LOW) * GATHER) >> 56 |
	       (((high >> b) & LOW) * GATHER) >> 56 << 8;
#endif
}

/* Inlined for each number of bits, so that values stay in registers. */
static inline __attribute__((always_inline)) void gather(const uint8_t *values,
							 unsigned bits,
							 const uint8_t *src,
							 uint64_t *planes)
{
	const unsigned escape = values_of(bits);
	uint8_t codes[BLOCK];
	unsigned i, k, b;

	for (i = 0; i < BLOCK; i++) {
		uint8_t code = (uint8_t)escape;

		for (k = 0; k < escape; k++)
			code = (uint8_t)(code - (src[i] == values[k]
							 ? escape - k
							 : 0));
		codes[i] = code;
	}
	for (b = 0; b < bits; b++)
		planes[b] = bit_of(codes, b) | bit_of(codes + 16, b) << 16 |
			    bit_of(codes + 32, b) << 32 |
			    bit_of(codes + 48, b) << 48;
}

/* The block at @at, of which @n bytes count; false: no room for those without a
 * code. */
static inline __attribute__((always_inline)) bool
put_block(struct cfs_codes_put *p, unsigned bits, const uint8_t *src, size_t at,
	  size_t n)
{
	uint64_t planes[CFS_CODES_BITS], mask = ~0ull >> (BLOCK - n);
	unsigned b;

	gather(p->values, bits, src, planes);
	for (b = 0; b < bits; b++) {
		mask &= planes[b];
		planes[b] = htole64(planes[b]);
		memcpy(p->planes + b * p->plane + at / 8, &planes[b],
		       plane_bytes(n));
	}
	for (; mask; mask &= mask - 1) {
		if (p->escaped == p->end)
			return false;
		*p->escaped++ = src[__builtin_ctzll(mask)];
	}
	return true;
}

static inline __attribute__((always_inline)) bool
put_blocks(struct cfs_codes_put *p, unsigned bits, const uint8_t *src,
	   size_t at, size_t len)
{
	uint8_t last[BLOCK];

	for (; len - at >= BLOCK; at += BLOCK)
		if (!put_block(p, bits, src + at, at, BLOCK))
			return false;
	if (at == len)
		return true;
	memset(last, src[at], sizeof(last));
	memcpy(last, src + at, len - at);
	return put_block(p, bits, last, at, len - at);
}

static bool put_all(struct cfs_codes_put *p, unsigned bits, const uint8_t *src,
		    size_t len)
{
	size_t at = 0;

#ifdef CFS_CODES_X86
	if (cfs_codes_x86_has()) {
		at = len / BLOCK * BLOCK;
		if (!cfs_codes_x86_put(p, bits, src, at))
			return false;
	}
#endif
	switch (bits) {
	case 1:
		return put_blocks(p, 1, src, at, len);
	case 2:
		return put_blocks(p, 2, src, at, len);
	case 3:
		return put_blocks(p, 3, src, at, len);
	default:
		return put_blocks(p, CFS_CODES_BITS, src, at, len);
	}
}

size_t cfs_codes_put(const struct cfs_codebook *book, const uint8_t *src,
		     size_t len, uint8_t *dst, size_t room)
{
	struct cfs_codes_put p = {.values = book->values,
				  .plane = plane_bytes(len)};
	unsigned n = values_of(book->bits);
	size_t fixed = 1 + n + book->bits * p.plane;

	if (!book->bits || !len || fixed > room)
		return 0;
	dst[0] = (uint8_t)book->bits;
	memcpy(dst + 1, book->values, n);
	p.planes = dst + 1 + n;
	p.escaped = dst + fixed;
	p.end = dst + room;
	return put_all(&p, book->bits, src, len) ? (size_t)(p.escaped - dst)
						 : 0;
}

/* ---- and back ---- */

/* The lowest 16 bits of @word as bytes, 0 or 0xff. */
static inline void spread(uint64_t word, uint8_t *out)
{
#ifdef __SSE2__
	const __m128i place = _mm_set1_epi64x((int64_t)SPREAD);
	__m128i v = _mm_cvtsi32_si128((int)(word & 0xffff));

	v = _mm_unpacklo_epi8(v, v);
	v = _mm_shufflelo_epi16(v, 0x50);
	v = _mm_unpacklo_epi32(v, v); /* each byte eight times */
	v = _mm_cmpeq_epi8(_mm_and_si128(v, place), place);
	memcpy(out, &v, sizeof(v));
#else
	uint64_t eight;
	unsigned i;

	for (i = 0; i < 16; i += GROUP) {
		eight = ((word >> i & 0xff) * LOW) & SPREAD;
		eight = ((eight + ~HIGH) & HIGH) >> 7;
		cfs_put_le64(out + i, eight * 0xff);
	}
#endif
}

/* Halves the values that each byte can still have, bit by bit. */
static inline __attribute__((always_inline)) void
choose(const uint8_t *values, unsigned bits,
       uint8_t masks[CFS_CODES_BITS][BLOCK], uint8_t *dst)
{
	const unsigned half = 1u << (bits - 1);
	uint8_t left[1u << (CFS_CODES_BITS - 1)][BLOCK];
	unsigned i, k, b, n;

	for (k = 0; k < half; k++) {
		uint8_t zero = values[2 * k];
		uint8_t change = zero ^ values[2 * k + 1];

		for (i = 0; i < BLOCK; i++)
			left[k][i] = zero ^ (change & masks[0][i]);
	}
	for (b = 1, n = half / 2; n; b++, n /= 2)
		for (k = 0; k < n; k++)
			for (i = 0; i < BLOCK; i++)
				left[k][i] =
					left[2 * k][i] ^
					((left[2 * k][i] ^ left[2 * k + 1][i]) &
					 masks[b][i]);
	memcpy(dst, left[0], BLOCK);
}

static inline __attribute__((always_inline)) bool
get_block(struct cfs_codes_get *g, unsigned bits, uint8_t *dst, size_t at,
	  size_t n)
{
	uint64_t word, mask = ~0ull >> (BLOCK - n);
	uint8_t masks[CFS_CODES_BITS][BLOCK];
	unsigned b, i;

	for (b = 0; b < bits; b++) {
		word = 0;
		memcpy(&word, g->planes + b * g->plane + at / 8,
		       plane_bytes(n));
		word = le64toh(word);
		mask &= word;
		for (i = 0; i < BLOCK; i += 16)
			spread(word >> i, masks[b] + i);
	}
	choose(g->values, bits, masks, dst);
	for (; mask; mask &= mask - 1) {
		if (g->escaped == g->end)
			return false;
		dst[__builtin_ctzll(mask)] = *g->escaped++;
	}
	return true;
}

static inline __attribute__((always_inline)) bool
get_blocks(struct cfs_codes_get *g, unsigned bits, uint8_t *dst, size_t at,
	   size_t n)
{
	uint8_t last[BLOCK];

	for (; n - at >= BLOCK; at += BLOCK)
		if (!get_block(g, bits, dst + at, at, BLOCK))
			return false;
	if (at == n)
		return true;
	if (!get_block(g, bits, last, at, n - at))
		return false;
	memcpy(dst + at, last, n - at);
	return true;
}

static bool get_all(struct cfs_codes_get *g, unsigned bits, uint8_t *dst,
		    size_t n)
{
	size_t at = 0;

#ifdef CFS_CODES_X86
	if (cfs_codes_x86_has()) {
		at = n / BLOCK * BLOCK;
		if (!cfs_codes_x86_get(g, bits, dst, at))
			return false;
	}
#endif
	switch (bits) {
	case 1:
		return get_blocks(g, 1, dst, at, n);
	case 2:
		return get_blocks(g, 2, dst, at, n);
	case 3:
		return get_blocks(g, 3, dst, at, n);
	default:
		return get_blocks(g, CFS_CODES_BITS, dst, at, n);
	}
}

int cfs_codes_get(const uint8_t *src, size_t len, uint8_t *dst, size_t n)
{
	struct cfs_codes_get g = {.plane = plane_bytes(n)};
	unsigned bits;
	size_t fixed;

	if (!len || !src[0] || src[0] > CFS_CODES_BITS)
		return -EBADMSG;
	bits = src[0];
	fixed = 1 + values_of(bits) + bits * g.plane;
	if (len < fixed)
		return -EBADMSG;
	memcpy(g.values, src + 1, values_of(bits));
	g.planes = src + 1 + values_of(bits);
	g.escaped = src + fixed;
	g.end = src + len;
	return get_all(&g, bits, dst, n) && g.escaped == g.end ? 0 : -EBADMSG;
}
