/* What the files of this directory share about a stored chunk's bytes. */
#ifndef CFS_CHUNK_INTERNAL_H
#define CFS_CHUNK_INTERNAL_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "store/chunk/chunk.h"
#include "store/util/base.h"
#include "store/util/digest.h"
#include "store/util/endian.h"

#define CFS_FRAMES_MAX (CFS_CHUNK_BYTES_MAX / CFS_FRAME_BYTES)
#define CFS_PLANES_MAX 8u

struct cfs_disk_head { /* store/FORMAT.md, "Chunk" */
	uint8_t codec, elem_size, from, to;
	uint8_t raw_len[4], n_parts[4];
};
static_assert(sizeof(struct cfs_disk_head) == 12, "on-disk size");

struct cfs_disk_frame {
	uint8_t len[4], hash[8];
};
static_assert(sizeof(struct cfs_disk_frame) == 12, "on-disk size");

struct cfs_disk_part {
	struct cfs_digest digest;
	uint8_t off[4], len[4];
};
static_assert(sizeof(struct cfs_disk_part) == 40, "on-disk size");

struct cfs_disk_plane { /* in front of a planes frame, once per plane */
	uint8_t how, len[4];
};
static_assert(sizeof(struct cfs_disk_plane) == 5, "on-disk size");

enum cfs_plane_how {
	CFS_PLANE_RAW = 0,
	CFS_PLANE_ZSTD = 1,
	CFS_PLANE_CODES = 2,
};

static inline uint32_t cfs_frames_of(size_t raw_len)
{
	return (uint32_t)((raw_len + CFS_FRAME_BYTES - 1) / CFS_FRAME_BYTES);
}

/* Bytes of frame @index when the chunk has @raw_len. */
static inline uint32_t cfs_frame_bytes(size_t raw_len, uint32_t index)
{
	size_t off = (size_t)index * CFS_FRAME_BYTES;

	return (uint32_t)CFS_MIN(raw_len - off, (size_t)CFS_FRAME_BYTES);
}

/* The head but for its frames, at @p. */
static inline void cfs_head_put(uint8_t *p, enum cfs_codec codec,
				unsigned elem_size, size_t raw_len)
{
	struct cfs_disk_head d = {
		.codec = (uint8_t)codec,
		.elem_size = (uint8_t)elem_size,
	};

	cfs_put_le32(d.raw_len, (uint32_t)raw_len);
	memcpy(p, &d, sizeof(d));
}

static inline uint8_t *cfs_head_frame(uint8_t *p, uint32_t index)
{
	return p + sizeof(struct cfs_disk_head) +
	       index * sizeof(struct cfs_disk_frame);
}

static inline void cfs_head_put_len(uint8_t *p, uint32_t index, uint32_t len)
{
	cfs_put_le32(cfs_head_frame(p, index), len);
}

static inline void cfs_head_put_hash(uint8_t *p, uint32_t index, uint64_t hash)
{
	cfs_put_le64(cfs_head_frame(p, index) +
			     offsetof(struct cfs_disk_frame, hash),
		     hash);
}

static inline size_t cfs_head_len(uint32_t n_frames, uint32_t n_parts)
{
	return sizeof(struct cfs_disk_head) +
	       n_frames * sizeof(struct cfs_disk_frame) +
	       n_parts * sizeof(struct cfs_disk_part);
}

/*
 * @n elements of @elem_size (2, 4 or 8) bytes at @src; byte k of element i goes
 * to dst[k * n + i].
 */
void cfs_planes_split(const uint8_t *src, size_t n, unsigned elem_size,
		      uint8_t *dst);
/* The other way round, from planes that lie anywhere. */
void cfs_planes_join(const uint8_t *const *planes, size_t n, unsigned elem_size,
		     uint8_t *dst);

#endif
