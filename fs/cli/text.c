/* Sizes, shapes and times as people read them. */
#include "fs/cli/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "store/util/buf.h"

static struct cfs_text scaled(uint64_t n, double base, const char *const *units,
			      uint32_t n_units)
{
	struct cfs_text t;
	double v = (double)n;
	uint32_t u = 0;

	while (v >= base && u + 1 < n_units) {
		v /= base;
		u++;
	}
	if (u == 0)
		snprintf(t.s, sizeof(t.s), "%" PRIu64 "%s", n, units[0]);
	else
		snprintf(t.s, sizeof(t.s), "%.*f%s", v < 10 ? 2 : 1, v,
			 units[u]);
	return t;
}

struct cfs_text cfs_text_bytes(uint64_t n)
{
	static const char *const units[] = {" B",   " KiB", " MiB",
					    " GiB", " TiB", " PiB"};

	return scaled(n, 1024, units, CFS_ARRAY_SIZE(units));
}

struct cfs_text cfs_text_count(uint64_t n)
{
	static const char *const units[] = {"", " K", " M", " G", " T"};

	return scaled(n, 1000, units, CFS_ARRAY_SIZE(units));
}

struct cfs_text cfs_text_shape(uint32_t ndim, const uint64_t *shape)
{
	struct cfs_text t = {"["};
	size_t len = 1;
	uint32_t i;

	for (i = 0; i < ndim; i++) {
		if (len + 24 > sizeof(t.s)) {
			len += (size_t)snprintf(t.s + len, sizeof(t.s) - len,
						", …");
			break;
		}
		len += (size_t)snprintf(t.s + len, sizeof(t.s) - len,
					"%s%" PRIu64, i ? ", " : "", shape[i]);
	}
	snprintf(t.s + len, sizeof(t.s) - len, "]");
	return t;
}

struct cfs_text cfs_text_time(int64_t ns)
{
	struct cfs_text t = {""};
	time_t sec = (time_t)(ns / 1000000000);
	struct tm tm;

	if (localtime_r(&sec, &tm))
		strftime(t.s, sizeof(t.s), "%Y-%m-%d %H:%M", &tm);
	return t;
}

struct cfs_text cfs_text_duration(double seconds)
{
	struct cfs_text t;
	uint64_t s;

	if (!(seconds >= 0) || seconds > 1e9) {
		snprintf(t.s, sizeof(t.s), "-:--");
		return t;
	}
	s = (uint64_t)(seconds + 0.5);
	if (s >= 3600)
		snprintf(t.s, sizeof(t.s),
			 "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600,
			 s / 60 % 60, s % 60);
	else
		snprintf(t.s, sizeof(t.s), "%" PRIu64 ":%02" PRIu64, s / 60,
			 s % 60);
	return t;
}

struct cfs_text cfs_text_real(double v)
{
	struct cfs_text t;
	int digits;

	for (digits = 1; digits <= 17; digits++) {
		snprintf(t.s, sizeof(t.s), "%.*g", digits, v);
		if (isnan(v) || strtod(t.s, NULL) == v)
			break;
	}
	return t;
}

/* Bytes of the UTF-8 sequence at @p, 0 when there is none. */
static size_t sequence(const unsigned char *p, size_t len)
{
	size_t n = p[0] < 0x80	 ? 1
		   : p[0] < 0xc2 ? 0
		   : p[0] < 0xe0 ? 2
		   : p[0] < 0xf0 ? 3
		   : p[0] < 0xf5 ? 4
				 : 0;
	size_t i;

	if (n > len)
		return 0;
	for (i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* overlong forms, surrogates, beyond U+10FFFF */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

static bool is_control(const unsigned char *p, size_t n)
{
	if (n == 1)
		return p[0] < 0x20 || p[0] == 0x7f;
	return n == 2 && p[0] == 0xc2 && p[1] < 0xa0; /* C1 */
}

static void put_clean(struct cfs_buf *out, const char *data, size_t len,
		      bool controls)
{
	const unsigned char *p = (const unsigned char *)data;

	while (len) {
		size_t n = sequence(p, len);

		if (!n || (!controls && is_control(p, n))) {
			cfs_buf_printf(out, "\\x%02x", p[0]);
			n = 1;
		} else {
			cfs_buf_put(out, p, n);
		}
		p += n;
		len -= n;
	}
}

void cfs_text_safe(struct cfs_buf *out, const char *data, size_t len)
{
	put_clean(out, data, len, false);
}

void cfs_text_utf8(struct cfs_buf *out, const char *data, size_t len)
{
	put_clean(out, data, len, true);
}
