#include "rank_client/link.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include "rank_client/dev.h"
#include "rank_client/link_internal.h"
#include "rank_client/ring.h"

#define GOODBYE_MS 5000

void cfs_link_item_free(struct cfs_link_item *item)
{
	cfs_buf_free(&item->frames);
	free(item);
}

void cfs_link_wake(struct cfs_link *link)
{
	if (!link->sleeping)
		return;
	link->sleeping = false;
	(void)eventfd_write(link->wake, 1);
}

/* A thread that no signal of the program's is delivered to. */
static int start_thread(struct cfs_link *link)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&link->thread, NULL, cfs_link_thread, link);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

static void free_memory(struct cfs_link *link)
{
	cfs_closep(&link->fd);
	cfs_closep(&link->wake);
	pthread_cond_destroy(&link->changed);
	pthread_mutex_destroy(&link->lock);
	free(link->store);
	free(link);
}

int cfs_link_new(int fd, struct cfs_ring *ring, const char *store,
		 struct cfs_link **out)
{
	struct cfs_link *link = calloc(1, sizeof(*link));
	pthread_condattr_t attr;
	int r;

	if (!link) {
		(void)close(fd);
		return -ENOMEM;
	}
	link->fd = fd;
	link->ring = ring;
	link->out_end = &link->out;
	link->calls_end = &link->calls;
	pthread_mutex_init(&link->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&link->changed, &attr);
	pthread_condattr_destroy(&attr);
	link->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	link->store = strdup(store);
	r = link->wake < 0 ? -errno : link->store ? 0 : -ENOMEM;
	if (!r)
		r = start_thread(link);
	if (r < 0) {
		free_memory(link);
		return r;
	}
	*out = link;
	return 0;
}

void cfs_link_forked(struct cfs_link *link)
{
	cfs_closep(&link->fd);
	cfs_closep(&link->wake);
	link->fd = link->wake = -1;
}

static struct timespec after(unsigned ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_nsec -= 1000000000;
		t.tv_sec++;
	}
	return t;
}

/* With the lock; false: the time is up. */
static bool wait_until(struct cfs_link *link, const struct timespec *end)
{
	return pthread_cond_timedwait(&link->changed, &link->lock, end) !=
	       ETIMEDOUT;
}

static void settle(struct cfs_link_item *item)
{
	while (item) {
		struct cfs_link_item *next = item->next;

		if (item->event) { /* it writes to the ring, or reads it */
			const struct cfs_dev_ops *ops = item->event->dev->ops;

			(void)ops->done(item->event, 1, NULL);
			ops->drop(item->event);
		}
		cfs_link_item_free(item);
		item = next;
	}
}

void cfs_link_free(struct cfs_link *link)
{
	struct timespec end = after(GOODBYE_MS);
	struct cfs_link_call *call, *next;

	if (!link)
		return;
	pthread_mutex_lock(&link->lock);
	while ((link->out || link->unsent) && !link->dead)
		if (!wait_until(link, &end))
			break;
	/* The daemon has to read all of it, which it does not once it finds
	 * that nobody hears its answers. */
	(void)shutdown(link->fd, SHUT_WR);
	while (!link->dead && wait_until(link, &end))
		;
	link->stop = true;
	cfs_link_wake(link);
	pthread_mutex_unlock(&link->lock);
	(void)shutdown(link->fd, SHUT_RDWR);
	pthread_join(link->thread, NULL);
	settle(link->out);
	settle(link->held);
	for (call = link->calls; call; call = next) {
		next = call->next;
		cJSON_Delete(call->answer);
		free(call);
	}
	free_memory(link);
}

/* With the lock. */
static int why_dead(struct cfs_link *link, struct cfs_error *err)
{
	return link->dead ? cfs_fail(err, link->dead, "%s", link->why.text) : 0;
}

int cfs_link_check(struct cfs_link *link, struct cfs_error *err)
{
	int r;

	pthread_mutex_lock(&link->lock);
	r = why_dead(link, err);
	pthread_mutex_unlock(&link->lock);
	return r;
}

/* With the lock. */
static int queue(struct cfs_link *link, struct cfs_link_item *item,
		 const uint32_t *lens, struct cfs_link_call *call,
		 struct cfs_error *err)
{
	unsigned i;
	int r = why_dead(link, err);

	if (r < 0)
		return r;
	for (i = 0; lens && i < item->n_slots; i++)
		link->ring->lent[item->slots[i]] = lens[i];
	if (call) {
		*link->calls_end = call;
		link->calls_end = &call->next;
	}
	link->n_events += item->event != NULL;
	*link->out_end = item;
	link->out_end = &item->next;
	cfs_link_wake(link);
	return 0;
}

int cfs_link_send(struct cfs_link *link, struct cfs_buf *frames,
		  const uint32_t *slots, const uint32_t *lens, unsigned n,
		  struct cfs_dev_event *event, struct cfs_link_call **call_out,
		  struct cfs_error *err)
{
	struct cfs_link_call *call = NULL;
	struct cfs_link_item *item;
	int r;

