/* Frames of send and receive, to bytes and back. */
#include "fs/daemon/transfer.h"

#include <errno.h>
#include <string.h>

#include "store/chunk/chunk.h"
#include "store/map/source.h"
#include "store/util/endian.h"

#define NODE_FIXED	 54u
#define EXTENT_BYTES	 56u
#define CHUNK_FIXED	 37u
#define CHUNK_RAW	 0u
#define CHUNK_STORED	 1u
#define ELEM_SIZE_LIKELY 4u /* most bytes of a step are fp32 */

static void put_le16(struct cfs_buf *out, size_t v)
{
	uint8_t b[2];

	cfs_put_le16(b, (uint16_t)v);
	cfs_buf_put(out, b, sizeof(b));
}

static void put_time(struct cfs_buf *out, const struct timespec *t)
{
	cfs_buf_put_le64(out, (uint64_t)t->tv_sec);
	cfs_buf_put_le32(out, (uint32_t)t->tv_nsec);
}

void cfs_transfer_put_node(struct cfs_buf *out, const struct stat *st,
			   const char *path, const char *target)
{
	cfs_buf_put_le32(out, st->st_mode);
	cfs_buf_put_le32(out, st->st_uid);
	cfs_buf_put_le32(out, st->st_gid);
	cfs_buf_put_le32(out, (uint32_t)st->st_rdev);
	cfs_buf_put_le64(out, (uint64_t)st->st_size);
	put_time(out, &st->st_atim);
	put_time(out, &st->st_mtim);
	put_le16(out, strlen(path));
	put_le16(out, strlen(target));
	cfs_buf_put_u8(out, 0);
	cfs_buf_put_u8(out, 0);
	cfs_buf_put_str(out, path);
	cfs_buf_put_str(out, target);
}

static int get_time(const uint8_t *p, struct timespec *out)
{
	out->tv_sec = (time_t)cfs_get_le64(p);
	out->tv_nsec = (long)cfs_get_le32(p + 8);
	return out->tv_nsec < 1000000000 ? 0 : -EBADMSG;
}

static int get_text(const uint8_t *p, size_t len, char out[4096])
{
	if (len >= 4096 || memchr(p, 0, len))
		return -EBADMSG;
	memcpy(out, p, len);
	out[len] = '\0';
	return 0;
}

int cfs_transfer_get_node(const void *data, size_t len,
			  struct cfs_transfer_node *out)
{
	const uint8_t *p = data;
	size_t path_len, target_len;
	int r;

	if (len < NODE_FIXED)
		return -EBADMSG;
	out->st = (struct stat){
		.st_mode = cfs_get_le32(p),
		.st_uid = cfs_get_le32(p + 4),
		.st_gid = cfs_get_le32(p + 8),
		.st_rdev = cfs_get_le32(p + 12),
		.st_size = (off_t)cfs_get_le64(p + 16),
	};
	r = get_time(p + 24, &out->st.st_atim);
	if (!r)
		r = get_time(p + 36, &out->st.st_mtim);
	path_len = cfs_get_le16(p + 48);
	target_len = cfs_get_le16(p + 50);
	if (r < 0 || len != NODE_FIXED + path_len + target_len ||
	    out->st.st_size < 0)
		return -EBADMSG;
	r = get_text(p + NODE_FIXED, path_len, out->path);
	if (!r)
		r = get_text(p + NODE_FIXED + path_len, target_len,
			     out->target);
	if (r < 0 || !cfs_source_path_ok(out->path))
		return -EBADMSG;
	return 0;
}

void cfs_transfer_put_extent(struct cfs_buf *out,
			     const struct cfs_extent *extent)
{
	cfs_buf_put_le64(out, extent->off);
	cfs_buf_put_le64(out, extent->len);
	cfs_buf_put(out, extent->digest.bytes, CFS_DIGEST_BYTES);
	cfs_buf_put_le32(out, extent->chunk_off);
	cfs_buf_put_le32(out, extent->chunk_len);
}

int cfs_transfer_get_extents(const void *data, size_t len,
			     struct cfs_extent *out)
{
	size_t n = len / EXTENT_BYTES, i;
	const uint8_t *p = data;

