#include "store/util/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int cfs_fail(struct cfs_error *err, int r, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return r;
	va_start(ap, fmt);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return r;
}

int cfs_fail_prefix(struct cfs_error *err, int r, const char *fmt, ...)
{
	char old[sizeof(err->text)];
	va_list ap;
	size_t n;

	if (!err)
		return r;
	(void)snprintf(old, sizeof(old), "%s",
		       err->text[0] ? err->text : strerror(-r));
	va_start(ap, fmt);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	n = strlen(err->text);
	(void)snprintf(err->text + n, sizeof(err->text) - n, ": %s", old);
	return r;
}
