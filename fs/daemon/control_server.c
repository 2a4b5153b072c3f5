/*
 * The daemon's end of the control socket: one thread listens, each caller has
 * one of its own.  Stopping is seen by verbs when they tell their progress, by
 * sessions as the end of their connection, and waits for all.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/daemon/callers.h"
#include "fs/daemon/verb.h"
#include "store/util/wire.h"
#include "store/util/log.h"

#define PROGRESS_EVERY_NS INT64_C(100000000)
#define VERB_SECONDS	  10 /* for sending and receiving */
#define SESSION_SECONDS	  60 /* for sending */

struct cfs_control {
	char *store_path;
	struct cfs_verb_context context; /* a copy; callers copy it again */
	uid_t owner;
	int listen_fd, stop_fd;
	pthread_t thread;
	struct cfs_callers callers;
};

struct caller {
	struct cfs_control *control;
	struct cfs_callers_entry entry;
	struct cfs_peer peer;
	int fds[2];
	bool gone;
	bool answered; /* by a session */
	int64_t said_ns;
};

static void json_freep(cJSON **json)
{
	cJSON_Delete(*json);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void say(struct caller *c, cJSON *frame)
{
	if (!frame || cfs_wire_send(c->entry.fd, frame, NULL, 0) < 0)
		c->gone = true;
	cJSON_Delete(frame);
}

static bool on_progress(void *arg, uint64_t done, uint64_t total,
			const char *what)
{
	struct caller *c = arg;
	int64_t now = now_ns();
	cJSON *frame, *p;

	if (c->gone || cfs_callers_stopping(&c->control->callers) ||
	    cfs_wire_gone(c->entry.fd))
		return false;
	if (now - c->said_ns < PROGRESS_EVERY_NS)
		return true;
	c->said_ns = now;
	frame = cJSON_CreateObject();
	p = cJSON_AddObjectToObject(frame, "progress");
	cfs_verb_put_u64(p, "done", done);
	cfs_verb_put_u64(p, "total", total);
	cfs_verb_put_str(p, "what", what);
	say(c, frame);
	return !c->gone;
}

static void on_line(void *arg, const char *text)
{
	struct caller *c = arg;
	cJSON *frame = cJSON_CreateObject();

	cfs_verb_put_str(frame, "line", text);
	say(c, frame);
}

static void answer(struct caller *c, int r, const struct cfs_error *err,
		   cJSON *result)
{
	cJSON *frame = cJSON_CreateObject();

	cJSON_AddNumberToObject(frame, "r", r);
	cfs_verb_put_str(frame, "error", err->text);
	if (result)
		cJSON_AddItemToObject(frame, "result", result);
	say(c, frame);
}

/* Root and the owner of the store's directory; nobody else. */
static int authorise(const struct caller *c, struct cfs_error *err)
{
	if (c->peer.uid == 0 || c->peer.uid == c->control->owner)
		return 0;
	return cfs_fail(err, -EPERM,
			"%s: only root and the owner of the store (uid %u) "
			"may do that",
			c->control->store_path, (unsigned)c->control->owner);
}

static void set_limits(int fd, time_t receive, time_t send)
{
	struct timeval in = {.tv_sec = receive}, out = {.tv_sec = send};

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &in, sizeof(in));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &out, sizeof(out));
}

/* Anybody may have one: what it may do, the modes of the files tell. */
static int run_session(struct caller *c, const cJSON *arguments,
		       struct cfs_error *err)
{
	struct cfs_verb_context context = c->control->context;
	int r;

	if (!context.session)
		return cfs_fail(err, -EOPNOTSUPP,
				"%s: this daemon takes no steps of ranks",
				c->control->store_path);
	/* The kernel lets nobody else into such a mount, root neither; but he
	 * may do all with the store's own files. */
	if (context.private && c->peer.uid != 0 && c->peer.uid != geteuid())
		return cfs_fail(err, -EACCES,
				"%s is mounted for uid %u alone: mount it with "
				"-o allow_other",
				c->control->store_path, (unsigned)geteuid());
	r = cfs_peer_read_groups(c->entry.fd, &c->peer);
	if (r < 0)
		return r;
	set_limits(c->entry.fd, 0, SESSION_SECONDS);
	c->answered = true;
	context.session(context.session_arg, &context,
			&(struct cfs_session){
				.fd = c->entry.fd,
				.fds = c->fds,
				.arguments = arguments,
				.pid = c->peer.pid,
				.uid = c->peer.uid,
				.gid = c->peer.gid,
				.groups = c->peer.groups,
				.n_groups = c->peer.n_groups,
			});
	return 0;
}

static int run_verb(struct caller *c, const char *verb, const cJSON *arguments,
		    cJSON *result, struct cfs_error *err)
{
	struct cfs_verb_reply reply = {on_progress, on_line, c};
	struct cfs_verb_context context = c->control->context;
	struct cfs_verb_caller who = {.uid = c->peer.uid,
				      .gid = c->peer.gid,
				      .remote = true,
				      .fds = {c->fds[0], c->fds[1]}};

	who.n_fds = (who.fds[0] >= 0) + (who.fds[1] >= 0);
	context.caller = &who;
	return cfs_verb_run(&context, verb, arguments, &reply, result, err);
}