	item = calloc(1, sizeof(*item) + n * sizeof(*slots));
	if (call_out)
		call = calloc(1, sizeof(*call));
	if (!item || (call_out && !call) || frames->failed) {
		r = cfs_fail(err, -ENOMEM, "no memory for a message");
		goto fail;
	}
	item->event = event;
	item->frames = *frames;
	item->n_slots = n;
	if (n)
		memcpy(item->slots, slots, n * sizeof(*slots));
	pthread_mutex_lock(&link->lock);
	r = queue(link, item, lens, call, err);
	pthread_mutex_unlock(&link->lock);
	if (r < 0)
		goto fail;
	*frames = (struct cfs_buf)CFS_BUF_INIT;
	if (call_out)
		*call_out = call;
	return 0;
fail:
	free(item);
	free(call);
	cfs_link_give(link, slots, n, event);
	return r;
}

bool cfs_link_wait(struct cfs_link *link, struct cfs_link_call *call,
		   unsigned ms)
{
	struct timespec end = after(ms);
	bool done;

	pthread_mutex_lock(&link->lock);
	while (!call->done && ms && wait_until(link, &end))
		;
	done = call->done;
	pthread_mutex_unlock(&link->lock);
	return done;
}

int cfs_link_end(struct cfs_link *link, struct cfs_link_call *call,
		 cJSON **json_out, struct cfs_error *err)
{
	const cJSON *code, *text;
	int r = 0;

	pthread_mutex_lock(&link->lock);
	while (!call->done)
		pthread_cond_wait(&link->changed, &link->lock);
	if (!call->answer)
		r = why_dead(link, err);
	pthread_mutex_unlock(&link->lock);
	if (!r) {
		code = cJSON_GetObjectItemCaseSensitive(call->answer, "r");
		text = cJSON_GetObjectItemCaseSensitive(call->answer, "error");
		r = cJSON_IsNumber(code) ? code->valueint : -EBADMSG;
		if (r < 0 && cJSON_IsString(text) && text->valuestring[0])
			cfs_fail(err, r, "%s", text->valuestring);
		else if (r < 0)
			cfs_fail(err, r, "the daemon says: %s", strerror(-r));
	}
	if (r >= 0 && json_out)
		*json_out = cfs_steal(call->answer);
	cJSON_Delete(call->answer);
	free(call);
	return r < 0 ? r : 0;
}

void cfs_link_drop(struct cfs_link *link, struct cfs_link_call *call)
{
	bool done;

	if (!call)
		return;
	pthread_mutex_lock(&link->lock);
	done = call->done;
	call->dropped = true;
	pthread_mutex_unlock(&link->lock);
	if (done) {
		cJSON_Delete(call->answer);
		free(call);
	}
}

int cfs_link_take(struct cfs_link *link, unsigned ms, uint32_t *slot_out,
		  struct cfs_error *err)
{
	struct timespec end = after(ms);
	int r;

	pthread_mutex_lock(&link->lock);
	for (;;) {
		r = why_dead(link, err);
		if (!r)
			r = cfs_ring_take(link->ring, slot_out);
		if (r || !ms || !wait_until(link, &end))
			break;
	}
	pthread_mutex_unlock(&link->lock);
	return r;
}

void cfs_link_give(struct cfs_link *link, const uint32_t *slots, unsigned n,
		   struct cfs_dev_event *event)
{
	struct cfs_link_item *item = NULL;
	unsigned i;

	if (event) {
		item = calloc(1, sizeof(*item) + n * sizeof(*slots));
		if (!item) {
			(void)event->dev->ops->done(event, 1, NULL);
			event->dev->ops->drop(event);
		}
	}
	pthread_mutex_lock(&link->lock);
	if (item) {
		item->event = event;
		item->n_slots = n;
		memcpy(item->slots, slots, n * sizeof(*slots));
		item->next = link->held;
		link->held = item;
		cfs_link_wake(link);
	} else {
		for (i = 0; i < n; i++)
			cfs_ring_give(link->ring, slots[i]);
		pthread_cond_broadcast(&link->changed);
	}
	pthread_mutex_unlock(&link->lock);
}

int cfs_link_copied(struct cfs_link *link, unsigned ms, struct cfs_error *err)
{
	struct timespec end = after(ms);
	int r;

	pthread_mutex_lock(&link->lock);
	while (link->n_events && !link->dead && ms && wait_until(link, &end))
		;
	r = link->copy_failed ? cfs_fail(err, link->copy_failed, "%s",
					 link->copy_why.text)
	    : link->dead      ? why_dead(link, err)
			      : !link->n_events;
	pthread_mutex_unlock(&link->lock);
	return r;
}

int cfs_link_failed(struct cfs_link *link, uint64_t save, struct cfs_error *err)
{
	int r = 0;

	pthread_mutex_lock(&link->lock);
	if (link->failed < 0 && link->failed_save == save)
		r = cfs_fail(err, link->failed, "%s", link->failed_why.text);
	pthread_mutex_unlock(&link->lock);
	return r;
}

uint64_t cfs_link_taken(struct cfs_link *link)
{
	uint64_t n;

	pthread_mutex_lock(&link->lock);
	n = link->taken_bytes;
	pthread_mutex_unlock(&link->lock);
	return n;
}
