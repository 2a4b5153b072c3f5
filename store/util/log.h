/* Messages to a sink the program sets; libraries never print. */
#ifndef CFS_UTIL_LOG_H
#define CFS_UTIL_LOG_H

#include "store/util/base.h"

enum cfs_log_level {
	CFS_LOG_ERR,
	CFS_LOG_WARN,
	CFS_LOG_INFO,
	CFS_LOG_DEBUG
};

/* Called from any thread, one call a line, no newline in @line. */
typedef void cfs_log_sink_fn(enum cfs_log_level level, const char *line);

/* Before other threads start; NULL drops messages (the default). */
void cfs_log_set_sink(cfs_log_sink_fn *sink, enum cfs_log_level max_level);

void cfs_log(enum cfs_log_level level, const char *fmt, ...) CFS_PRINTF(2, 3);

/* Logs "<message>: <strerror(-r)>" and returns @r. */
int cfs_log_err(int r, const char *fmt, ...) CFS_PRINTF(2, 3);

#endif
