/*
 * The daemon's end of the control socket: one thread listens, each caller has
 * one of its own.  Stopping closes every connection, which verbs see when they
 * tell their progress, and waits for them.
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

#include "fs/daemon/verb.h"
#include "store/util/wire.h"
#include "store/util/log.h"

#define CALLERS_MAX	  16u
#define PROGRESS_EVERY_NS INT64_C(100000000)

struct cfs_control {
	char *store_path;
	struct cfs_verb_context context; /* a copy; callers copy it again */
	uid_t owner;
	int listen_fd, stop_fd;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping;	    /* guarded by lock */
	unsigned n_callers; /* guarded by lock */
};

struct caller {
	struct cfs_control *control;
	int fd;
	int fds[2];
	bool gone;
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

static bool is_stopping(struct cfs_control *control)
{
	bool stopping;

	pthread_mutex_lock(&control->lock);
	stopping = control->stopping;
	pthread_mutex_unlock(&control->lock);
	return stopping;
}

static void say(struct caller *c, cJSON *frame)
{
	if (!frame || cfs_wire_send(c->fd, frame, NULL, 0) < 0)
		c->gone = true;
	cJSON_Delete(frame);
}

static bool on_progress(void *arg, uint64_t done, uint64_t total,
			const char *what)
{
	struct caller *c = arg;
	int64_t now = now_ns();
	cJSON *frame, *p;

	if (c->gone || is_stopping(c->control) || cfs_wire_gone(c->fd))
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
static int authorise(const struct caller *c, struct cfs_verb_caller *who,
		     struct cfs_error *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	who->uid = cred.uid;
	who->gid = cred.gid;
	who->remote = true;
	if (cred.uid == 0 || cred.uid == c->control->owner)
		return 0;
	return cfs_fail(err, -EPERM,
			"%s: only root and the owner of the store (uid %u) "
			"may do that",
			c->control->store_path, (unsigned)c->control->owner);
}

static int perform(struct caller *c, cJSON **result_out, struct cfs_error *err)
{
	_cleanup_(json_freep) cJSON *request = NULL;
	_cleanup_(json_freep) cJSON *result = cJSON_CreateObject();
	struct cfs_verb_reply reply = {on_progress, on_line, c};
	struct cfs_verb_caller who = {.fds = {-1, -1}};
	struct cfs_verb_context context = c->control->context;
	const char *verb;
	int r;

	r = result ? authorise(c, &who, err) : -ENOMEM;
	if (r < 0)
		return r;
	r = cfs_wire_receive(c->fd, CFS_WIRE_REQUEST_MAX, &request, c->fds);
	if (r < 0)
		return cfs_fail_prefix(err, r, "the request");
	verb = cfs_verb_str(request, "verb");
	if (!verb)
		return cfs_fail(err, -EINVAL, "the request names no verb");
	memcpy(who.fds, c->fds, sizeof(who.fds));
	who.n_fds = (who.fds[0] >= 0) + (who.fds[1] >= 0);
	context.caller = &who;
	r = cfs_verb_run(&context, verb,
			 cJSON_GetObjectItemCaseSensitive(request, "arguments"),
			 &reply, result, err);
	if (!r)
		*result_out = cfs_steal(result);
	return r;
}

static void leave(struct cfs_control *control)
{
	pthread_mutex_lock(&control->lock);
	control->n_callers--;
	pthread_cond_broadcast(&control->changed);
	pthread_mutex_unlock(&control->lock);
}

static void *serve(void *arg)
{
	struct caller *c = arg;
	struct cfs_control *control = c->control;
	struct cfs_error err = {""};
	cJSON *result = NULL;
	int r;

	r = perform(c, &result, &err);
	answer(c, r, &err, result);
	cfs_closep(&c->fds[0]);
	cfs_closep(&c->fds[1]);
	close(c->fd);
	free(c);
	leave(control);
	return NULL;
}

/* A caller that neither asks nor listens does not hold a thread for ever. */
static void set_limits(int fd)
{
	struct timeval t = {.tv_sec = 10};

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

static bool enter(struct cfs_control *control)
{
	bool room;

	pthread_mutex_lock(&control->lock);
	room = !control->stopping && control->n_callers < CALLERS_MAX;
	control->n_callers += room;
	pthread_mutex_unlock(&control->lock);
	return room;
}

static void take_caller(struct cfs_control *control, int fd)
{
	struct caller *c = calloc(1, sizeof(*c));
	struct cfs_error err = {"too many callers at once; try again"};
	pthread_attr_t attr;
	pthread_t thread;
	int r = -EAGAIN;

	if (!c) {
		close(fd);
		return;
	}
	*c = (struct caller){control, fd, {-1, -1}, false, 0};
	set_limits(fd);
	if (enter(control)) {
		pthread_attr_init(&attr);
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		r = -pthread_create(&thread, &attr, serve, c);
		pthread_attr_destroy(&attr);
		if (!r)
			return;
		leave(control);
	}
	answer(c, r, &err, NULL);
	close(fd);
	free(c);
}

static void *listen_loop(void *arg)
{
	struct cfs_control *control = arg;
	struct pollfd p[2] = {{.fd = control->listen_fd, .events = POLLIN},
			      {.fd = control->stop_fd, .events = POLLIN}};

	for (;;) {
		int fd;

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			return NULL;
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
	pthread_cond_destroy(&control->changed);
	pthread_mutex_destroy(&control->lock);
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
	c->listen_fd = c->stop_fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	c->context = *context;
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
	pthread_mutex_lock(&control->lock);
	control->stopping = true;
	pthread_mutex_unlock(&control->lock);
	if (write(control->stop_fd, &one, sizeof(one)) < 0)
		cfs_log_err(-errno, "stopping the control socket");
	pthread_join(control->thread, NULL);
	cfs_wire_unlisten(control->store_path);
	pthread_mutex_lock(&control->lock);
	while (control->n_callers)
		pthread_cond_wait(&control->changed, &control->lock);
	pthread_mutex_unlock(&control->lock);
	control_free(control);
}
