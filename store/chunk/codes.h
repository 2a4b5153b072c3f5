/*
 * A byte plane in which few values make up nearly all: each of those has a code
 * of 1 to 4 bits, the others stand behind (store/FORMAT.md, "Chunk", codes).
 * Within a tenth of entropy coding for exponents, and several times as fast.
 */
#ifndef CFS_CHUNK_CODES_H
#define CFS_CHUNK_CODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

#define CFS_CODES_BITS 4u

struct cfs_codebook {
	unsigned bits; /* of a code; 0: none is worth it */
	uint8_t values[1u << CFS_CODES_BITS]; /* of the codes but the last */
};

/* The best for bytes of which @n were counted; bits 0 where more than half of
 * the length would remain, or all are the same. */
void cfs_codes_pick(const uint32_t count[256], uint32_t n,
		    struct cfs_codebook *book);
/* @len bytes to at most @room; the length, 0 where it does not fit. */
size_t cfs_codes_put(const struct cfs_codebook *book, const uint8_t *src,
		     size_t len, uint8_t *dst, size_t room);
/* To exactly @n bytes from all of @len; -EBADMSG. */
CFS_MUST_CHECK int cfs_codes_get(const uint8_t *src, size_t len, uint8_t *dst,
				 size_t n);

#endif
