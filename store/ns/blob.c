/*
 * Bytes whose digest is not known yet.  A blob begins in memory, is handed to
 * ingest once, and whoever refers to it follows it there.
 */
#include "store/ns/content.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "store/core/store.h"

struct cfs_blob {
	struct cfs_store *store;
	uint64_t epoch;
	_Atomic unsigned refs;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t gone;  /* no longer going */
	enum cfs_blob_state state;
	bool tail;
	uint8_t *data; /* in memory only */
	size_t len, cap;
	uint64_t reserved; /* room in the store that is this blob's */
	struct cfs_pending *pending;
	struct cfs_digest digest;
};

struct cfs_blob *cfs_blob_new(struct cfs_store *store, size_t cap,
			      uint64_t epoch)
{
	struct cfs_blob *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->data = malloc(cap ? cap : 1);
	if (!b->data) {
		free(b);
		return NULL;
	}
	b->store = store;
	b->cap = cap;
	b->epoch = epoch;
	atomic_init(&b->refs, 1);
	(void)pthread_mutex_init(&b->lock, NULL);
	(void)pthread_cond_init(&b->gone, NULL);
	return b;
}

struct cfs_blob *cfs_blob_ref(struct cfs_blob *blob)
{
	atomic_fetch_add_explicit(&blob->refs, 1, memory_order_relaxed);
	return blob;
}

void cfs_blob_unref(struct cfs_blob *blob)
{
	/* acq_rel: what others did with it comes before the free */
	if (!blob || atomic_fetch_sub_explicit(&blob->refs, 1,
					       memory_order_acq_rel) != 1)
		return;
	if (blob->reserved)
		cfs_store_unreserve(blob->store, blob->reserved);
	cfs_pending_unref(blob->pending);
	(void)pthread_mutex_destroy(&blob->lock);
	(void)pthread_cond_destroy(&blob->gone);
	free(blob->data);
	free(blob);
}

void cfs_blob_unrefp(struct cfs_blob **blob)
{
	cfs_blob_unref(*blob);
}

uint64_t cfs_blob_epoch(const struct cfs_blob *blob)
{
	return blob->epoch;
}

enum cfs_blob_state cfs_blob_state(struct cfs_blob *blob)
{
	enum cfs_blob_state state;

	(void)pthread_mutex_lock(&blob->lock);
	state = blob->state;
	(void)pthread_mutex_unlock(&blob->lock);
	return state;
}

size_t cfs_blob_len(struct cfs_blob *blob)
{
	size_t len;

	(void)pthread_mutex_lock(&blob->lock);
	len = blob->len;
	(void)pthread_mutex_unlock(&blob->lock);
	return len;
}

void cfs_blob_set_tail(struct cfs_blob *blob, bool tail)
{
	(void)pthread_mutex_lock(&blob->lock);
	blob->tail = tail;
	(void)pthread_mutex_unlock(&blob->lock);
}

bool cfs_blob_is_tail(struct cfs_blob *blob)
{
	bool tail;

	(void)pthread_mutex_lock(&blob->lock);
	tail = blob->tail;
	(void)pthread_mutex_unlock(&blob->lock);
	return tail;
}

int cfs_blob_room(struct cfs_blob *blob, size_t more)
{
	size_t cap = blob->cap;
	uint8_t *data;
	int r = 0;

	if (blob->len + more <= cap)
		return 0;
	while (cap < blob->len + more)
		cap = cap ? cap * 2 : 4096;
	(void)pthread_mutex_lock(&blob->lock);
	data = realloc(blob->data, cap);
	if (data) {
		blob->data = data;
		blob->cap = cap;
	} else {
		r = -ENOMEM;
	}
	(void)pthread_mutex_unlock(&blob->lock);
	return r;
}

void cfs_blob_trim(struct cfs_blob *blob)
{
	uint8_t *data;

	(void)pthread_mutex_lock(&blob->lock);
	if (blob->state == CFS_BLOB_BUF && blob->len < blob->cap && blob->len) {
		data = realloc(blob->data, blob->len);
		if (data) {
			blob->data = data;
			blob->cap = blob->len;
		}
	}
	(void)pthread_mutex_unlock(&blob->lock);
}

