/* The thread of a link: sends what is ready, takes what comes. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include "rank_client/dev.h"
#include "rank_client/frame.h"
#include "rank_client/link_internal.h"
#include "rank_client/ring.h"
#include "store/util/wire.h"

#define WRITE_BYTES (64u << 10) /* of frames in one write */
#define EVENT_NS    100000	/* how often a device is asked */

/* ---- with the lock ---- */

/* @what: the words for it; NULL: the connection broke. */
static void die(struct cfs_link *link, int r, const char *what)
{
	struct cfs_link_call *call, *next;

	if (link->dead || link->stop)
		return;
	link->dead = r;
	if (what && r == -EPIPE)
		cfs_fail(&link->why, r, "%s: %s", link->store, what);
	else if (r == -EPIPE)
		cfs_fail(&link->why, r,
			 "%s: the daemon that had it mounted has ended; mount "
			 "it again, open it again and save again",
			 link->store);
	else
		cfs_fail(&link->why, r, "%s: %s: %s", link->store,
			 what ? what : "its connection", strerror(-r));
	for (call = link->calls; call; call = next) {
		next = call->next;
		call->done = true;
		if (call->dropped)
			free(call);
	}
	link->calls = NULL;
	link->calls_end = &link->calls;
	pthread_cond_broadcast(&link->changed);
}

static int take_free(struct cfs_link *link, const cJSON *list)
{
	struct cfs_ring *ring = link->ring;
	const cJSON *v;

	cJSON_ArrayForEach(v, list)
	{
		uint32_t slot = (uint32_t)v->valueint;

		if (!cJSON_IsNumber(v) || v->valueint < 0 ||
		    slot >= ring->slots || !ring->lent[slot])
			return -EBADMSG;
		link->taken_bytes += ring->lent[slot];
		ring->lent[slot] = 0;
		cfs_ring_give(ring, slot);
	}
	return 0;
}

/* Takes @json over. */
static int take_answer(struct cfs_link *link, cJSON *json)
{
	struct cfs_link_call *call = link->calls;

	if (!call) {
		cJSON_Delete(json);
		return -EBADMSG; /* nothing was asked */
	}
	link->calls = call->next;
	if (!link->calls)
		link->calls_end = &link->calls;
	call->answer = json;
	call->done = true;
	if (call->dropped) {
		cJSON_Delete(call->answer);
		free(call);
	}
	return 0;
}

/* Of a save, so that what is put for it can stop; or of all, as the last word.
 */
static int take_failed(struct cfs_link *link, const cJSON *failed)
{
	const cJSON *r = cJSON_GetObjectItemCaseSensitive(failed, "r");
	const char *text = cfs_frame_get_str(failed, "error");
	uint64_t save;

	if (!cJSON_IsNumber(r) || r->valueint >= 0 || !text)
		return -EBADMSG;
	if (!cJSON_HasObjectItem(failed, "save")) {
		die(link, -EPIPE, text);
		return 0;
	}
	if (cfs_frame_get_u64(failed, "save", &save) < 0)
		return -EBADMSG;
	link->failed_save = save;
	link->failed = cfs_fail(&link->failed_why, r->valueint, "%s", text);
	return 0;
}

static void take_frame(struct cfs_link *link, cJSON *json)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "free");
	const cJSON *failed = cJSON_GetObjectItemCaseSensitive(json, "failed");
	int r;

	if (cJSON_IsArray(list)) {
		r = take_free(link, list);
		cJSON_Delete(json);
	} else if (cJSON_IsObject(failed)) {
		r = take_failed(link, failed);
		cJSON_Delete(json);
	} else {
		r = take_answer(link, json);
	}
	if (r < 0)
		die(link, r, "the daemon speaks nonsense");
	pthread_cond_broadcast(&link->changed);
}

/* A copy failed: in the place of its bytes goes word of that. */
static void spoil(struct cfs_link *link, struct cfs_link_item *item, int r,
		  const struct cfs_error *err)
{
	unsigned i;

	if (!link->copy_failed) {
		link->copy_failed = r;
		link->copy_why = *err;
	}
	for (i = 0; i < item->n_slots; i++) {
		link->ring->lent[item->slots[i]] = 0;
		cfs_ring_give(link->ring, item->slots[i]);
	}
	cfs_buf_reset(&item->frames);
	cfs_frame_put_fail(&item->frames, r, err->text);
}

/* Is @item's event done, or has it none? */
static bool is_ready(struct cfs_link *link, struct cfs_link_item *item)
{
	struct cfs_error err = {""};
	int r;

	if (!item->event)
		return true;
	r = item->event->dev->ops->done(item->event, 0, &err);
	if (!r)
		return false;
	item->event->dev->ops->drop(item->event);
	item->event = NULL;
	link->n_events--;
	if (r < 0)
		spoil(link, item, r, &err);
	pthread_cond_broadcast(&link->changed);
	return true;
}

