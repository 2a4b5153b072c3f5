/* Sizes, shapes and times as people read them. */
#ifndef CFS_CLI_TEXT_H
#define CFS_CLI_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_buf;

/* Large enough for every text below; a longer shape ends in "…". */
#define CFS_TEXT_MAX 160

struct cfs_text {
	char s[CFS_TEXT_MAX];
};

/* "1.4 GiB", "512 B" */
struct cfs_text cfs_text_bytes(uint64_t n);
/* "1.2 M", "71" (elements: powers of 1000) */
struct cfs_text cfs_text_count(uint64_t n);
/* "[3, 5]" */
struct cfs_text cfs_text_shape(uint32_t ndim, const uint64_t *shape);
/* "2026-11-21 10:06", local time */
struct cfs_text cfs_text_time(int64_t ns);
/* "1:05:09", "0:07" */
struct cfs_text cfs_text_duration(double seconds);
/* Shortest form that reads back as the same double: "0.001". */
struct cfs_text cfs_text_real(double v);

/* Appends @len bytes from outside so that a terminal shows and does not obey
 * them: control characters and what is no UTF-8 become \\xNN. */
void cfs_text_safe(struct cfs_buf *out, const char *data, size_t len);
/* The same for JSON, which spells control characters itself: only what is no
 * UTF-8 is replaced. */
void cfs_text_utf8(struct cfs_buf *out, const char *data, size_t len);

#endif
