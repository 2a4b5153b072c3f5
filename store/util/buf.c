/* Growth by doubling; one NUL of slack so that cfs_buf_str() never moves. */
#include "store/util/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/util/endian.h"

void cfs_buf_free(struct cfs_buf *buf)
{
	free(buf->data);
	*buf = (struct cfs_buf)CFS_BUF_INIT;
}

void cfs_buf_reset(struct cfs_buf *buf)
{
	buf->len = 0;
	buf->failed = false;
}

static bool reserve(struct cfs_buf *buf, size_t more)
{
	size_t need, cap;
	uint8_t *p;

	if (buf->failed || more > SIZE_MAX / 4 - buf->len) {
		buf->failed = true;
		return false;
	}
	need = buf->len + more + 1;
	if (need <= buf->cap)
		return true;
	cap = CFS_MAX(need, CFS_MAX(buf->cap * 2, (size_t)64));
	p = realloc(buf->data, cap);
	if (!p) {
		buf->failed = true;
		return false;
	}
	buf->data = p;
	buf->cap = cap;
	return true;
}

void cfs_buf_put(struct cfs_buf *buf, const void *data, size_t len)
{
	if (!reserve(buf, len) || !len)
		return;
	memcpy(buf->data + buf->len, data, len);
	buf->len += len;
}

void cfs_buf_put_u8(struct cfs_buf *buf, uint8_t v)
{
	cfs_buf_put(buf, &v, sizeof(v));
}

void cfs_buf_put_le32(struct cfs_buf *buf, uint32_t v)
{
	uint8_t raw[4];

	cfs_put_le32(raw, v);
	cfs_buf_put(buf, raw, sizeof(raw));
}

void cfs_buf_put_le64(struct cfs_buf *buf, uint64_t v)
{
	uint8_t raw[8];

	cfs_put_le64(raw, v);
	cfs_buf_put(buf, raw, sizeof(raw));
}

void cfs_buf_put_str(struct cfs_buf *buf, const char *s)
{
	cfs_buf_put(buf, s, strlen(s));
}

void cfs_buf_printf(struct cfs_buf *buf, const char *fmt, ...)
{
	va_list ap, again;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		buf->failed = true;
	else if (reserve(buf, (size_t)n)) {
		(void)vsnprintf((char *)buf->data + buf->len, (size_t)n + 1,
				fmt, again);
		buf->len += (size_t)n;
	}
	va_end(again);
}

uint8_t *cfs_buf_grow(struct cfs_buf *buf, size_t len)
{
	uint8_t *p;

	if (!reserve(buf, len))
		return NULL;
	p = buf->data + buf->len;
	memset(p, 0, len);
	buf->len += len;
	return p;
}

uint8_t *cfs_buf_room(struct cfs_buf *buf, size_t len)
{
	return reserve(buf, len) ? buf->data + buf->len : NULL;
}

const char *cfs_buf_str(struct cfs_buf *buf)
{
	if (!reserve(buf, 0) || !buf->data)
		return "";
	buf->data[buf->len] = '\0';
	return (const char *)buf->data;
}
