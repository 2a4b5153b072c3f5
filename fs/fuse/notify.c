#define FUSE_USE_VERSION 312
#include "fs/fuse/notify.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "store/util/log.h"

#define WAIT_NS 200000000L

enum kind {
	ENTRY,
	ATTR,
	INODE
};

struct note {
	struct note *next;
	enum kind kind;
	uint64_t node;
	char name[]; /* ENTRY */
};

struct cfs_notify {
	struct fuse_session *session;
	pthread_t thread;
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t more, told;
	struct note *first, **end;
	uint64_t queued, done;
	bool stop;
};

static void tell(struct cfs_notify *notify, const struct note *note)
{
	struct fuse_session *se = notify->session;

	/* What the kernel does not know it answers with an error: fine. */
	if (note->kind == ENTRY)
		(void)fuse_lowlevel_notify_inval_entry(
			se, note->node, note->name, strlen(note->name));
	else
		(void)fuse_lowlevel_notify_inval_inode(
			se, note->node, note->kind == ATTR ? -1 : 0, 0);
}

static void *serve(void *arg)
{
	struct cfs_notify *notify = arg;
	struct note *note;

	pthread_mutex_lock(&notify->lock);
	while (!notify->stop) {
		note = notify->first;
		if (!note) {
			pthread_cond_wait(&notify->more, &notify->lock);
			continue;
		}
		notify->first = note->next;
		if (!notify->first)
			notify->end = &notify->first;
		pthread_mutex_unlock(&notify->lock);
		tell(notify, note);
		free(note);
		pthread_mutex_lock(&notify->lock);
		notify->done++;
		pthread_cond_broadcast(&notify->told);
	}
	pthread_mutex_unlock(&notify->lock);
	return NULL;
}

int cfs_notify_start(struct fuse_session *session,
		     struct cfs_notify **notify_out)
{
	struct cfs_notify *notify = calloc(1, sizeof(*notify));
	int r;

	if (!notify)
		return -ENOMEM;
	notify->session = session;
	notify->end = &notify->first;
	pthread_mutex_init(&notify->lock, NULL);
	pthread_cond_init(&notify->more, NULL);
	pthread_cond_init(&notify->told, NULL);
	r = -pthread_create(&notify->thread, NULL, serve, notify);
	if (r < 0) {
		free(notify);
		return r;
	}
	*notify_out = notify;
	return 0;
}

void cfs_notify_stop(struct cfs_notify *notify)
{
	struct note *note;

	if (!notify)
		return;
	pthread_mutex_lock(&notify->lock);
	notify->stop = true;
	pthread_cond_signal(&notify->more);
	pthread_mutex_unlock(&notify->lock);
	pthread_join(notify->thread, NULL);
	while ((note = notify->first)) {
		notify->first = note->next;
		free(note);
	}
	pthread_cond_destroy(&notify->told);
	pthread_cond_destroy(&notify->more);
	pthread_mutex_destroy(&notify->lock);
	free(notify);
}

static void add(struct cfs_notify *notify, enum kind kind, uint64_t node,
		const char *name)
{
	size_t len = strlen(name) + 1;
	struct note *note = malloc(sizeof(*note) + len);

	if (!note) {
		cfs_log(CFS_LOG_WARN, "no memory to tell the kernel about '%s'",
			name);
		return;
	}
	note->next = NULL;
	note->kind = kind;
	note->node = node;
	memcpy(note->name, name, len);
	pthread_mutex_lock(&notify->lock);
	*notify->end = note;
	notify->end = &note->next;
	notify->queued++;
	pthread_cond_signal(&notify->more);
	pthread_mutex_unlock(&notify->lock);
}

void cfs_notify_entry(struct cfs_notify *notify, uint64_t dir, const char *name)
{
	add(notify, ENTRY, dir, name);
}

void cfs_notify_attr(struct cfs_notify *notify, uint64_t node)
{
	add(notify, ATTR, node, "");
}

void cfs_notify_inode(struct cfs_notify *notify, uint64_t node)
{
	add(notify, INODE, node, "");
}

void cfs_notify_wait(struct cfs_notify *notify)
{
	struct timespec until;
	uint64_t target;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += WAIT_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&notify->lock);
	target = notify->queued;
	while (notify->done < target && !notify->stop)
		if (pthread_cond_timedwait(&notify->told, &notify->lock,
					   &until))
			break;
	pthread_mutex_unlock(&notify->lock);
}
