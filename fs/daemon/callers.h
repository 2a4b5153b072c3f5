/*
 * Who is connected to the control socket: verbs, few and short, and sessions of
 * ranks, many and as long as training runs.  All ranks of a job come at once,
 * so who has not said yet what it wants counts as a session.
 */
#ifndef CFS_DAEMON_CALLERS_H
#define CFS_DAEMON_CALLERS_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "store/util/base.h"

struct cfs_callers_entry { /* embedded in a caller */
	int fd;
	int pidfd; /* of the other end, -1: none */
	uid_t uid;
	bool session;
	bool buried; /* guarded by lock: its process has ended */
	struct cfs_callers_entry *next, **link; /* private */
};

struct cfs_callers {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping;			/* guarded by lock */
	unsigned n_verbs, n_sessions;	/* guarded by lock */
	struct cfs_callers_entry *list; /* guarded by lock */
	int watch_fd; /* readable when a session's process has ended */
};

CFS_MUST_CHECK int cfs_callers_init(struct cfs_callers *callers);
void cfs_callers_fini(struct cfs_callers *callers);
/* As a session.  false: there are too many, or none is wanted any more. */
bool cfs_callers_enter(struct cfs_callers *callers,
		       struct cfs_callers_entry *entry);
/* It runs a verb; false as above, of verbs. */
bool cfs_callers_ask(struct cfs_callers *callers,
		     struct cfs_callers_entry *entry);
/* Its descriptor may be closed afterwards, not before. */
void cfs_callers_leave(struct cfs_callers *callers,
		       struct cfs_callers_entry *entry);
/* Sessions whose process has ended get no further frame, whoever inherited the
 * socket of it.  When watch_fd is readable. */
void cfs_callers_bury(struct cfs_callers *callers);
bool cfs_callers_stopping(struct cfs_callers *callers);
/* Nobody enters any more; sessions get no further frame. */
void cfs_callers_stop(struct cfs_callers *callers);
/* Until all have left; who does not take its last answers is cut off. */
void cfs_callers_wait(struct cfs_callers *callers);

/* Whose process is at the other end, by the kernel. */
struct cfs_peer {
	pid_t pid;
	int pidfd; /* -1: the kernel has none */
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* further ones */
	size_t n_groups;
};
CFS_MUST_CHECK int cfs_peer_read(int fd, struct cfs_peer *out);
CFS_MUST_CHECK int cfs_peer_read_groups(int fd, struct cfs_peer *peer);
void cfs_peer_fini(struct cfs_peer *peer); /* _cleanup_ */

#endif
