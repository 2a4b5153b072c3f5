/*
 * Verbs on a store, wherever it is: asked of the daemon that has it mounted
 * (STORE/control, a Unix socket), else run here on the store opened for it.
 * One implementation of each verb serves both (verb.h).
 */
#ifndef CFS_DAEMON_CONTROL_H
#define CFS_DAEMON_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/util/base.h"

struct cJSON;
struct cfs_error;
struct cfs_ns;
struct cfs_views;

/* Who asked, and what came along with the request. */
struct cfs_verb_caller {
	uid_t uid;
	gid_t gid;
	bool remote; /* another process than this one */
	int fds[2];  /* descriptors handed over, borrowed by the verb */
	unsigned n_fds;
};

/* A connection that asked for verb "rank" and is served until it ends. */
struct cfs_session {
	int fd;	  /* borrowed; no time limit on receiving */
	int *fds; /* 2 that came along, -1: none; may be
		     taken by leaving -1 */
	const struct cJSON *arguments; /* or NULL */
	pid_t pid; /* of the other end, as the kernel tells */
	uid_t uid;
	gid_t gid;
	const gid_t *groups; /* further ones */
	size_t n_groups;
};

/* What a verb works on. */
struct cfs_verb_context {
	struct cfs_ns *ns;
	struct cfs_views *views; /* over the ns source */
	const char *mount;	 /* where it is mounted; NULL: it is not */
	/* The kernel must forget what it knows of a name (or, name NULL, of a
	 * whole inode); NULL: not mounted.  Never called with locks held. */
	void (*invalidate)(void *arg, uint64_t ino, const char *name);
	void *invalidate_arg;
	/*
	 * Serves a session of any user, on a thread of its own, and answers
	 * everything itself; returns once the other end is gone, or the socket
	 * was shut down because the daemon stops.  NULL: there are none.
	 */
	void (*session)(void *arg, struct cfs_verb_context *context,
			const struct cfs_session *session);
	void *session_arg;
	bool private; /* sessions of the daemon's own user and root only */
	const struct cfs_verb_caller *caller; /* set for each call */
};

/* How a verb talks while it runs.  false: the caller went away, stop. */
struct cfs_verb_reply {
	bool (*progress)(void *arg, uint64_t done, uint64_t total,
			 const char *what);
	void (*line)(void *arg, const char *text); /* a finding, a warning */
	void *arg;
};

/* Adds what it found to @result (an object); refusals in @err. */
typedef int cfs_verb_fn(struct cfs_verb_context *context,
			const struct cJSON *arguments,
			const struct cfs_verb_reply *reply,
			struct cJSON *result, struct cfs_error *err);
struct cfs_daemon_verb {
	const char *name;
	cfs_verb_fn *run;
	bool exclusive; /* one of these at a time: others get -EBUSY */
	bool changes;	/* refused where it is read-only, but for a dry run */
};
extern const struct cfs_daemon_verb
	*const cfs_daemon_verbs[]; /* verbs.c; NULL ends */

/**
 * cfs_control_call - run a verb on the store at @store_path
 * @fds:        @n_fds descriptors (2 at most) for the verb; stay the caller's
 * @result_out: the result object; cJSON_Delete() it
 *
 * Connects to the daemon's socket if a daemon answers there, else opens the
 * store.  Only the store's owner and root are served.
 */
CFS_MUST_CHECK int cfs_control_call(const char *store_path, const char *verb,
				    const struct cJSON *arguments,
				    const struct cfs_verb_reply *reply,
				    struct cJSON **result_out,
				    struct cfs_error *err);
CFS_MUST_CHECK int
cfs_control_call_fds(const char *store_path, const char *verb,
		     const struct cJSON *arguments, const int *fds,
		     unsigned n_fds, const struct cfs_verb_reply *reply,
		     struct cJSON **result_out, struct cfs_error *err);

/* The daemon's side: serves until stopped; each caller has a thread. */
struct cfs_control;
CFS_MUST_CHECK int cfs_control_start(const char *store_path,
				     struct cfs_verb_context *context,
				     struct cfs_control **control_out,
				     struct cfs_error *err);
void cfs_control_stop(struct cfs_control *control); /* verbs are told to stop */

/*
 * Before serving.  What a process that is gone left half removed or half made
 * goes, also after a clean stop.  After an unclean one (cfs_store_was_unclean)
 * each run's `latest` that names a step that is not whole is rewritten to the
 * newest whole one before it.  Of a store that may only be read the log tells
 * the latter, and all stays.
 */
CFS_MUST_CHECK int cfs_daemon_recover(struct cfs_verb_context *context);
/* The latter alone. */
CFS_MUST_CHECK int
cfs_daemon_recover_pointers(struct cfs_verb_context *context);

#endif