static int perform(struct caller *c, cJSON **result_out, struct cfs_error *err)
{
	_cleanup_(json_freep) cJSON *request = NULL;
	_cleanup_(json_freep) cJSON *result = cJSON_CreateObject();
	const cJSON *arguments;
	const char *verb;
	int r;

	if (!result)
		return -ENOMEM;
	r = cfs_wire_receive(c->entry.fd, CFS_WIRE_REQUEST_MAX, &request,
			     c->fds);
	if (r < 0)
		return cfs_fail_prefix(err, r, "the request");
	verb = cfs_verb_str(request, "verb");
	arguments = cJSON_GetObjectItemCaseSensitive(request, "arguments");
	if (verb && !strcmp(verb, "rank"))
		return run_session(c, arguments, err);
	r = authorise(c, err);
	if (r < 0)
		return r;
	if (!cfs_callers_ask(&c->control->callers, &c->entry))
		return cfs_fail(err, -EAGAIN,
				"too many callers at once; try again");
	if (!verb)
		return cfs_fail(err, -EINVAL, "the request names no verb");
	r = run_verb(c, verb, arguments, result, err);
	if (!r)
		*result_out = cfs_steal(result);
	return r;
}

static void caller_free(struct caller *c)
{
	cfs_closep(&c->fds[0]);
	cfs_closep(&c->fds[1]);
	cfs_closep(&c->entry.fd);
	cfs_peer_fini(&c->peer);
	free(c);
}

static void *serve(void *arg)
{
	struct caller *c = arg;
	struct cfs_callers *callers = &c->control->callers;
	struct cfs_callers_entry *entry = &c->entry;
	struct cfs_error err = {""};
	cJSON *result = NULL;
	int r;

	r = perform(c, &result, &err);
	if (!c->answered)
		answer(c, r, &err, result);
	/* While it is entered it may be shut down, so it is closed later. */
	cfs_callers_leave(callers, entry);
	caller_free(c);
	return NULL;
}

static int start(struct caller *c)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = -pthread_create(&thread, &attr, serve, c);
	pthread_attr_destroy(&attr);
	return r;
}

static void take_caller(struct cfs_control *control, int fd)
{
	struct caller *c = calloc(1, sizeof(*c));
	struct cfs_error err = {"too many callers at once; try again"};
	int r;

	if (!c) {
		close(fd);
		return;
	}
	c->control = control;
	c->entry.fd = fd;
	c->fds[0] = c->fds[1] = -1;
	c->peer.pidfd = -1;
	/* who neither asks nor listens does not hold a thread for ever */
	set_limits(fd, VERB_SECONDS, VERB_SECONDS);
	r = cfs_peer_read(fd, &c->peer);
	c->entry.pidfd = c->peer.pidfd;
	c->entry.uid = c->peer.uid;
	if (!r && !cfs_callers_enter(&control->callers, &c->entry))
		r = -EAGAIN;
	if (!r) {
		r = start(c);
		if (!r)
			return;
		cfs_callers_leave(&control->callers, &c->entry);
	}
	answer(c, r, &err, NULL);
	caller_free(c);
}

static void *listen_loop(void *arg)
{
	struct cfs_control *control = arg;
	struct pollfd p[3] = {
		{.fd = control->listen_fd, .events = POLLIN},
		{.fd = control->stop_fd, .events = POLLIN},
		{.fd = control->callers.watch_fd, .events = POLLIN}};

	for (;;) {
		int fd;

		if (poll(p, 3, -1) < 0)
			continue;
		if (p[1].revents)
			return NULL;
		if (p[2].revents)
			cfs_callers_bury(&control->callers);
		if (!p[0].revents)
			continue;
		fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			take_caller(control, fd);
		else if (errno == EMFILE || errno == ENFILE)
			(void)poll(&p[1], 1, 100); /* until one is free */
	}
}

static void control_free(struct cfs_control *control)
{
	cfs_closep(&control->listen_fd);
	cfs_closep(&control->stop_fd);
	cfs_callers_fini(&control->callers);
	free(control->store_path);
	free(control);
}

static void control_freep(struct cfs_control **control)
{
	if (*control)
		control_free(*control);
}

/* Threads of ours get no signal: a pipe that broke is an errno. */
static int start_thread(struct cfs_control *control)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&control->thread, NULL, listen_loop, control);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

int cfs_control_start(const char *store_path, struct cfs_verb_context *context,
		      struct cfs_control **control_out, struct cfs_error *err)
{
	_cleanup_(control_freep) struct cfs_control *c = calloc(1, sizeof(*c));
	struct stat st;
	int r;

	if (!c)
		return -ENOMEM;
	c->callers.watch_fd = -1;
	c->listen_fd = c->stop_fd = -1;
	c->context = *context;
	r = cfs_callers_init(&c->callers);
	if (r < 0)
		return r;
	c->store_path = realpath(store_path, NULL);
	if (!c->store_path || stat(c->store_path, &st) < 0)
		return cfs_fail_prefix(err, -errno, "%s", store_path);
	c->owner = st.st_uid;
	c->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (c->stop_fd < 0)
		return -errno;
	r = cfs_wire_listen(c->store_path, &c->listen_fd);
	if (!r)
		r = start_thread(c);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s/%s", store_path,
				       CFS_CONTROL_NAME);
	*control_out = cfs_steal(c);
	return 0;
}

void cfs_control_stop(struct cfs_control *control)
{
	uint64_t one = 1;

	if (!control)
		return;
	cfs_callers_stop(&control->callers);
	if (write(control->stop_fd, &one, sizeof(one)) < 0)
		cfs_log_err(-errno, "stopping the control socket");
	pthread_join(control->thread, NULL);
	cfs_wire_unlisten(control->store_path);
	cfs_callers_wait(&control->callers);
	control_free(control);
}
