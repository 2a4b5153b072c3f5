/*
 * zstd behind two calls.  Entropy alone is zstd made to skip so far between
 * looks for a match that it hardly looks at all, with Huffman coding asked for
 * explicitly (fast levels leave it out): the format stays plain zstd.
 */
#define ZSTD_STATIC_LINKING_ONLY /* for literalCompressionMode */
#include "store/chunk/squeeze.h"

#include <stdlib.h>
#include <zstd.h>

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

/*
 * How often do two of the bytes looked at agree?  Noise: 1 in 256.  An eighth
 * more than that is where coding begins to save a 64th.
 */
static bool is_noise(const uint8_t *src, size_t len)
{
	uint32_t count[256] = {0}, i, k, n = LOOKS * LOOK_BYTES;
	uint64_t pairs = 0;
	const uint8_t *p;

	if (len < n)
		return false;
	for (i = 0; i < LOOKS; i++) {
		p = src + (len - LOOK_BYTES) / (LOOKS - 1) * i;
		for (k = 0; k < LOOK_BYTES; k++)
			count[p[k]]++;
	}
	for (i = 0; i < 256; i++)
		pairs += (uint64_t)count[i] * count[i];
	pairs -= n; /* each byte agrees with itself */
	return pairs < (uint64_t)n * n / 256 * 9 / 8;
}

size_t cfs_squeeze_plane(struct cfs_squeeze *squeeze, bool matches,
			 const uint8_t *src, size_t len, uint8_t *dst,
			 size_t room)
{
	size_t got;

	if (!len || is_noise(src, len))
		return 0;
	got = compress(matches ? squeeze->text : squeeze->plane, src, len, dst,
		       room);
	return got <= len - len / 64 ? got : 0;
}
