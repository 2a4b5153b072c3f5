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

struct cfs_encoder {
	struct cfs_squeeze *squeeze;
	uint8_t sample[SAMPLE_BYTES];
	uint8_t planes[CFS_FRAME_BYTES];
	uint8_t out[CFS_FRAME_BYTES];
};

/* How the frames of one chunk are encoded. */
struct way {
	enum cfs_codec codec;
	unsigned elem_size;
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
 * The planes form of a frame into e->out; 0 where it does not get shorter than
 * the frame.
 */
static size_t encode_planes(struct cfs_encoder *e, const uint8_t *raw,
			    size_t len, unsigned elem_size)
{
	size_t n = len / elem_size, rest = len - n * elem_size;
	size_t off = elem_size * sizeof(struct cfs_disk_plane);
	struct cfs_disk_plane dp;
	const uint8_t *plane;
	size_t got;
	unsigned k;

	cfs_planes_split(raw, n, elem_size, e->planes);
	for (k = 0; k < elem_size; k++) {
		plane = e->planes + k * n;
		if (off + rest >= len)
			return 0;
		got = cfs_squeeze_plane(e->squeeze, plane, n, e->out + off,
					len - off);
		dp.how = got ? CFS_PLANE_ZSTD : CFS_PLANE_RAW;
		if (!got) {
			got = n;
			if (got >= len - off)
				return 0;
			memcpy(e->out + off, plane, n);
		}
		cfs_put_le32(dp.len, (uint32_t)got);
		memcpy(e->out + k * sizeof(dp), &dp, sizeof(dp));
		off += got;
	}
	if (off + rest >= len)
		return 0;
	memcpy(e->out + off, raw + n * elem_size, rest);
	return off + rest;
}

/* The frame's stored form into e->out; 0: it stays raw. */
static size_t encode_frame(struct cfs_encoder *e, struct way way,
			   const uint8_t *raw, size_t len)
{
	if (way.codec == CFS_CODEC_ZSTD)
		return cfs_squeeze_text(e->squeeze, raw, len, e->out, len - 1);
	if (way.codec == CFS_CODEC_PLANES)
		return encode_planes(e, raw, len, way.elem_size);
	return 0;
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

static struct way choose(struct cfs_encoder *e, const uint8_t *raw, size_t len,
			 unsigned elem_size)
{
	struct way best = {CFS_CODEC_RAW, elem_size}, way;
	size_t n = take_sample(e, raw, len), best_len, got;
	unsigned s;

	best.codec = CFS_CODEC_ZSTD;
	if (!n)
		return best; /* constant as far as we see */
	got = cfs_squeeze_text(e->squeeze, e->sample, n, e->out, n - 1);
	best_len = got ? got : n;
	if (!worth(best_len, n))
		best.codec = CFS_CODEC_RAW;
	for (s = 2; s <= CFS_PLANES_MAX; s *= 2) {
		if (elem_size && s != elem_size)
			continue;
		way = (struct way){CFS_CODEC_PLANES, s};
		got = encode_frame(e, way, e->sample, n);
		/* a tie goes to zstd: one stream is simpler to read */
		if (!worth(got, n) || got >= best_len)
			continue;
		best = way;
		best_len = got;
	}
	return best;
}

static int put_raw(struct cfs_buf *out, uint8_t *head, const uint8_t *raw,
		   size_t len, unsigned elem_size)
{
	uint32_t i, n = cfs_frames_of(len);

	/* the hashes are there already, the lengths are of another codec */
	cfs_head_put(head, CFS_CODEC_RAW, elem_size, len);
	for (i = 0; i < n; i++)
		cfs_put_le32(head + cfs_head_len(i, 0),
			     cfs_frame_bytes(len, i));
	cfs_buf_put(out, head, cfs_head_len(n, 0));
	cfs_buf_put(out, raw, len);
	return out->failed ? -ENOMEM : 0;
}

int cfs_chunk_encode(struct cfs_encoder *encoder, const void *data, size_t len,
		     unsigned elem_size, struct cfs_buf *out)
{
	uint8_t head[sizeof(struct cfs_disk_head) +
		     CFS_FRAMES_MAX * sizeof(struct cfs_disk_frame)];
	size_t flen, got, start = out->len;
	uint32_t i, n = cfs_frames_of(len);
	const uint8_t *raw = data, *frame;
	struct way way;

	if (!len || len > CFS_CHUNK_BYTES_MAX)
		return -EINVAL;
	if (elem_size > CFS_PLANES_MAX || (elem_size & (elem_size - 1)))
		elem_size = 0;
	way = choose(encoder, raw, len, elem_size);
	cfs_head_put(head, way.codec, way.elem_size, len);
	cfs_buf_put(out, head, cfs_head_len(n, 0));
	for (i = 0; i < n; i++) {
		frame = raw + (size_t)i * CFS_FRAME_BYTES;
		flen = cfs_frame_bytes(len, i);
		got = encode_frame(encoder, way, frame, flen);
		cfs_head_put_frame(head, i, (uint32_t)(got ? got : flen),
				   cfs_hash64(frame, flen, 0));
		if (way.codec != CFS_CODEC_RAW)
			cfs_buf_put(out, got ? encoder->out : frame,
				    got ? got : flen);
	}
	if (out->failed)
		return -ENOMEM;
	got = out->len - start - cfs_head_len(n, 0);
	if (way.codec == CFS_CODEC_RAW || !worth(got, len)) {
		out->len = start;
		return put_raw(out, head, raw, len, elem_size);
	}
	memcpy(out->data + start, head, cfs_head_len(n, 0));
	return 0;
}
