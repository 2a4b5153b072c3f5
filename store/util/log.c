#include "store/util/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static cfs_log_sink_fn *log_sink; /* set once, before threads */
static enum cfs_log_level log_max;

void cfs_log_set_sink(cfs_log_sink_fn *sink, enum cfs_log_level max_level)
{
	log_sink = sink;
	log_max = max_level;
}

void cfs_log(enum cfs_log_level level, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (!log_sink || level > log_max)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	log_sink(level, line);
}

int cfs_log_err(int r, const char *fmt, ...)
{
	char msg[896];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	cfs_log(CFS_LOG_ERR, "%s: %s", msg, strerror(-r));
	return r;
}
