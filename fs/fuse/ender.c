#define FUSE_USE_VERSION 312
#include "fs/fuse/ender.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <time.h>

#include "fs/fuse/fuse.h"
#include "store/util/log.h"

/* Wakes the loop, which waits for a semaphore; and ends the thread. */
#define WAKE SIGUSR1

struct cfs_ender {
	struct fuse_session *session;
	const char *dir; /* borrowed */
	pthread_t thread, main;
	atomic_bool done; /* the loop has ended */
};

static void signals_of(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

void cfs_fuse_block_signals(void)
{
	sigset_t set;

	signals_of(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/*
 * Mapped pages that were written to are the kernel's until it sends them.  An
 * unmount that succeeds sends them; where files are open it cannot be, so they
 * are asked for.
 */
static void fetch_pages(const char *dir)
{
	_cleanup_(cfs_closep) int fd =
		open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0 && syncfs(fd) < 0)
		cfs_log_err(-errno, "%s: syncfs", dir);
}

static void end_loop(struct cfs_ender *ender)
{
	static const struct timespec pause = {.tv_nsec = 20000000};
	static const struct timespec grace = {.tv_nsec = 200000000};

	fetch_pages(ender->dir);
	/* Busy, or not root's to unmount: the pages asked for are on their way,
	 * which nothing tells the end of. */
	if (umount2(ender->dir, UMOUNT_NOFOLLOW) < 0)
		nanosleep(&grace, NULL);
	fuse_session_exit(ender->session);
	/* It may have looked just before, and wait only now. */
	while (!atomic_load(&ender->done)) {
		pthread_kill(ender->main, WAKE);
		nanosleep(&pause, NULL);
	}
}

static void *wait_for_signal(void *arg)
{
	struct cfs_ender *ender = arg;
	sigset_t set;
	int number = 0;

	signals_of(&set);
	sigaddset(&set, WAKE);
	while (sigwait(&set, &number))
		;
	if (number == WAKE) /* from cfs_ender_stop() */
		return NULL;
	cfs_log(CFS_LOG_INFO, "%s: ending upon signal %d", ender->dir, number);
	end_loop(ender);
	return NULL;
}

static void on_wake(int number)
{
	(void)number;
}

int cfs_ender_start(struct fuse_session *session, const char *dir,
		    struct cfs_ender **ender_out)
{
	struct sigaction action = {.sa_handler = on_wake};
	struct cfs_ender *ender = calloc(1, sizeof(*ender));
	sigset_t wake, old;
	int r;

	if (!ender)
		return -ENOMEM;
	ender->session = session;
	ender->dir = dir;
	ender->main = pthread_self();
	sigemptyset(&action.sa_mask);
	(void)sigaction(WAKE, &action, NULL);
	/* Blocked in the thread, which waits for it. */
	sigemptyset(&wake);
	sigaddset(&wake, WAKE);
	pthread_sigmask(SIG_BLOCK, &wake, &old);
	r = -pthread_create(&ender->thread, NULL, wait_for_signal, ender);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r < 0) {
		free(ender);
		return r;
	}
	*ender_out = ender;
	return 0;
}

void cfs_ender_stop(struct cfs_ender *ender)
{
	atomic_store(&ender->done, true);
	pthread_kill(ender->thread, WAKE);
	pthread_join(ender->thread, NULL);
	free(ender);
}
