/* The head of a stored chunk, read; and derived chunks, which are all head. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "store/chunk/chunk_internal.h"
#include "store/util/buf.h"
#include "store/util/checked.h"
#include "store/util/hash.h"

/* Both casts and bytes: do @from elements in @len bytes make @raw_len? */
static bool cast_len_ok(uint64_t len, enum cfs_dtype from, enum cfs_dtype to,
			uint64_t raw_len)
{
	return len / cfs_dtype_size(from) * cfs_dtype_size(to) == raw_len;
}

static bool part_ok(const struct cfs_chunk_part *part, enum cfs_dtype from)
{
	return part->len && part->len % cfs_dtype_size(from) == 0 &&
	       cfs_range_ok(part->off, part->len, CFS_CHUNK_BYTES_MAX);
}

static bool parts_ok(const struct cfs_chunk_part *parts, uint32_t n_parts,
		     enum cfs_dtype from, enum cfs_dtype to, size_t raw_len)
{
	uint64_t sum = 0;
	uint32_t i;

	if (!cfs_dtype_is_float(from) || !cfs_dtype_is_float(to))
		return false;
	for (i = 0; i < n_parts; i++) {
		if (!part_ok(&parts[i], from))
			return false;
		sum += parts[i].len;
	}
	return n_parts && cast_len_ok(sum, from, to, raw_len);
}

int cfs_chunk_encode_derived(const void *data, size_t len, enum cfs_dtype from,
			     enum cfs_dtype to,
			     const struct cfs_chunk_part *parts,
			     uint32_t n_parts, struct cfs_buf *out)
{
	const uint8_t *raw = data;
	struct cfs_disk_part d;
	uint32_t n, i;
	uint8_t *head;
	size_t head_len;

	if (!len || len > CFS_CHUNK_BYTES_MAX ||
	    n_parts > CFS_CHUNK_HEAD_MAX / sizeof(d))
		return -EINVAL;
	n = cfs_frames_of(len);
	head_len = cfs_head_len(n, 0);
	if (cfs_head_len(n, n_parts) > CFS_CHUNK_HEAD_MAX ||
	    !parts_ok(parts, n_parts, from, to, len))
		return -EINVAL;
	head = cfs_buf_grow(out, head_len);
	if (!head)
		return -ENOMEM;
	cfs_head_put(head, CFS_CODEC_DERIVED, 0, len);
	head[offsetof(struct cfs_disk_head, elem_size)] =
		(uint8_t)cfs_dtype_size(to);
	head[offsetof(struct cfs_disk_head, from)] = (uint8_t)from;
	head[offsetof(struct cfs_disk_head, to)] = (uint8_t)to;
	cfs_put_le32(head + offsetof(struct cfs_disk_head, n_parts), n_parts);
	for (i = 0; i < n; i++, raw += CFS_FRAME_BYTES)
		cfs_head_put_hash(head, i,
				  cfs_hash64(raw, cfs_frame_bytes(len, i), 0));
	for (i = 0; i < n_parts; i++) {
		d.digest = parts[i].digest;
		cfs_put_le32(d.off, parts[i].off);
		cfs_put_le32(d.len, parts[i].len);
		cfs_buf_put(out, &d, sizeof(d));
	}
	return out->failed ? -ENOMEM : 0;
}

static int check_disk_head(const struct cfs_disk_head *d)
{
	uint32_t raw_len = cfs_get_le32(d->raw_len);
	unsigned e = d->elem_size;

	if (d->codec < CFS_CODEC_RAW || d->codec > CFS_CODEC_DERIVED)
		return -EPROTONOSUPPORT;
	if (!raw_len || raw_len > CFS_CHUNK_BYTES_MAX)
		return -EBADMSG;
	if (e > CFS_PLANES_MAX || (e & (e - 1)))
		return -EBADMSG;
	if (d->codec == CFS_CODEC_PLANES && e < 2)
		return -EBADMSG;
	if (d->codec == CFS_CODEC_DERIVED)
		return d->from < CFS_N_DTYPES && d->to < CFS_N_DTYPES
			       ? 0
			       : -EBADMSG;
	return d->from || d->to || cfs_get_le32(d->n_parts) ? -EBADMSG : 0;
}

