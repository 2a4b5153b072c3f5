/*
 * Chunks as they are stored: a head, then frames that decode one by one
 * (store/FORMAT.md, "Chunk").  Pure functions, no I/O.
 */
#ifndef CFS_CHUNK_CHUNK_H
#define CFS_CHUNK_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#include "store/map/dtype.h"
#include "store/util/base.h"
#include "store/util/digest.h"

struct cfs_buf;

#define CFS_FRAME_BYTES	    (128u << 10) /* uncompressed; the last is shorter */
#define CFS_CHUNK_BYTES	    (1u << 20)	 /* what cutting aims at */
#define CFS_CHUNK_BYTES_MAX (4u << 20)

enum cfs_codec {
	CFS_CODEC_RAW = 1,
	CFS_CODEC_ZSTD = 2,
	CFS_CODEC_PLANES = 3,  /* one stream per byte of the element */
	CFS_CODEC_DERIVED = 4, /* elements of other chunks, cast */
};

/* What one thread needs to encode; not shared between threads. */
struct cfs_encoder;
struct cfs_encoder *cfs_encoder_new(void); /* NULL: no memory */
void cfs_encoder_free(struct cfs_encoder *encoder);
void cfs_encoder_freep(struct cfs_encoder **encoder);

/**
 * cfs_chunk_encode - append the stored form of one chunk to @out
 * @elem_size: bytes of an element if known (1, 2, 4, 8), else 0
 *
 * Chooses the codec by sampling; what does not shrink by 1/64 at least stays
 * raw.  The same bytes and @elem_size give the same stored bytes.  The stored
 * form is never longer than cfs_chunk_bound(@len).
 * Returns 0, -EINVAL (0 or more than CFS_CHUNK_BYTES_MAX bytes) or -ENOMEM.
 */
CFS_MUST_CHECK int cfs_chunk_encode(struct cfs_encoder *encoder,
				    const void *data, size_t len,
				    unsigned elem_size, struct cfs_buf *out);
size_t cfs_chunk_bound(size_t len);

/*
 * A derived chunk: the bytes of @parts, one after the other, read as @from
 * elements and cast to @to (cfs_dtype_cast).  Parts are never derived.
 */
struct cfs_chunk_part {
	struct cfs_digest digest; /* of the chunk read from */
	uint32_t off, len;	  /* in it; whole @from elements */
};
/* @data is what it must give (hashes of its frames are kept).  0, -EINVAL,
 * -ENOMEM. */
CFS_MUST_CHECK int
cfs_chunk_encode_derived(const void *data, size_t len, enum cfs_dtype from,
			 enum cfs_dtype to, const struct cfs_chunk_part *parts,
			 uint32_t n_parts, struct cfs_buf *out);

struct cfs_frame {
	uint32_t off, len; /* stored bytes, from the start of the stored chunk;
			      0, 0 in a derived chunk */
	uint64_t hash;	   /* XXH3 of the uncompressed bytes */
};

struct cfs_chunk_head { /* one allocation; free() it */
	enum cfs_codec codec;
	unsigned elem_size;
	uint32_t raw_len, stored_len; /* stored: head and frames */
	enum cfs_dtype from, to;      /* derived only */
	uint32_t n_parts;
	struct cfs_chunk_part *parts; /* derived only */
	uint32_t n_frames;
	struct cfs_frame frames[];
};

/* No head is longer; the start of a stored chunk that parse needs. */
#define CFS_CHUNK_HEAD_MAX (32u << 10)
/*
 * @data: the first @len bytes of a stored chunk of @stored_len bytes; @len is
 * the smaller of that and CFS_CHUNK_HEAD_MAX at least.  -EBADMSG for anything
 * odd, -EPROTONOSUPPORT for a codec it does not know, -ENOMEM.
 */
CFS_MUST_CHECK int cfs_chunk_head_parse(const void *data, size_t len,
					size_t stored_len,
					struct cfs_chunk_head **head_out);
/* Uncompressed length of frame @index. */
uint32_t cfs_frame_raw_len(const struct cfs_chunk_head *head, uint32_t index);
/*
 * Decodes frame @index of a chunk that is not derived: @stored are its
 * frames[index].len bytes, @out has room for cfs_frame_raw_len().  Checks the
 * hash.  0, -EBADMSG, -ENOMEM.  Any thread.
 */
CFS_MUST_CHECK int cfs_frame_decode(const struct cfs_chunk_head *head,
				    uint32_t index, const void *stored,
				    void *out);
/* Do these uncompressed bytes have the hash of frame @index?  0, -EBADMSG. */
CFS_MUST_CHECK int cfs_frame_check(const struct cfs_chunk_head *head,
				   uint32_t index, const void *raw);

#endif
