/* SHA-256 (OpenSSL): the name of a chunk; equal digests mean equal bytes. */
#ifndef CFS_UTIL_DIGEST_H
#define CFS_UTIL_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

#define CFS_DIGEST_BYTES 32
#define CFS_DIGEST_HEX	 65 /* with its NUL */

struct cfs_digest {
	uint8_t bytes[CFS_DIGEST_BYTES];
};

/* Any thread; never fails (aborts where OpenSSL has no SHA-256). */
void cfs_digest_of(const void *data, size_t len, struct cfs_digest *out);
/* Two texts at once: on some processors in little more time than one. */
void cfs_digest_pair(const void *const data[2], const size_t len[2],
		     struct cfs_digest *const out[2]);
int cfs_digest_cmp(const struct cfs_digest *a, const struct cfs_digest *b);
/* Lower-case hex into @buf (CFS_DIGEST_HEX bytes); returns @buf. */
const char *cfs_digest_hex(const struct cfs_digest *digest, char *buf);
/* Parses 64 hex digits; -EINVAL. */
CFS_MUST_CHECK int cfs_digest_parse(const char *hex, struct cfs_digest *out);

/* Piece by piece; the same answer as cfs_digest_of() of the whole. */
struct cfs_digester;
struct cfs_digester *cfs_digester_new(void); /* NULL: no memory */
void cfs_digester_free(struct cfs_digester *digester);
void cfs_digester_add(struct cfs_digester *digester, const void *data,
		      size_t len);
void cfs_digester_end(struct cfs_digester *digester, struct cfs_digest *out);

#endif
