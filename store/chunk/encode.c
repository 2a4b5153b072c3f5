/*
 * Bytes to a stored chunk.  A sample (a little of every frame) is really
 * encoded in each way that comes into question; the way that won is used for
 * all frames, and a frame or plane that does not shrink by it stays raw.
 * Nothing but the bytes decides, so equal bytes are stored equally.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "store/chunk/chunk_internal.h"
#include "store/chunk/squeeze.h"
#include "store/util/buf.h"
#include "store/util/hash.h"

#define SLICE_BYTES  1024u /* of each frame, for the sample */
#define SAMPLE_BYTES (CFS_FRAMES_MAX * SLICE_BYTES)

/* A frame under construction is longer than its bytes by this at most. */
#define FRAME_SLACK (CFS_PLANES_MAX * (uint32_t)sizeof(struct cfs_disk_plane))

struct cfs_encoder {
	struct cfs_squeeze *squeeze;
	uint8_t sample[SAMPLE_BYTES];
	uint8_t packed[CFS_FRAME_BYTES / 2]; /* one plane */
	uint8_t trial[SAMPLE_BYTES + FRAME_SLACK];
};

/* How the frames of one chunk are made shorter; raw: not at all. */
struct way {
	enum cfs_codec codec;
	unsigned elem_size;
	enum cfs_squeeze_way how; /* planes */
};

struct cfs_encoder *cfs_encoder_new(void)
{
	_cleanup_(cfs_encoder_freep) struct cfs_encoder *e = NULL;

	e = malloc(sizeof(*e));
	if (!e)
		return NULL;
	e->squeeze = cfs_squeeze_new();
	return e->squeeze ? cfs_steal(e) : NULL;
}

void cfs_encoder_free(struct cfs_encoder *encoder)
{
	if (!encoder)
		return;
	cfs_squeeze_free(encoder->squeeze);
	free(encoder);
}

void cfs_encoder_freep(struct cfs_encoder **encoder)
{
	cfs_encoder_free(*encoder);
}

size_t cfs_chunk_bound(size_t len)
{
	return cfs_head_len(cfs_frames_of(len), 0) + len;
}

/* All @len (not 0) bytes the same? */
static bool is_constant(const uint8_t *p, size_t len)
{
	return memcmp(p, p + 1, len - 1) == 0;
}

/*
 * The planes form of a frame to @dst; 0 where it does not get shorter than the
 * frame.  The planes are split to where they belong if all stay raw, and the
 * exponent comes last in an element: most are never moved again.
 */
static size_t encode_planes(struct cfs_encoder *e, struct way way,
			    const uint8_t *raw, size_t len, uint8_t *dst)
{
	const unsigned elem_size = way.elem_size;
	size_t n = len / elem_size, rest = len - n * elem_size, got;
	size_t off = elem_size * sizeof(struct cfs_disk_plane);
	const uint8_t *plane = dst + off;
	struct cfs_disk_plane dp;
	enum cfs_plane_how how;
	unsigned k;

	cfs_planes_split(raw, n, elem_size, dst + off);
	for (k = 0; k < elem_size; k++, plane += n) {
		got = cfs_squeeze_plane(e->squeeze, way.how, plane, n,
					e->packed, sizeof(e->packed), &how);
		dp.how = (uint8_t)(got ? how : CFS_PLANE_RAW);
		if (got)
			memcpy(dst + off, e->packed, got);
		else if (plane != dst + off)
			memmove(dst + off, plane, n);
		off += got ? got : n;
		cfs_put_le32(dp.len, (uint32_t)(got ? got : n));
		memcpy(dst + k * sizeof(dp), &dp, sizeof(dp));
	}
	if (off + rest >= len)
		return 0;
	memcpy(dst + off, raw + n * elem_size, rest);
	return off + rest;
}

/* The frame's shorter form to @dst (@len + FRAME_SLACK bytes); 0: none. */
static size_t shorten_frame(struct cfs_encoder *e, struct way way,
			    const uint8_t *raw, size_t len, uint8_t *dst)
{
	if (way.codec == CFS_CODEC_ZSTD)
		return cfs_squeeze_text(e->squeeze, raw, len, dst, len - 1);
	return encode_planes(e, way, raw, len, dst);
}

/*
 * A slice from the middle of each frame, constant frames left out: they are
 * nothing in any way but raw, and would hide which way the others need.
 */
static size_t take_sample(struct cfs_encoder *e, const uint8_t *raw, size_t len)
{
	uint32_t i, n = cfs_frames_of(len);
	size_t flen, slice, off, got = 0;

	for (i = 0; i < n; i++) {
		flen = cfs_frame_bytes(len, i);
		slice = CFS_MIN(flen, (size_t)SLICE_BYTES);
		/* by whole elements, whatever their size */
		off = (size_t)i * CFS_FRAME_BYTES +
		      (flen - slice) / 2 / CFS_PLANES_MAX * CFS_PLANES_MAX;
		if (is_constant(raw + off, slice))
			continue;
		memcpy(e->sample + got, raw + off, slice);
		got += slice;
	}
	return got;
}

