/* Callers of the control socket: counting, limiting and ending them. */
#include "fs/daemon/callers.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#define VERBS_MAX	  16u
#define SESSIONS_MAX	  8192u
#define SESSIONS_USER_MAX 4096u /* of one that is not root */
#define LAST_ANSWER_S	  2

int cfs_callers_init(struct cfs_callers *callers)
{
	pthread_condattr_t attr;

	*callers =
		(struct cfs_callers){.watch_fd = epoll_create1(EPOLL_CLOEXEC)};
	pthread_mutex_init(&callers->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&callers->changed, &attr);
	pthread_condattr_destroy(&attr);
	return callers->watch_fd < 0 ? -errno : 0;
}

void cfs_callers_fini(struct cfs_callers *callers)
{
	cfs_closep(&callers->watch_fd);
	pthread_cond_destroy(&callers->changed);
	pthread_mutex_destroy(&callers->lock);
}

static unsigned sessions_of(const struct cfs_callers *callers, uid_t uid)
{
	unsigned n = 0;

	for (const struct cfs_callers_entry *e = callers->list; e; e = e->next)
		n += e->session && e->uid == uid;
	return n;
}

/* Locked. */
static bool has_room(struct cfs_callers *callers,
		     const struct cfs_callers_entry *entry)
{
	return !callers->stopping && callers->n_sessions < SESSIONS_MAX &&
	       (!entry->uid ||
		sessions_of(callers, entry->uid) < SESSIONS_USER_MAX);
}

/* Locked. */
static void watch(struct cfs_callers *callers, struct cfs_callers_entry *entry,
		  int op)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (entry->pidfd >= 0)
		(void)epoll_ctl(callers->watch_fd, op, entry->pidfd, &event);
}

bool cfs_callers_enter(struct cfs_callers *callers,
		       struct cfs_callers_entry *entry)
{
	bool room;

	pthread_mutex_lock(&callers->lock);
	room = has_room(callers, entry);
	if (room) {
		callers->n_sessions++;
		entry->session = true;
		entry->next = callers->list;
		entry->link = &callers->list;
		if (entry->next)
			entry->next->link = &entry->next;
		callers->list = entry;
		watch(callers, entry, EPOLL_CTL_ADD);
	}
	pthread_mutex_unlock(&callers->lock);
	return room;
}

bool cfs_callers_ask(struct cfs_callers *callers,
		     struct cfs_callers_entry *entry)
{
	bool room;

	pthread_mutex_lock(&callers->lock);
	room = !callers->stopping && callers->n_verbs < VERBS_MAX;
	if (room) {
		callers->n_sessions--;
		callers->n_verbs++;
		entry->session = false;
		watch(callers, entry, EPOLL_CTL_DEL);
	}
	pthread_mutex_unlock(&callers->lock);
	return room;
}

void cfs_callers_bury(struct cfs_callers *callers)
{
	struct epoll_event events[16];
	int n = epoll_wait(callers->watch_fd, events, CFS_ARRAY_SIZE(events),
			   0);

	pthread_mutex_lock(&callers->lock);
	for (struct cfs_callers_entry *e = callers->list; n > 0 && e;
	     e = e->next) {
		struct pollfd ended = {.fd = e->pidfd, .events = POLLIN};

		/* a number may have come to mean another since */
		if (!e->session || e->buried || poll(&ended, 1, 0) <= 0)
			continue;
		e->buried = true;
		(void)epoll_ctl(callers->watch_fd, EPOLL_CTL_DEL, e->pidfd,
				NULL);
		(void)shutdown(e->fd, SHUT_RD);
	}
	pthread_mutex_unlock(&callers->lock);
}

void cfs_callers_leave(struct cfs_callers *callers,
		       struct cfs_callers_entry *entry)
{
	pthread_mutex_lock(&callers->lock);
	--*(entry->session ? &callers->n_sessions : &callers->n_verbs);
	if (entry->session)
		watch(callers, entry, EPOLL_CTL_DEL);
	*entry->link = entry->next;
	if (entry->next)
		entry->next->link = entry->link;
	pthread_cond_broadcast(&callers->changed);
	pthread_mutex_unlock(&callers->lock);
}

bool cfs_callers_stopping(struct cfs_callers *callers)
{
	bool stopping;

	pthread_mutex_lock(&callers->lock);
	stopping = callers->stopping;
	pthread_mutex_unlock(&callers->lock);
	return stopping;
}

/* Locked.  Who is working still works, but does not wait for its listener. */
static void cut_off(struct cfs_callers *callers)
{
	for (struct cfs_callers_entry *e = callers->list; e; e = e->next)
		if (e->session)
			(void)shutdown(e->fd, SHUT_RDWR);
}

/* Only the way in is shut: what was asked can still be answered. */
void cfs_callers_stop(struct cfs_callers *callers)
{
	pthread_mutex_lock(&callers->lock);
	callers->stopping = true;
	for (struct cfs_callers_entry *e = callers->list; e; e = e->next)
		if (e->session)
			(void)shutdown(e->fd, SHUT_RD);
	pthread_mutex_unlock(&callers->lock);
}

void cfs_callers_wait(struct cfs_callers *callers)
{
	struct timespec end;
	bool cut = false;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += LAST_ANSWER_S;
	pthread_mutex_lock(&callers->lock);
	while (callers->n_verbs || callers->n_sessions) {
		if (cut)
			pthread_cond_wait(&callers->changed, &callers->lock);
		else if (pthread_cond_timedwait(&callers->changed,
						&callers->lock,
						&end) == ETIMEDOUT) {
			cut = true;
			cut_off(callers);
		}
	}
	pthread_mutex_unlock(&callers->lock);
}

/* By the socket itself where the kernel can, or by the number, which another
 * process may have by now. */
static int open_pidfd(int fd, pid_t pid)
{
	int pidfd = -1;
#ifdef SO_PEERPIDFD
	socklen_t len = sizeof(pidfd);

	if (!getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len))
		return pidfd;
#else
	(void)fd;
#endif
#ifdef SYS_pidfd_open
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
#endif
	return pidfd;
}

int cfs_peer_read(int fd, struct cfs_peer *out)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	*out = (struct cfs_peer){.pid = cred.pid,
				 .pidfd = open_pidfd(fd, cred.pid),
				 .uid = cred.uid,
				 .gid = cred.gid};
	return 0;
}

int cfs_peer_read_groups(int fd, struct cfs_peer *peer)
{
	_cleanup_(cfs_freep) gid_t *groups = NULL;
	socklen_t len = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0)
		return 0; /* it has none */
	if (errno != ERANGE)
		return -errno;
	groups = malloc(len);
	if (!groups)
		return -ENOMEM;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return -errno;
	peer->n_groups = len / sizeof(*groups);
	peer->groups = cfs_steal(groups);
	return 0;
}

void cfs_peer_fini(struct cfs_peer *peer)
{
	cfs_closep(&peer->pidfd);
	free(peer->groups);
	peer->groups = NULL;
}
