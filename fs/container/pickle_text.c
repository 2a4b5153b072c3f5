#include "fs/container/pickle_text.h"

#include <errno.h>
#include <string.h>

#include "fs/container/pickle_internal.h"
#include "store/util/buf.h"

bool cfs_utf8_ok(const void *data, size_t len)
{
	const uint8_t *p = data, *const end = len ? p + len : p;
	uint32_t c, least;
	unsigned more;

	while (p < end) {
		c = *p++;
		if (c < 0x80)
			continue;
		if (c < 0xc2 || c > 0xf4)
			return false;
		more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
		least = more == 1 ? 0x80 : more == 2 ? 0x800 : 0x10000;
		c &= 0x3fu >> more;
		if ((size_t)(end - p) < more)
			return false;
		while (more--) {
			if ((*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p++ & 0x3fu);
		}
		if (c < least || c > 0x10ffff)
			return false;
	}
	return true;
}

static void put_utf8(struct cfs_buf *out, uint32_t c)
{
	if (c < 0x80) {
		cfs_buf_put_u8(out, (uint8_t)c);
		return;
	}
	if (c < 0x800) {
		cfs_buf_put_u8(out, (uint8_t)(0xc0 | c >> 6));
	} else {
		if (c < 0x10000) {
			cfs_buf_put_u8(out, (uint8_t)(0xe0 | c >> 12));
		} else {
			cfs_buf_put_u8(out, (uint8_t)(0xf0 | c >> 18));
			cfs_buf_put_u8(out, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
		}
		cfs_buf_put_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
	}
	cfs_buf_put_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
}

struct cfs_node *cfs_pickle_long(struct cfs_pickle *doc, const void *data,
				 size_t len)
{
	const uint8_t *p = data;
	uint64_t v = 0;
	uint8_t fill;

	if (!len)
		return cfs_node_int(doc, 0);
	fill = p[len - 1] & 0x80 ? 0xff : 0;
	/* bytes that only repeat the sign say nothing */
	while (len > 1 && p[len - 1] == fill &&
	       (p[len - 2] & 0x80) == (fill & 0x80))
		len--;
	if (len > sizeof(v))
		return cfs_node_bytes(doc, CFS_NODE_BIGINT, data, len);
	for (size_t i = 0; i < sizeof(v); i++)
		v |= (uint64_t)(i < len ? p[i] : fill) << (8 * i);
	return cfs_node_int(doc, (int64_t)v);
}

/* @s: only digits.  Magnitude, little-endian, with a spare zero byte. */
static size_t decimal_bytes(const char *s, size_t len, uint8_t *mag)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned carry = (unsigned)(s[i] - '0');

		for (size_t k = 0; k < n; k++) {
			carry += mag[k] * 10u;
			mag[k] = (uint8_t)carry;
			carry >>= 8;
		}
		if (carry)
			mag[n++] = (uint8_t)carry;
	}
	mag[n++] = 0;
	return n;
}

int cfs_pickle_text_int(struct cfs_pickle *doc, const char *s, size_t len,
			struct cfs_node **out)
{
	/* 4300 digits are 1786 bytes */
	uint8_t mag[CFS_PICKLE_DIGITS_MAX / 2] = {0};
	bool minus = false;
	unsigned carry = 1;
	size_t n;

	if (len && s[len - 1] == 'L')
		len--;
	if (len && (*s == '-' || *s == '+')) {
		minus = *s == '-';
		s++;
		len--;
	}
	if (len > CFS_PICKLE_DIGITS_MAX)
		return -E2BIG;
	if (!len)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -EBADMSG;
	}
	n = decimal_bytes(s, len, mag);
	for (size_t i = 0; minus && i < n; i++) {
		carry += (uint8_t)~mag[i];
		mag[i] = (uint8_t)carry;
		carry >>= 8;
	}
	*out = cfs_pickle_long(doc, mag, n);
	return *out ? 0 : -ENOMEM;
}

int cfs_pickle_text_float(const char *s, size_t len, double *out)
{
	char text[512], *end;

	/* strtod() takes more than Python writes: hexadecimal, blanks */
	if (!len || len >= sizeof(text) || memchr(s, 'x', len) ||
	    memchr(s, 'X', len) || memchr(s, '\0', len) || *s == ' ')
		return -EBADMSG;
	memcpy(text, s, len);
	text[len] = '\0';
	*out = strtod(text, &end);
	return end == text + len ? 0 : -EBADMSG;
}

/* @n hexadecimal digits; -1 if there are fewer. */
static int64_t hex(const char *s, size_t len, size_t n)
{
	int64_t v = 0;

	if (len < n)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const char c = s[i];

		if (c >= '0' && c <= '9')
			v = v * 16 + (c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v * 16 + (c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			v = v * 16 + (c - 'A' + 10);
		else
			return -1;
	}
	return v;
}

static size_t octal(const char *s, size_t len, struct cfs_buf *out)
{
	unsigned v = 0;
	size_t i;

	for (i = 0; i < 3 && i < len && s[i] >= '0' && s[i] <= '7'; i++)
		v = v * 8 + (unsigned)(s[i] - '0');
	cfs_buf_put_u8(out, (uint8_t)v);
	return i;
}

/* Behind a backslash; how many characters were used, 0: none fits. */
static size_t escape(const char *s, size_t len, struct cfs_buf *out)
{
	static const char names[] = "\\'\"abfnrtv";
	static const char values[] = "\\'\"\a\b\f\n\r\t\v";
	const char *at;
	int64_t v;

	if (!len)
		return 0;
	if (*s == 'x') {
		v = hex(s + 1, len - 1, 2);
		if (v < 0)
			return 0;
		cfs_buf_put_u8(out, (uint8_t)v);
		return 3;
	}
	if (*s >= '0' && *s <= '7')
		return octal(s, len, out);
	at = *s ? strchr(names, *s) : NULL;
	if (at) {
		cfs_buf_put_u8(out, (uint8_t)values[at - names]);
	} else {
		cfs_buf_put_u8(out, '\\');
		cfs_buf_put(out, s, 1);
	}
	return 1;
}

int cfs_pickle_text_string(const char *s, size_t len, struct cfs_buf *out)
{
	size_t used;

	if (len < 2 || s[0] != s[len - 1] || (*s != '\'' && *s != '"'))
		return -EBADMSG;
	s++;
	len -= 2;
	for (size_t i = 0; i < len; i++) {
		if (s[i] != '\\') {
			cfs_buf_put(out, &s[i], 1);
			continue;
		}
		used = escape(s + i + 1, len - i - 1, out);
		if (!used)
			return -EBADMSG;
		i += used;
	}
	return out->failed ? -ENOMEM : 0;
}

int cfs_pickle_text_unicode(const char *s, size_t len, struct cfs_buf *out)
{
	for (size_t i = 0; i < len; i++) {
		size_t digits = 0;
		int64_t v;

		if (s[i] == '\\' && i + 1 < len)
			digits = s[i + 1] == 'u' ? 4 : s[i + 1] == 'U' ? 8 : 0;
		if (!digits) {
			put_utf8(out, (uint8_t)s[i]);
			/* an escaped backslash starts nothing */
			if (s[i] == '\\' && i + 1 < len)
				put_utf8(out, (uint8_t)s[++i]);
			continue;
		}
		v = hex(s + i + 2, len - i - 2, digits);
		if (v < 0 || v > 0x10ffff)
			return -EBADMSG;
		put_utf8(out, (uint32_t)v);
		i += digits + 1;
	}
	return out->failed ? -ENOMEM : 0;
}