/* Where the sample shrinks by less than 1/64 the chunk is not worth it. */
static bool worth(size_t stored, size_t len)
{
	return stored && stored <= len - (len + 63) / 64;
}

/* Tries @way on the sample of @n bytes: does it beat @best by @margin? */
static void try_way(struct cfs_encoder *e, size_t n, struct way way,
		    size_t margin, struct way *best, size_t *best_len)
{
	size_t got = shorten_frame(e, way, e->sample, n, e->trial);

	if (!worth(got, n) || got + margin >= *best_len)
		return;
	*best = way;
	*best_len = got;
}

/*
 * Entropy alone is many times faster than looking for matches, there and back;
 * so matches are for what shrinks by a 16th more with them.  Where they are
 * not, codes stand in for entropy if they nearly do: they are faster still.
 */
static struct way choose(struct cfs_encoder *e, const uint8_t *raw, size_t len,
			 unsigned elem_size)
{
	struct way best = {CFS_CODEC_RAW, elem_size, CFS_SQUEEZE_ENTROPY};
	struct way text = {CFS_CODEC_ZSTD, elem_size, CFS_SQUEEZE_MATCHES};
	size_t n = take_sample(e, raw, len), best_len = n;
	unsigned s;

	if (!n)
		return text; /* constant as far as we see */
	for (s = 2; s <= CFS_PLANES_MAX; s *= 2)
		if (!elem_size || s == elem_size)
			try_way(e, n,
				(struct way){CFS_CODEC_PLANES, s,
					     CFS_SQUEEZE_ENTROPY},
				0, &best, &best_len);
	if (best.codec == CFS_CODEC_PLANES && best_len < n / 4 * 3)
		try_way(e, n,
			(struct way){CFS_CODEC_PLANES, best.elem_size,
				     CFS_SQUEEZE_MATCHES},
			best_len / 16, &best, &best_len);
	try_way(e, n, text, best_len / 16, &best, &best_len);
	if (best.how == CFS_SQUEEZE_ENTROPY)
		best.how = CFS_SQUEEZE_QUICK;
	return best;
}

/* Frames and their heads behind the head at @p; returns the stored length. */
static size_t put_frames(struct cfs_encoder *e, struct way way,
			 const uint8_t *raw, size_t len, uint8_t *p)
{
	uint32_t i, n = cfs_frames_of(len);
	size_t off = cfs_head_len(n, 0), flen, got;

	for (i = 0; i < n; i++, raw += CFS_FRAME_BYTES) {
		flen = cfs_frame_bytes(len, i);
		cfs_head_put_hash(p, i, cfs_hash64(raw, flen, 0));
		got = 0;
		if (way.codec != CFS_CODEC_RAW)
			got = shorten_frame(e, way, raw, flen, p + off);
		if (!got) {
			memcpy(p + off, raw, flen);
			got = flen;
		}
		cfs_head_put_len(p, i, (uint32_t)got);
		off += got;
	}
	return off;
}

/* The hashes are there already; the lengths and bytes are another codec's. */
static void make_raw(const uint8_t *raw, size_t len, uint8_t *p)
{
	uint32_t i, n = cfs_frames_of(len);

	for (i = 0; i < n; i++)
		cfs_head_put_len(p, i, cfs_frame_bytes(len, i));
	memcpy(p + cfs_head_len(n, 0), raw, len);
}

int cfs_chunk_encode(struct cfs_encoder *encoder, const void *data, size_t len,
		     unsigned elem_size, struct cfs_buf *out)
{
	size_t stored;
	struct way way;
	uint8_t *p;

	if (!len || len > CFS_CHUNK_BYTES_MAX)
		return -EINVAL;
	if (elem_size > CFS_PLANES_MAX || (elem_size & (elem_size - 1)))
		elem_size = 0;
	p = cfs_buf_room(out, cfs_chunk_bound(len) + FRAME_SLACK);
	if (!p)
		return -ENOMEM;
	way = choose(encoder, data, len, elem_size);
	stored = put_frames(encoder, way, data, len, p);
	if (way.codec != CFS_CODEC_RAW &&
	    !worth(stored - cfs_head_len(cfs_frames_of(len), 0), len)) {
		way = (struct way){CFS_CODEC_RAW, elem_size,
				   CFS_SQUEEZE_ENTROPY};
		make_raw(data, len, p);
		stored = cfs_chunk_bound(len);
	}
	cfs_head_put(p, way.codec, way.elem_size, len);
	out->len += stored;
	return 0;
}
