/*
 * SHA-256 of two texts side by side (FIPS 180-4, with the x86 SHA extensions).
 * Each of those instructions waits for the one before it, so one text leaves
 * half of the unit idle; OpenSSL does one at a time.
 */
#include "store/util/digest_x86.h"

#ifdef __x86_64__

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#include "store/util/endian.h"

#define BLOCK	64u
#define SHA	__attribute__((target("sha,sse4.1")))
#define LEAF	7u
#define HAS_SHA (1u << 29) /* EBX of leaf 7 */
#define HAS_SSE (1u << 19) /* ECX of leaf 1: SSE4.1 */

static const uint32_t round_words[64] __attribute__((aligned(16))) = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
	0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
	0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
	0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
	0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
	0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* The eight words a … h as the instructions want them. */
struct state {
	__m128i abef, cdgh;
};

bool cfs_digest_x86_has(void)
{
	unsigned a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & HAS_SSE))
		return false;
	return __get_cpuid_count(LEAF, 0, &a, &b, &c, &d) && (b & HAS_SHA);
}

static void begin(struct state *s)
{
	s->abef = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f,
				(int)0x9b05688c);
	s->cdgh = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab,
				0x5be0cd19);
}

static SHA void load(const uint8_t *p, __m128i m[4])
{
	const __m128i swap =
		_mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
	unsigned i;

	for (i = 0; i < 4; i++) {
		memcpy(&m[i], p + 16 * i, sizeof(m[i]));
		m[i] = _mm_shuffle_epi8(m[i], swap);
	}
}

/* Rounds 4 * @r … 4 * @r + 3, and the words of four rounds 16 later. */
static inline __attribute__((always_inline)) SHA void
four_rounds(struct state *s, __m128i m[4], __m128i k, unsigned r)
{
	__m128i w = _mm_add_epi32(m[r & 3], k);

	s->cdgh = _mm_sha256rnds2_epu32(s->cdgh, s->abef, w);
	s->abef = _mm_sha256rnds2_epu32(s->abef, s->cdgh,
					_mm_shuffle_epi32(w, 0x0e));
	if (r >= 12)
		return;
	w = _mm_sha256msg1_epu32(m[r & 3], m[(r + 1) & 3]);
	w = _mm_add_epi32(w,
			  _mm_alignr_epi8(m[(r + 3) & 3], m[(r + 2) & 3], 4));
	m[r & 3] = _mm_sha256msg2_epu32(w, m[(r + 3) & 3]);
}

static inline __attribute__((always_inline)) SHA void
add(struct state *s, const struct state *to)
{
	s->abef = _mm_add_epi32(s->abef, to->abef);
	s->cdgh = _mm_add_epi32(s->cdgh, to->cdgh);
}

static SHA void blocks(struct state *state, const uint8_t *p, size_t n)
{
	struct state s = *state, was;
	__m128i m[4];
	unsigned r;

	for (; n; n--, p += BLOCK) {
		was = s;
		load(p, m);
#pragma GCC unroll 16
		for (r = 0; r < 16; r++)
			four_rounds(&s, m,
				    _mm_load_si128(
					    (const void *)&round_words[4 * r]),
				    r);
		add(&s, &was);
	}
	*state = s;
}

static SHA void blocks_of_two(struct state state[2], const uint8_t *p,
			      const uint8_t *q, size_t n)
{
	struct state s = state[0], t = state[1], s_was, t_was;
	__m128i m[4], o[4], k;
	unsigned r;

	for (; n; n--, p += BLOCK, q += BLOCK) {
		s_was = s;
		t_was = t;
		load(p, m);
		load(q, o);
#pragma GCC unroll 16
		for (r = 0; r < 16; r++) {
			k = _mm_load_si128((const void *)&round_words[4 * r]);
			four_rounds(&s, m, k, r);
			four_rounds(&t, o, k, r);
		}
		add(&s, &s_was);
		add(&t, &t_was);
	}
	state[0] = s;
	state[1] = t;
}

/* The last block or two: what is left, a one bit, zeros, the length. */
static void end(struct state *s, const uint8_t *p, size_t rest, size_t len,
		struct cfs_digest *out)
{
	uint8_t last[2 * BLOCK] = {0};
	static const uint8_t order[8] = {7, 6, 3, 2, 5, 4, 1, 0};
	size_t n = rest + 9 <= BLOCK ? 1 : 2;
	uint32_t words[8];
	unsigned i;

	if (rest)
		memcpy(last, p, rest);
	last[rest] = 0x80;
	cfs_put_be64(last + n * BLOCK - 8, (uint64_t)len * 8);
	blocks(s, last, n);
	memcpy(words, &s->cdgh, 16);
	memcpy(words + 4, &s->abef, 16);
	for (i = 0; i < 8; i++)
		cfs_put_be32(out->bytes + 4 * order[i], words[i]);
}

void cfs_digest_x86_pair(const void *const data[2], const size_t len[2],
			 struct cfs_digest *const out[2])
{
	size_t both = CFS_MIN(len[0], len[1]) / BLOCK;
	struct state s[2];
	const uint8_t *p;
	size_t rest;
	unsigned i;

	begin(&s[0]);
	begin(&s[1]);
	blocks_of_two(s, data[0], data[1], both);
	for (i = 0; i < 2; i++) {
		p = (const uint8_t *)data[i] + both * BLOCK;
		rest = len[i] - both * BLOCK;
		blocks(&s[i], p, rest / BLOCK);
		end(&s[i], p + rest / BLOCK * BLOCK, rest % BLOCK, len[i],
		    out[i]);
	}
}

#else

bool cfs_digest_x86_has(void)
{
	return false;
}

void cfs_digest_x86_pair(const void *const data[2], const size_t len[2],
			 struct cfs_digest *const out[2])
{
	for (unsigned i = 0; i < 2; i++)
		cfs_digest_of(data[i], len[i], out[i]);
}

#endif