static bool frame_len_ok(const struct cfs_chunk_head *h, uint32_t i)
{
	uint32_t raw = cfs_frame_bytes(h->raw_len, i);

	switch (h->codec) {
	case CFS_CODEC_DERIVED:
		return h->frames[i].len == 0;
	case CFS_CODEC_RAW:
		return h->frames[i].len == raw;
	default:
		return h->frames[i].len && h->frames[i].len <= raw;
	}
}

/* Reads the frames from @p; they and the @head_len bytes must fill the chunk */
static bool read_frames(struct cfs_chunk_head *h, const uint8_t *p,
			size_t head_len)
{
	size_t off = head_len;
	uint32_t i;

	for (i = 0; i < h->n_frames; i++, p += sizeof(struct cfs_disk_frame)) {
		h->frames[i].len = cfs_get_le32(p);
		h->frames[i].hash =
			cfs_get_le64(p + offsetof(struct cfs_disk_frame, hash));
		if (!frame_len_ok(h, i))
			return false;
		h->frames[i].off =
			h->codec == CFS_CODEC_DERIVED ? 0 : (uint32_t)off;
		off += h->frames[i].len;
	}
	return off == h->stored_len;
}

static bool read_parts(struct cfs_chunk_head *h, const uint8_t *p)
{
	struct cfs_disk_part d;
	uint32_t i;

	for (i = 0; i < h->n_parts; i++, p += sizeof(d)) {
		memcpy(&d, p, sizeof(d));
		h->parts[i].digest = d.digest;
		h->parts[i].off = cfs_get_le32(d.off);
		h->parts[i].len = cfs_get_le32(d.len);
	}
	return parts_ok(h->parts, h->n_parts, h->from, h->to, h->raw_len);
}

int cfs_chunk_head_parse(const void *data, size_t len, size_t stored_len,
			 struct cfs_chunk_head **head_out)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *h = NULL;
	const uint8_t *p = data;
	struct cfs_disk_head d;
	uint32_t n_frames, n_parts;
	size_t head_len, size;
	int r;

	if (len < sizeof(d) || len > stored_len || stored_len > UINT32_MAX)
		return -EBADMSG;
	memcpy(&d, p, sizeof(d));
	r = check_disk_head(&d);
	if (r < 0)
		return r;
	n_frames = cfs_frames_of(cfs_get_le32(d.raw_len));
	n_parts = cfs_get_le32(d.n_parts);
	if (n_parts > CFS_CHUNK_HEAD_MAX / sizeof(struct cfs_disk_part))
		return -EBADMSG;
	head_len = cfs_head_len(n_frames, n_parts);
	if (head_len > CFS_CHUNK_HEAD_MAX || head_len > len)
		return -EBADMSG;
	size = sizeof(*h) + n_frames * sizeof(h->frames[0]);
	h = calloc(1, size + n_parts * sizeof(h->parts[0]));
	if (!h)
		return -ENOMEM;
	h->codec = (enum cfs_codec)d.codec;
	h->elem_size = d.elem_size;
	h->raw_len = cfs_get_le32(d.raw_len);
	h->stored_len = (uint32_t)stored_len;
	h->n_frames = n_frames;
	if (!read_frames(h, p + sizeof(d), head_len))
		return -EBADMSG;
	if (d.codec == CFS_CODEC_DERIVED) {
		h->from = (enum cfs_dtype)d.from;
		h->to = (enum cfs_dtype)d.to;
		h->n_parts = n_parts;
		h->parts = (struct cfs_chunk_part *)(void *)((char *)h + size);
		if (!read_parts(h, p + cfs_head_len(n_frames, 0)))
			return -EBADMSG;
	}
	*head_out = cfs_steal(h);
	return 0;
}

uint32_t cfs_frame_raw_len(const struct cfs_chunk_head *head, uint32_t index)
{
	return cfs_frame_bytes(head->raw_len, index);
}

int cfs_frame_check(const struct cfs_chunk_head *head, uint32_t index,
		    const void *raw)
{
	uint32_t len = cfs_frame_bytes(head->raw_len, index);

	return cfs_hash64(raw, len, 0) == head->frames[index].hash ? 0
								   : -EBADMSG;
}