void cfs_blob_append(struct cfs_blob *blob, const void *data, size_t len,
		     uint64_t *room)
{
	(void)pthread_mutex_lock(&blob->lock);
	assert(blob->state == CFS_BLOB_BUF && len <= blob->cap - blob->len);
	memcpy(blob->data + blob->len, data, len);
	blob->len += len;
	if (room) {
		uint64_t n = CFS_MIN(*room, (uint64_t)len);

		blob->reserved += n;
		*room -= n;
	}
	(void)pthread_mutex_unlock(&blob->lock);
}

void cfs_blob_write(struct cfs_blob *blob, size_t off, const void *data,
		    size_t len)
{
	(void)pthread_mutex_lock(&blob->lock);
	assert(blob->state == CFS_BLOB_BUF && off + len <= blob->len);
	memcpy(blob->data + off, data, len);
	(void)pthread_mutex_unlock(&blob->lock);
}

const uint8_t *cfs_blob_data(const struct cfs_blob *blob)
{
	return blob->data;
}

/* Of what @from has reserved, @n bytes for @to; its lock held. */
static void pass_room(struct cfs_blob *from, struct cfs_blob *to, uint64_t n)
{
	n = CFS_MIN(n, from->reserved);
	from->reserved -= n;
	to->reserved += n;
}

int cfs_blob_split(struct cfs_blob *blob, size_t at, size_t cap, uint64_t epoch,
		   bool keep, struct cfs_blob **rest_out)
{
	struct cfs_blob *rest = NULL;
	size_t n = blob->len - at;

	assert(at <= blob->len);
	if (n) {
		rest = cfs_blob_new(blob->store, CFS_MAX(cap, n), epoch);
		if (!rest)
			return -ENOMEM;
		(void)pthread_mutex_lock(&blob->lock);
		memcpy(rest->data, blob->data + at, n);
		rest->len = n;
		pass_room(blob, rest, n);
		if (!keep)
			blob->len = at;
		(void)pthread_mutex_unlock(&blob->lock);
	}
	*rest_out = rest;
	return 0;
}

int cfs_blob_copy(struct cfs_blob *blob, size_t off, size_t len, uint64_t epoch,
		  struct cfs_blob **copy_out)
{
	_cleanup_(cfs_blob_unrefp) struct cfs_blob *b = NULL;
	int r;

	b = cfs_blob_new(blob->store, len, epoch);
	if (!b)
		return -ENOMEM;
	r = cfs_blob_read(blob, off, b->data, len);
	if (r < 0)
		return r;
	b->len = len;
	*copy_out = cfs_steal(b);
	return 0;
}

int cfs_blob_take(struct cfs_blob *blob, size_t len, uint64_t epoch,
		  struct cfs_blob **copy_out)
{
	int r = cfs_blob_copy(blob, 0, len, epoch, copy_out);

	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&blob->lock);
	pass_room(blob, *copy_out, len);
	(void)pthread_mutex_unlock(&blob->lock);
	return 0;
}

/* Nobody is handing it over; lock held. */
static void settle(struct cfs_blob *blob)
{
	while (blob->state == CFS_BLOB_GOING)
		(void)pthread_cond_wait(&blob->gone, &blob->lock);
}

int cfs_blob_read(struct cfs_blob *blob, size_t off, void *buf, size_t len)
{
	_cleanup_(cfs_pending_unrefp) struct cfs_pending *pending = NULL;
	int r = 0;

	(void)pthread_mutex_lock(&blob->lock);
	settle(blob);
	if (off + len > blob->len)
		r = -ESTALE;
	else if (blob->state == CFS_BLOB_BUF)
		memcpy(buf, blob->data + off, len);
	else if (blob->state == CFS_BLOB_SENT)
		pending = cfs_pending_ref(blob->pending);
	else
		r = 1;
	(void)pthread_mutex_unlock(&blob->lock);
	if (pending)
		return cfs_pending_read(blob->store, pending, (uint32_t)off,
					buf, len);
	if (r == 1) /* the digest does not change any more */
		return cfs_store_read_chunk(blob->store, &blob->digest,
					    (uint32_t)off, buf, len);
	return r;
}

