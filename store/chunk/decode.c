/*
 * Frames back to bytes.  What decoding needs is kept: a context of zstd is
 * larger than a frame, and random reads decode one frame each.
 */
#include <errno.h>
#include <string.h>
#include <zstd.h>

#include "store/chunk/chunk_internal.h"
#include "store/chunk/codes.h"
#include "store/util/spares.h"

struct decoder {
	void *next; /* of spares */
	ZSTD_DCtx *ctx;
	uint8_t planes[CFS_FRAME_BYTES];
};

static struct cfs_spares decoders = CFS_SPARES_INIT;

/* NULL: no memory. */
static struct decoder *take_decoder(void)
{
	_cleanup_(cfs_freep) struct decoder *d = cfs_spares_take(&decoders);

	if (d)
		return cfs_steal(d);
	d = malloc(sizeof(*d));
	if (!d)
		return NULL;
	d->ctx = ZSTD_createDCtx();
	return d->ctx ? cfs_steal(d) : NULL;
}

/* One zstd frame, whole, to exactly @n bytes. */
static int unzstd(struct decoder *d, const uint8_t *src, size_t len,
		  uint8_t *dst, size_t n)
{
	return ZSTD_decompressDCtx(d->ctx, dst, n, src, len) == n ? 0
								  : -EBADMSG;
}

static int unpack(struct decoder *d, uint8_t how, const uint8_t *src,
		  size_t len, uint8_t *dst, size_t n)
{
	switch (how) {
	case CFS_PLANE_ZSTD:
		return unzstd(d, src, len, dst, n);
	case CFS_PLANE_CODES:
		return cfs_codes_get(src, len, dst, n);
	default:
		return -EBADMSG;
	}
}

/* Where the planes lie: in the frame, or unpacked in the decoder. */
static int get_planes(struct decoder *d, unsigned e, size_t n,
		      const uint8_t *src, size_t len, const uint8_t **planes)
{
	size_t off = e * sizeof(struct cfs_disk_plane);
	struct cfs_disk_plane dp;
	uint32_t plen;
	unsigned k;

	if (len < off)
		return -EBADMSG;
	for (k = 0; k < e; k++) {
		memcpy(&dp, src + k * sizeof(dp), sizeof(dp));
		plen = cfs_get_le32(dp.len);
		if (plen > len - off)
			return -EBADMSG;
		planes[k] = src + off;
		off += plen;
		if (dp.how == CFS_PLANE_RAW) {
			if (plen != n)
				return -EBADMSG;
			continue;
		}
		if (unpack(d, dp.how, planes[k], plen, d->planes + k * n, n) <
		    0)
			return -EBADMSG;
		planes[k] = d->planes + k * n;
	}
	planes[e] = src + off; /* the rest */
	return (int)(len - off);
}

static int unplanes(struct decoder *d, unsigned e, const uint8_t *src,
		    size_t len, uint8_t *dst, size_t raw_len)
{
	const uint8_t *planes[CFS_PLANES_MAX + 1];
	size_t n = raw_len / e;
	int rest;

	rest = get_planes(d, e, n, src, len, planes);
	if (rest < 0 || (size_t)rest != raw_len % e)
		return -EBADMSG;
	cfs_planes_join(planes, n, e, dst);
	memcpy(dst + n * e, planes[e], (size_t)rest);
	return 0;
}

int cfs_frame_decode(const struct cfs_chunk_head *head, uint32_t index,
		     const void *stored, void *out)
{
	uint32_t raw_len = cfs_frame_raw_len(head, index);
	uint32_t len = head->frames[index].len;
	struct decoder *d;
	int r;

	if (len == raw_len) {
		memcpy(out, stored, len);
		return cfs_frame_check(head, index, out);
	}
	d = take_decoder();
	if (!d)
		return -ENOMEM;
	if (head->codec == CFS_CODEC_ZSTD)
		r = unzstd(d, stored, len, out, raw_len);
	else if (head->codec == CFS_CODEC_PLANES)
		r = unplanes(d, head->elem_size, stored, len, out, raw_len);
	else
		r = -EBADMSG;
	cfs_spares_put(&decoders, d);
	return r < 0 ? r : cfs_frame_check(head, index, out);
}
