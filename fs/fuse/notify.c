#define FUSE_USE_VERSION 312
#include "fs/fuse/notify.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "store/util/log.h"

#define WAIT_NS 900000000L

struct note {
	struct note *next;
	bool is_entry;
	uint64_t node;
	int64_t off, len; /* else; off < 0: attributes only */
	char name[];	  /* of an entry */
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
	if (note->is_entry)
		(void)fuse_lowlevel_notify_inval_entry(
			se, note->node, note->name, strlen(note->name));
	else
		(void)fuse_lowlevel_notify_inval_inode(se, note->node,
						       note->off, note->len);
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

/* @name: NULL for what concerns no entry. */
static void add(struct cfs_notify *notify, uint64_t node, const char *name,
		int64_t off, int64_t len)
{
	size_t size = name ? strlen(name) + 1 : 0;
	struct note *note = malloc(sizeof(*note) + size);

	if (!note) {
		cfs_log(CFS_LOG_WARN,
			"no memory to tell the kernel of a change");
		return;
	}
	*note = (struct note){
		.is_entry = name != NULL,
		.node = node,
		.off = off,
		.len = len,
	};
	if (name)
		memcpy(note->name, name, size);
	pthread_mutex_lock(&notify->lock);
	*notify->end = note;
	notify->end = &note->next;
	notify->queued++;
	pthread_cond_signal(&notify->more);
	pthread_mutex_unlock(&notify->lock);
}

void cfs_notify_entry(struct cfs_notify *notify, uint64_t dir, const char *name)
{
	add(notify, dir, name, 0, 0);
}

void cfs_notify_attr(struct cfs_notify *notify, uint64_t node)
{
	add(notify, node, NULL, -1, 0);
}

void cfs_notify_inode(struct cfs_notify *notify, uint64_t node)
{
	add(notify, node, NULL, 0, 0);
}

void cfs_notify_pages(struct cfs_notify *notify, uint64_t node, uint64_t off,
		      uint64_t len)
{
	add(notify, node, NULL, (int64_t)off, (int64_t)len);
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
