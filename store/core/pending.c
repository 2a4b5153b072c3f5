/*
 * Chunks on their way: queued, digested, found to be there already or encoded
 * and appended by a worker.
 *
 *   QUEUED ──▶ DONE (bytes dropped)
 *     ▲  └───▶ FAILED (bytes kept) ──┐
 *     └────── cfs_pending_wait() ◀───┘
 *
 * Two equal chunks at the same time: the second worker leaves its chunk with
 * the first one's (`flight`, `followers`) and goes on.
 */
#include "store/core/store_internal.h"

#include <errno.h>
#include <string.h>

#define FLIGHT 256u /* buckets: one for each first byte of a digest */

enum state {
	QUEUED,
	DONE,
	FAILED,
};

struct cfs_pending {
	struct cfs_job job;
	struct cfs_store *store;
	atomic_uint refs; /* relaxed up, acq_rel down */
	unsigned elem_size;
	size_t len;
	struct cfs_digest digest; /* the worker's; anyone's once DONE */
	/* guarded by pending_lock: */
	enum state state;
	int error; /* FAILED */
	unsigned readers;
	void *data;
	struct cfs_pending *followers;
	struct cfs_pending *next; /* follower; or in its bucket */
};

struct cfs_pending *cfs_pending_ref(struct cfs_pending *pending)
{
	atomic_fetch_add_explicit(&pending->refs, 1, memory_order_relaxed);
	return pending;
}

void cfs_pending_unref(struct cfs_pending *pending)
{
	struct cfs_store *s;

	if (!pending || atomic_fetch_sub_explicit(&pending->refs, 1,
						  memory_order_acq_rel) != 1)
		return;
	s = pending->store;
	if (pending->state == FAILED) {
		/* Nobody wants it any more. */
		pthread_mutex_lock(&s->pending_lock);
		s->failed_bytes -= pending->len;
		pthread_mutex_unlock(&s->pending_lock);
		cfs_store_unreserve(s, pending->len);
	}
	free(pending->data);
	free(pending);
}

void cfs_pending_unrefp(struct cfs_pending **pending)
{
	cfs_pending_unref(*pending);
}

/* The bytes go once they are in a pack and nobody reads them here. */
static void *detach(struct cfs_pending *p)
{
	return p->state == DONE && !p->readers ? cfs_steal(p->data) : NULL;
}

static void complete_one(struct cfs_pending *p, int r)
{
	struct cfs_store *s = p->store;
	void *data;

	pthread_mutex_lock(&s->pending_lock);
	p->state = r < 0 ? FAILED : DONE;
	p->error = r;
	s->in_flight -= p->len;
	if (r < 0) {
		s->failed_bytes += p->len;
		s->failed_error = r;
	}
	data = detach(p);
	pthread_cond_broadcast(&s->pending_over);
	pthread_mutex_unlock(&s->pending_lock);
	free(data);
	if (r == 0)
		cfs_store_unreserve(s, p->len);
	cfs_pending_unref(p); /* the job's */
}

/* Out of the table, then it and those who waited for it. */
static void complete(struct cfs_pending *p, int r)
{
	struct cfs_store *s = p->store;
	struct cfs_pending **slot = &s->flight[p->digest.bytes[0]];
	struct cfs_pending *f, *next;

	pthread_mutex_lock(&s->pending_lock);
	while (*slot != p)
		slot = &(*slot)->next;
	*slot = p->next;
	f = cfs_steal(p->followers);
	pthread_mutex_unlock(&s->pending_lock);
	for (; f; f = next) {
		next = f->next;
		f->digest = p->digest;
		if (r == 0)
			atomic_fetch_add_explicit(&s->dedup_bytes, f->len,
						  memory_order_relaxed);
		complete_one(f, r);
	}
	complete_one(p, r);
}

/* Enters the table; false: it follows an equal one that was there. */
static bool lead(struct cfs_pending *p)
{
	struct cfs_store *s = p->store;
	struct cfs_pending **bucket = &s->flight[p->digest.bytes[0]];
	struct cfs_pending *l;

	pthread_mutex_lock(&s->pending_lock);
	for (l = *bucket; l; l = l->next)
		if (cfs_digest_cmp(&l->digest, &p->digest) == 0)
			break;
	if (l) {
		p->next = l->followers;
		l->followers = p;
	} else {
		p->followers = NULL;
		p->next = *bucket;
		*bucket = p;
	}
	pthread_mutex_unlock(&s->pending_lock);
	return !l;
}

static int encode_and_append(struct cfs_pending *p, unsigned worker)
{
	struct cfs_store *s = p->store;
	struct cfs_buf *out = &s->encoded[worker];
	int r;

	/* on demand: a store that is only read needs none */
	if (!s->encoders[worker])
		s->encoders[worker] = cfs_encoder_new();
	if (!s->encoders[worker])
		return -ENOMEM;
	cfs_buf_reset(out);
	r = cfs_chunk_encode(s->encoders[worker], p->data, p->len, p->elem_size,
			     out);
	if (r == 0 && out->failed)
		r = -ENOMEM;
	if (r < 0)
		return r;
	return cfs_append_object(s, false, &p->digest, (uint32_t)p->len,
				 out->data, out->len, true);
}

