/*
 * zstd, and codes where they are nearly as good.  Entropy alone is zstd made to
 * skip so far between looks for a match that it hardly looks at all, with
 * Huffman coding asked for explicitly (fast levels leave it out): the format
 * stays plain zstd.
 */
#define ZSTD_STATIC_LINKING_ONLY /* for literalCompressionMode */
#include "store/chunk/squeeze.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "store/chunk/codes.h"
#include "store/util/base.h"

#define LOOKS	   16u /* places of a plane that are looked at */
#define LOOK_BYTES 64u

struct cfs_squeeze {
	ZSTD_CCtx *text, *plane;
};

static bool set(ZSTD_CCtx *ctx, ZSTD_cParameter param, int value)
{
	return !ZSTD_isError(ZSTD_CCtx_setParameter(ctx, param, value));
}

static bool setup(struct cfs_squeeze *s)
{
	return set(s->text, ZSTD_c_compressionLevel, 1) &&
	       set(s->plane, ZSTD_c_compressionLevel, 1) &&
	       set(s->plane, ZSTD_c_strategy, ZSTD_fast) &&
	       set(s->plane, ZSTD_c_hashLog, ZSTD_HASHLOG_MIN) &&
	       set(s->plane, ZSTD_c_minMatch, ZSTD_MINMATCH_MAX) &&
	       set(s->plane, ZSTD_c_targetLength, ZSTD_TARGETLENGTH_MAX) &&
	       set(s->plane, ZSTD_c_literalCompressionMode, ZSTD_ps_enable);
}

struct cfs_squeeze *cfs_squeeze_new(void)
{
	struct cfs_squeeze *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->text = ZSTD_createCCtx();
	s->plane = ZSTD_createCCtx();
	if (!s->text || !s->plane || !setup(s)) {
		cfs_squeeze_free(s);
		return NULL;
	}
	return s;
}

void cfs_squeeze_free(struct cfs_squeeze *squeeze)
{
	if (!squeeze)
		return;
	ZSTD_freeCCtx(squeeze->text);
	ZSTD_freeCCtx(squeeze->plane);
	free(squeeze);
}

static size_t compress(ZSTD_CCtx *ctx, const uint8_t *src, size_t len,
		       uint8_t *dst, size_t room)
{
	size_t n = ZSTD_compress2(ctx, dst, room, src, len);

	return ZSTD_isError(n) ? 0 : n;
}

size_t cfs_squeeze_text(struct cfs_squeeze *squeeze, const uint8_t *src,
			size_t len, uint8_t *dst, size_t room)
{
	return compress(squeeze->text, src, len, dst, room);
}

/* Counts some of the bytes, spread over all; how many it looked at, 0 where
 * there are too few. */
static uint32_t look(const uint8_t *src, size_t len, uint32_t count[256])
{
	const uint32_t n = LOOKS * LOOK_BYTES;
	const uint8_t *p;
	uint32_t i, k;

	if (len < n)
		return 0;
	memset(count, 0, 256 * sizeof(*count));
	for (i = 0; i < LOOKS; i++) {
		p = src + (len - LOOK_BYTES) / (LOOKS - 1) * i;
		for (k = 0; k < LOOK_BYTES; k++)
			count[p[k]]++;
	}
	return n;
}

/*
 * How often do two of the bytes looked at agree?  Noise: 1 in 256.  An eighth
 * more than that is where coding begins to save a 64th.
 */
static bool is_noise(const uint32_t count[256], uint32_t n)
{
	uint64_t pairs = 0;
	uint32_t i;

	for (i = 0; i < 256; i++)
		pairs += (uint64_t)count[i] * count[i];
	pairs -= n; /* each byte agrees with itself */
	return pairs < (uint64_t)n * n / 256 * 9 / 8;
}

static size_t put_codes(const uint32_t count[256], uint32_t n,
			const uint8_t *src, size_t len, uint8_t *dst,
			size_t room)
{
	struct cfs_codebook book;

	cfs_codes_pick(count, n, &book);
	return cfs_codes_put(&book, src, len, dst, room);
}

size_t cfs_squeeze_plane(struct cfs_squeeze *squeeze, enum cfs_squeeze_way way,
			 const uint8_t *src, size_t len, uint8_t *dst,
			 size_t room, enum cfs_plane_how *how_out)
{
	uint32_t count[256], n = look(src, len, count);
	size_t got = 0;

	if (!len || (n && is_noise(count, n)))
		return 0;
	*how_out = CFS_PLANE_CODES;
	if (n && way == CFS_SQUEEZE_QUICK)
		got = put_codes(count, n, src, len, dst, room);
	if (!got) {
		*how_out = CFS_PLANE_ZSTD;
		got = compress(way == CFS_SQUEEZE_MATCHES ? squeeze->text
							  : squeeze->plane,
			       src, len, dst, room);
	}
	return got <= len - len / 64 ? got : 0;
}