	if (!n || len % EXTENT_BYTES || n > CFS_TRANSFER_EXTENTS_MAX)
		return -EBADMSG;
	for (i = 0; i < n; i++, p += EXTENT_BYTES) {
		struct cfs_extent *e = &out[i];

		e->off = cfs_get_le64(p);
		e->len = cfs_get_le64(p + 8);
		memcpy(e->digest.bytes, p + 16, CFS_DIGEST_BYTES);
		e->chunk_off = cfs_get_le32(p + 48);
		e->chunk_len = cfs_get_le32(p + 52);
		if (!e->len || e->chunk_len > CFS_CHUNK_BYTES_MAX ||
		    e->chunk_off > e->chunk_len ||
		    e->len > e->chunk_len - e->chunk_off ||
		    e->off > INT64_MAX - e->len)
			return -EBADMSG;
		if (i && e->off < out[i - 1].off + out[i - 1].len)
			return -EBADMSG;
	}
	return (int)n;
}

int cfs_transfer_put_chunk(struct cfs_buf *out, struct cfs_encoder *encoder,
			   const struct cfs_digest *digest, const void *data,
			   size_t len)
{
	size_t head = out->len, coded;
	int r;

	cfs_buf_put(out, digest->bytes, CFS_DIGEST_BYTES);
	cfs_buf_put_le32(out, (uint32_t)len);
	cfs_buf_put_u8(out, CHUNK_STORED);
	coded = out->len;
	r = cfs_chunk_encode(encoder, data, len, ELEM_SIZE_LIKELY, out);
	if (r < 0)
		return r;
	if (out->len - coded >= len && !out->failed) {
		out->len = coded;
		out->data[head + CFS_DIGEST_BYTES + 4] = CHUNK_RAW;
		cfs_buf_put(out, data, len);
	}
	return out->failed ? -ENOMEM : 0;
}

static int decode_frames(const struct cfs_chunk_head *head, const uint8_t *p,
			 size_t len, uint8_t *to)
{
	uint32_t i;
	int r = 0;

	for (i = 0; !r && i < head->n_frames; i++) {
		const struct cfs_frame *f = &head->frames[i];

		if (f->off > len || f->len > len - f->off)
			return -EBADMSG;
		r = cfs_frame_decode(head, i, p + f->off, to);
		to += cfs_frame_raw_len(head, i);
	}
	return r;
}

static int decode_stored(const uint8_t *p, size_t len, uint32_t raw_len,
			 struct cfs_buf *out)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	uint8_t *to;
	int r;

	r = cfs_chunk_head_parse(p, len, len, &head);
	if (r < 0)
		return r == -ENOMEM ? r : -EBADMSG;
	if (head->raw_len != raw_len || head->codec == CFS_CODEC_DERIVED)
		return -EBADMSG;
	to = cfs_buf_grow(out, raw_len);
	return to ? decode_frames(head, p, len, to) : -ENOMEM;
}

int cfs_transfer_get_chunk(const void *data, size_t len,
			   struct cfs_digest *digest_out, struct cfs_buf *out)
{
	const uint8_t *p = data;
	struct cfs_digest is;
	uint32_t raw_len;
	int r = 0;

	if (len < CHUNK_FIXED)
		return -EBADMSG;
	raw_len = cfs_get_le32(p + CFS_DIGEST_BYTES);
	if (!raw_len || raw_len > CFS_CHUNK_BYTES_MAX)
		return -EBADMSG;
	cfs_buf_reset(out);
	if (p[36] == CHUNK_STORED)
		r = decode_stored(p + CHUNK_FIXED, len - CHUNK_FIXED, raw_len,
				  out);
	else if (p[36] != CHUNK_RAW || len - CHUNK_FIXED != raw_len)
		r = -EBADMSG;
	else
		cfs_buf_put(out, p + CHUNK_FIXED, raw_len);
	if (r < 0)
		return r;
	if (out->failed)
		return -ENOMEM;
	memcpy(digest_out->bytes, p, CFS_DIGEST_BYTES);
	cfs_digest_of(out->data, out->len, &is);
	return cfs_digest_cmp(&is, digest_out) ? -EBADMSG : 0;
}