/* Its digest is known. */
static void keep(struct cfs_pending *p, unsigned worker)
{
	struct cfs_store *s = p->store;
	int r;

	if (!lead(p))
		return;
	/* After it is in the table: whoever led before has put its key. */
	r = cfs_object_claim(s, false, &p->digest);
	if (r == 0)
		atomic_fetch_add_explicit(&s->dedup_bytes, p->len,
					  memory_order_relaxed);
	else
		r = encode_and_append(p, worker);
	complete(p, r);
}

static struct cfs_pending *of(struct cfs_job *job)
{
	return container_of(job, struct cfs_pending, job);
}

static void run(struct cfs_job *job, unsigned worker)
{
	struct cfs_pending *p = of(job), *q;

	job = cfs_workers_take(p->store->workers, run);
	if (!job) {
		cfs_digest_of(p->data, p->len, &p->digest);
		keep(p, worker);
		return;
	}
	q = of(job);
	cfs_digest_pair((const void *[]){p->data, q->data},
			(const size_t[]){p->len, q->len},
			(struct cfs_digest *[]){&p->digest, &q->digest});
	keep(p, worker);
	keep(q, worker);
}

static void submit(struct cfs_pending *p)
{
	p->job.run = run;
	cfs_workers_submit(p->store->workers, &p->job);
}

struct cfs_pending *cfs_store_ingest(struct cfs_store *store, void *data,
				     size_t len, unsigned elem_size)
{
	struct cfs_pending *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->store = store;
	p->elem_size = elem_size;
	p->len = len;
	p->data = data;
	atomic_init(&p->refs, 2); /* the caller's and the job's */
	atomic_fetch_add_explicit(&store->ingested_bytes, len,
				  memory_order_relaxed);
	pthread_mutex_lock(&store->pending_lock);
	while (store->in_flight &&
	       store->in_flight + len > store->options.in_flight_bytes)
		pthread_cond_wait(&store->pending_over, &store->pending_lock);
	store->in_flight += len;
	pthread_mutex_unlock(&store->pending_lock);
	submit(p);
	return p;
}

/* pending_lock is held. */
static bool retry(struct cfs_pending *p)
{
	struct cfs_store *s = p->store;

	if (p->state != FAILED)
		return false;
	s->failed_bytes -= p->len;
	s->in_flight += p->len;
	p->state = QUEUED;
	(void)cfs_pending_ref(p); /* the job's */
	submit(p);
	return true;
}

int cfs_pending_wait(struct cfs_pending *pending, struct cfs_digest *digest_out)
{
	struct cfs_store *s = pending->store;
	int r;

	pthread_mutex_lock(&s->pending_lock);
	(void)retry(pending);
	while (pending->state == QUEUED)
		pthread_cond_wait(&s->pending_over, &s->pending_lock);
	r = pending->state == FAILED ? pending->error : 0;
	pthread_mutex_unlock(&s->pending_lock);
	if (r == 0)
		*digest_out = pending->digest;
	return r;
}

int cfs_pending_poll(struct cfs_pending *pending, struct cfs_digest *digest_out)
{
	struct cfs_store *s = pending->store;
	int done;

	pthread_mutex_lock(&s->pending_lock);
	done = pending->state == DONE;
	pthread_mutex_unlock(&s->pending_lock);
	if (done)
		*digest_out = pending->digest;
	return done;
}

int cfs_pending_read(struct cfs_store *store, struct cfs_pending *pending,
		     uint32_t off, void *buf, size_t len)
{
	void *data;

	if (off > pending->len || len > pending->len - off)
		return -EINVAL;
	pthread_mutex_lock(&store->pending_lock);
	data = pending->state == DONE ? NULL : pending->data;
	if (data)
		pending->readers++;
	pthread_mutex_unlock(&store->pending_lock);
	if (!data)
		return cfs_store_read_chunk(store, &pending->digest, off, buf,
					    len);
	memcpy(buf, (const uint8_t *)data + off, len);
	pthread_mutex_lock(&store->pending_lock);
	pending->readers--;
	data = detach(pending);
	pthread_mutex_unlock(&store->pending_lock);
	free(data);
	return 0;
}

int cfs_pending_init(struct cfs_store *store)
{
	unsigned n;
	int r;

	pthread_mutex_init(&store->pending_lock, NULL);
	pthread_cond_init(&store->pending_over, NULL);
	store->flight = calloc(FLIGHT, sizeof(struct cfs_pending *));
	if (!store->flight)
		return -ENOMEM;
	r = cfs_workers_new(store->options.workers, &store->workers);
	if (r < 0)
		return r;
	n = cfs_workers_count(store->workers);
	store->encoders = calloc(n, sizeof(struct cfs_encoder *));
	store->encoded = calloc(n, sizeof(*store->encoded));
	return store->encoders && store->encoded ? 0 : -ENOMEM;
}

void cfs_pending_fini(struct cfs_store *store)
{
	unsigned i, n;

	if (store->workers) {
		n = cfs_workers_count(store->workers);
		cfs_workers_freep(&store->workers);
		for (i = 0; store->encoders && i < n; i++)
			cfs_encoder_free(store->encoders[i]);
		for (i = 0; store->encoded && i < n; i++)
			cfs_buf_free(&store->encoded[i]);
	}
	free(store->encoders);
	free(store->encoded);
	free(store->flight);
	pthread_cond_destroy(&store->pending_over);
	pthread_mutex_destroy(&store->pending_lock);
}
