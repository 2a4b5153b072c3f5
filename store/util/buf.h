/* A growable byte buffer; also serves as a string under construction. */
#ifndef CFS_UTIL_BUF_H
#define CFS_UTIL_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

/*
 * A failed allocation is remembered in @failed and makes every later append a
 * no-op, so that a run of appends is checked once at its end.
 */
struct cfs_buf {
	uint8_t *data;
	size_t len, cap;
	bool failed;
};

#define CFS_BUF_INIT                                                           \
	{                                                                      \
		NULL, 0, 0, false                                              \
	}

void cfs_buf_free(struct cfs_buf *buf);	 /* for _cleanup_ too; reusable after */
void cfs_buf_reset(struct cfs_buf *buf); /* empties, keeps the memory */
void cfs_buf_put(struct cfs_buf *buf, const void *data, size_t len);
void cfs_buf_put_u8(struct cfs_buf *buf, uint8_t v);
void cfs_buf_put_le32(struct cfs_buf *buf, uint32_t v);
void cfs_buf_put_le64(struct cfs_buf *buf, uint64_t v);
void cfs_buf_put_str(struct cfs_buf *buf, const char *s);
void cfs_buf_printf(struct cfs_buf *buf, const char *fmt, ...) CFS_PRINTF(2, 3);

/* @len fresh zero bytes at the end, or NULL; valid until the next append. */
CFS_MUST_CHECK uint8_t *cfs_buf_grow(struct cfs_buf *buf, size_t len);

/*
 * At least @len bytes behind the content to write into, or NULL; what was
 * written counts once it was added to @len of @buf.  Valid as above.
 */
CFS_MUST_CHECK uint8_t *cfs_buf_room(struct cfs_buf *buf, size_t len);

/* The content as a C string (a NUL is kept behind it); "" when empty. */
const char *cfs_buf_str(struct cfs_buf *buf);

#endif
