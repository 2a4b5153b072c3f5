/* Becoming a daemon, with the caller waiting until it is of use. */
#ifndef CFS_CLI_DAEMON_H
#define CFS_CLI_DAEMON_H

#include <stdbool.h>

#include "store/util/base.h"

/*
 * Forks.  In the parent: waits, and returns 1 once the child said
 * cfs_daemon_ready(), or -ECHILD when it ended before (it has said why on
 * stderr).  In the child, a session of its own: returns 0.
 */
CFS_MUST_CHECK int cfs_daemon_fork(void);
/* Lets the parent go and the terminal, too; any thread. */
void cfs_daemon_ready(void);

/* Messages go to stderr until cfs_daemon_ready(), then to @path, or to syslog
 * when that is NULL; always to stderr (or @path) in the foreground. */
CFS_MUST_CHECK int cfs_daemon_log(const char *path, bool foreground);

#endif