/*
 * Gives ingest the bytes of a blob that is going, with room for them.  On
 * failure they stay the blob's, and so does *@reserved.
 */
static int hand_over(struct cfs_blob *blob, uint8_t *data, uint64_t *reserved,
		     unsigned elem_size, struct cfs_pending **out)
{
	int r;

	if (*reserved < blob->len) {
		r = cfs_store_reserve(blob->store, blob->len - *reserved, true);
		if (r < 0)
			return r;
		*reserved = blob->len;
	}
	*out = cfs_store_ingest(blob->store, data, blob->len, elem_size);
	if (!*out)
		return -ENOMEM;
	if (*reserved > blob->len)
		cfs_store_unreserve(blob->store, *reserved - blob->len);
	return 0;
}

int cfs_blob_send(struct cfs_blob *blob, unsigned elem_size)
{
	struct cfs_pending *pending = NULL;
	uint64_t reserved;
	uint8_t *data;
	int r = 0;

	(void)pthread_mutex_lock(&blob->lock);
	settle(blob);
	if (blob->state == CFS_BLOB_BUF && blob->tail)
		r = -EAGAIN;
	if (blob->state != CFS_BLOB_BUF || r < 0) {
		(void)pthread_mutex_unlock(&blob->lock);
		return r;
	}
	blob->state = CFS_BLOB_GOING;
	data = cfs_steal(blob->data);
	reserved = blob->reserved;
	blob->reserved = 0;
	(void)pthread_mutex_unlock(&blob->lock);

	r = hand_over(blob, data, &reserved, elem_size, &pending);

	(void)pthread_mutex_lock(&blob->lock);
	if (r < 0) {
		blob->state = CFS_BLOB_BUF;
		blob->data = data;
		blob->reserved = reserved;
	} else {
		blob->state = CFS_BLOB_SENT;
		blob->pending = pending;
	}
	(void)pthread_cond_broadcast(&blob->gone);
	(void)pthread_mutex_unlock(&blob->lock);
	return r;
}

/* Remembers what a wait or a poll found. */
static void stored(struct cfs_blob *blob, const struct cfs_digest *digest)
{
	struct cfs_pending *old = NULL;

	(void)pthread_mutex_lock(&blob->lock);
	if (blob->state == CFS_BLOB_SENT) {
		blob->digest = *digest;
		blob->state = CFS_BLOB_STORED;
		old = cfs_steal(blob->pending);
	}
	(void)pthread_mutex_unlock(&blob->lock);
	cfs_pending_unref(old);
}

/* The pending chunk (1), the digest (0), or -EAGAIN. */
static int look(struct cfs_blob *blob, bool wait, struct cfs_digest *out,
		struct cfs_pending **pending_out)
{
	int r = -EAGAIN;

	(void)pthread_mutex_lock(&blob->lock);
	if (wait)
		settle(blob);
	if (blob->state == CFS_BLOB_STORED) {
		*out = blob->digest;
		r = 0;
	} else if (blob->state == CFS_BLOB_SENT) {
		*pending_out = cfs_pending_ref(blob->pending);
		r = 1;
	}
	(void)pthread_mutex_unlock(&blob->lock);
	return r;
}

int cfs_blob_digest(struct cfs_blob *blob, struct cfs_digest *out)
{
	_cleanup_(cfs_pending_unrefp) struct cfs_pending *pending = NULL;
	int r = look(blob, true, out, &pending);

	if (r != 1)
		return r;
	r = cfs_pending_wait(pending, out);
	if (r < 0)
		return r;
	stored(blob, out);
	return 0;
}

int cfs_blob_poll(struct cfs_blob *blob, struct cfs_digest *out)
{
	_cleanup_(cfs_pending_unrefp) struct cfs_pending *pending = NULL;
	int r = look(blob, false, out, &pending);

	if (r != 1)
		return r == 0;
	if (cfs_pending_poll(pending, out) != 1)
		return 0;
	stored(blob, out);
	return 1;
}
