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

enum {
	NOW,   /* somebody waits */
	LATER, /* what cannot be told before a request was answered */
	LANES
};

/* One thread each: what waits for a lock of the kernel's holds up no other. */
struct lane {
	struct cfs_notify *notify;
	pthread_t thread;
	pthread_cond_t more;
	struct note *first, **end;
	uint64_t queued, done;
};

struct cfs_notify {
	struct fuse_session *session;
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t told;
	struct lane lanes[LANES];
	unsigned running; /* threads */
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
	struct lane *lane = arg;
	struct cfs_notify *notify = lane->notify;
	struct note *note;

	pthread_mutex_lock(&notify->lock);
	while (!notify->stop) {
		note = lane->first;
		if (!note) {
			pthread_cond_wait(&lane->more, &notify->lock);
			continue;
		}
		lane->first = note->next;
		if (!lane->first)
			lane->end = &lane->first;
		pthread_mutex_unlock(&notify->lock);
		tell(notify, note);
		free(note);
		pthread_mutex_lock(&notify->lock);
		lane->done++;
		pthread_cond_broadcast(&notify->told);
	}
	pthread_mutex_unlock(&notify->lock);
	return NULL;
}

int cfs_notify_start(struct fuse_session *session,
		     struct cfs_notify **notify_out)
{
	struct cfs_notify *notify = calloc(1, sizeof(*notify));
	int r = 0;

	if (!notify)
		return -ENOMEM;
	notify->session = session;
	pthread_mutex_init(&notify->lock, NULL);
	pthread_cond_init(&notify->told, NULL);
	for (unsigned i = 0; i < LANES; i++) {
		struct lane *lane = &notify->lanes[i];

		lane->notify = notify;
		lane->end = &lane->first;
		pthread_cond_init(&lane->more, NULL);
	}
	for (unsigned i = 0; i < LANES && !r; i++) {
		r = -pthread_create(&notify->lanes[i].thread, NULL, serve,
				    &notify->lanes[i]);
		notify->running += !r;
	}
	if (r < 0) {
		cfs_notify_stop(notify);
		return r;
	}
	*notify_out = notify;
	return 0;
}

static void lane_fini(struct lane *lane)
{
	struct note *note;

	while ((note = lane->first)) {
		lane->first = note->next;
		free(note);
	}
	pthread_cond_destroy(&lane->more);
}

void cfs_notify_stop(struct cfs_notify *notify)
{
	if (!notify)
		return;
	pthread_mutex_lock(&notify->lock);
	notify->stop = true;
	for (unsigned i = 0; i < LANES; i++)
		pthread_cond_signal(&notify->lanes[i].more);
	pthread_mutex_unlock(&notify->lock);
	for (unsigned i = 0; i < notify->running; i++)
		pthread_join(notify->lanes[i].thread, NULL);
	for (unsigned i = 0; i < LANES; i++)
		lane_fini(&notify->lanes[i]);
	pthread_cond_destroy(&notify->told);
	pthread_mutex_destroy(&notify->lock);
	free(notify);
}

/* @name: NULL for what concerns no entry. */
static void add(struct cfs_notify *notify, unsigned which, uint64_t node,
		const char *name, int64_t off, int64_t len)
{
	struct lane *lane = &notify->lanes[which];
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
	*lane->end = note;
	lane->end = &note->next;
	lane->queued++;
	pthread_cond_signal(&lane->more);
	pthread_mutex_unlock(&notify->lock);
}

void cfs_notify_entry(struct cfs_notify *notify, uint64_t dir, const char *name)
{
	add(notify, NOW, dir, name, 0, 0);
}

void cfs_notify_entry_later(struct cfs_notify *notify, uint64_t dir,
			    const char *name)
{
	add(notify, LATER, dir, name, 0, 0);
}

void cfs_notify_attr(struct cfs_notify *notify, uint64_t node)
{
	add(notify, NOW, node, NULL, -1, 0);
}

void cfs_notify_inode(struct cfs_notify *notify, uint64_t node)
{
	add(notify, NOW, node, NULL, 0, 0);
}

void cfs_notify_pages(struct cfs_notify *notify, uint64_t node, uint64_t off,
		      uint64_t len)
{
	add(notify, NOW, node, NULL, (int64_t)off, (int64_t)len);
}

void cfs_notify_wait(struct cfs_notify *notify)
{
	struct lane *lane = &notify->lanes[NOW];
	struct timespec until;
	uint64_t target;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += WAIT_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&notify->lock);
	target = lane->queued;
	while (lane->done < target && !notify->stop)
		if (pthread_cond_timedwait(&notify->told, &notify->lock,
					   &until))
			break;
	pthread_mutex_unlock(&notify->lock);
}
