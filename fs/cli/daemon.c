#include "fs/cli/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>

#include "store/util/log.h"

/* Set before threads start, but for detached. */
static int ready_fd = -1, log_fd = -1;
static bool to_syslog;
static atomic_bool detached; /* relaxed: a line or two may go elsewhere */

static int wait_for(pid_t child, int fd)
{
	char byte;
	ssize_t n;

	do
		n = read(fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		return 1;
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	return -ECHILD;
}

int cfs_daemon_fork(void)
{
	int fds[2], r;
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	child = fork();
	if (child < 0) {
		r = -errno;
		(void)close(fds[0]);
		(void)close(fds[1]);
		return r;
	}
	if (child) {
		(void)close(fds[1]);
		r = wait_for(child, fds[0]);
		(void)close(fds[0]);
		return r;
	}
	(void)close(fds[0]);
	ready_fd = fds[1];
	(void)setsid();
	return chdir("/") < 0 ? -errno : 0;
}

void cfs_daemon_ready(void)
{
	int null, fd;

	if (ready_fd < 0) /* in the foreground */
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	atomic_store_explicit(&detached, true, memory_order_relaxed);
	for (fd = 0; null >= 0 && fd <= 2; fd++)
		(void)dup2(null, fd);
	if (null > 2)
		(void)close(null);
	while (write(ready_fd, "r", 1) < 0 && errno == EINTR)
		;
	(void)close(ready_fd);
	ready_fd = -1;
}

static void log_line(enum cfs_log_level level, const char *line)
{
	static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO,
					 LOG_DEBUG};
	static const char *const names[] = {"error", "warning", "info",
					    "debug"};
	char stamp[32] = "";
	struct tm tm;
	time_t now;

	if (to_syslog &&
	    atomic_load_explicit(&detached, memory_order_relaxed)) {
		syslog(priorities[level], "%s", line);
		return;
	}
	if (log_fd >= 0) {
		now = time(NULL);
		strftime(stamp, sizeof(stamp), "%FT%TZ ", gmtime_r(&now, &tm));
		dprintf(log_fd, "%s%s: %s\n", stamp, names[level], line);
		if (atomic_load_explicit(&detached, memory_order_relaxed))
			return;
	}
	if (log_fd < 0 || level == CFS_LOG_ERR)
		fprintf(stderr, "ckptfs: %s: %s\n", names[level], line);
}

int cfs_daemon_log(const char *path, bool foreground)
{
	if (path) {
		log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
			      0600);
		if (log_fd < 0)
			return -errno;
	} else if (!foreground) {
		openlog("ckptfs", LOG_PID, LOG_DAEMON);
		to_syslog = true;
	}
	cfs_log_set_sink(log_line, CFS_LOG_INFO);
	return 0;
}