static void gather(struct cfs_link *link, struct cfs_buf *sending)
{
	while (link->out && sending->len < WRITE_BYTES &&
	       is_ready(link, link->out)) {
		struct cfs_link_item *item = link->out;

		cfs_buf_put(sending, item->frames.data, item->frames.len);
		if (item->frames.failed || sending->failed)
			die(link, -ENOMEM, "sending");
		link->out = item->next;
		if (!link->out)
			link->out_end = &link->out;
		cfs_link_item_free(item);
	}
	link->unsent = sending->len > 0;
}

static void release_held(struct cfs_link *link)
{
	struct cfs_link_item **at = &link->held;

	while (*at) {
		struct cfs_link_item *item = *at;
		unsigned i;

		if (!item->event->dev->ops->done(item->event, 0, NULL)) {
			at = &item->next;
			continue;
		}
		item->event->dev->ops->drop(item->event);
		for (i = 0; i < item->n_slots; i++)
			cfs_ring_give(link->ring, item->slots[i]);
		*at = item->next;
		cfs_link_item_free(item);
		pthread_cond_broadcast(&link->changed);
	}
}

/* ---- without it ---- */

/* What the socket takes of @sending at once. */
static int send_some(int fd, struct cfs_buf *sending, size_t *sent)
{
	while (*sent < sending->len) {
		ssize_t n =
			send(fd, sending->data + *sent, sending->len - *sent,
			     MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -EPIPE;
		*sent += (size_t)n;
	}
	cfs_buf_reset(sending);
	*sent = 0;
	return 0;
}

enum patience {
	NOW,
	SOON,
	FOREVER
};

/* Sleeps until there is something to do; is there something to receive? */
static bool wait_for(int fd, int wake, bool room, enum patience patience)
{
	struct timespec t = {0, patience == SOON ? EVENT_NS : 0};
	struct pollfd p[2] = {
		{.fd = wake, .events = POLLIN},
		{.fd = fd, .events = (short)(POLLIN | (room ? POLLOUT : 0))}};
	eventfd_t n;

	if (ppoll(p, 2, patience == FOREVER ? NULL : &t, NULL) <= 0)
		return false;
	if (p[0].revents)
		(void)eventfd_read(wake, &n);
	return p[1].revents & (POLLIN | POLLHUP | POLLERR);
}

/* The daemon sends a frame at once: what has begun also ends. */
static int receive(struct cfs_link *link)
{
	cJSON *json = NULL;
	int r = cfs_wire_receive(link->fd, CFS_WIRE_REPLY_MAX, &json, NULL);

	if (r < 0)
		return r;
	pthread_mutex_lock(&link->lock);
	take_frame(link, json);
	pthread_mutex_unlock(&link->lock);
	return 0;
}

/* The daemon takes nothing any more, but may have said why before. */
static int hear_out(struct cfs_link *link)
{
	int r;

	do
		r = receive(link);
	while (!r);
	return r;
}

/* One turn without the lock. */
static int talk(struct cfs_link *link, bool alive, struct cfs_buf *sending,
		size_t *sent, enum patience patience)
{
	bool had = sending->len > 0;
	int r = alive ? send_some(link->fd, sending, sent) : 0;

	if (r < 0)
		return hear_out(link);
	if (had && !sending->len)
		patience = NOW; /* there may be more */
	if (!wait_for(alive ? link->fd : -1, link->wake, sending->len > 0,
		      patience))
		return 0;
	return receive(link);
}

void *cfs_link_thread(void *arg)
{
	struct cfs_link *link = arg;
	struct cfs_buf sending = CFS_BUF_INIT;
	size_t sent = 0;

	pthread_mutex_lock(&link->lock);
	while (!link->stop) {
		bool alive = !link->dead, events;
		int r;

		release_held(link);
		if (alive && !sending.len) {
			gather(link, &sending);
			if (!link->unsent)
				pthread_cond_broadcast(&link->changed);
		}
		events = link->held || (alive && link->out && !sending.len);
		link->sleeping = true;
		pthread_mutex_unlock(&link->lock);
		r = talk(link, alive, &sending, &sent, events ? SOON : FOREVER);
		pthread_mutex_lock(&link->lock);
		link->sleeping = false;
		if (r < 0)
			die(link, r, NULL);
	}
	pthread_mutex_unlock(&link->lock);
	cfs_buf_free(&sending);
	return NULL;
}
