/*
 * What reading decoded: frames, and heads of chunks.  Least recently used goes
 * first; sharded, so that readers seldom meet on a lock.  An entry that is held
 * outlives its eviction.  A frame is loaded by one thread; others that want it
 * wait (read-ahead asks for neighbouring parts of one frame at once).
 */
#include "store/core/store_internal.h"

#include <string.h>

#define SHARDS 16u

struct cfs_cached {
	struct cfs_cached *chain; /* of its bucket */
	struct cfs_cached *newer, *older;
	struct shard *shard;
	struct cfs_digest digest;
	uint32_t index;
	/* guarded by the shard's lock: */
	unsigned refs; /* the table's is one */
	bool linked;   /* in the table */
	bool failed;   /* to load */
	size_t bytes;
	void *data, *extra; /* free()d with it */
};

struct shard {
	pthread_mutex_t lock;
	pthread_cond_t loaded;
	struct cfs_cached **buckets; /* guarded by lock, as all below */
	struct cfs_cached *newest, *oldest;
	size_t bytes;
};

struct cfs_framecache {
	size_t shard_bytes, n_buckets;
	struct shard shards[SHARDS];
};

struct cfs_framecache *cfs_framecache_new(size_t bytes)
{
	struct cfs_framecache *c = calloc(1, sizeof(*c));
	size_t i;

	if (!c)
		return NULL;
	c->shard_bytes = bytes / SHARDS;
	c->n_buckets = 64 + c->shard_bytes / (CFS_FRAME_BYTES / 4);
	for (i = 0; i < SHARDS; i++) {
		pthread_mutex_init(&c->shards[i].lock, NULL);
		pthread_cond_init(&c->shards[i].loaded, NULL);
		c->shards[i].buckets =
			calloc(c->n_buckets, sizeof(struct cfs_cached *));
		if (!c->shards[i].buckets) {
			cfs_framecache_free(c);
			return NULL;
		}
	}
	return c;
}

static void destroy(struct cfs_cached *e)
{
	free(e->data);
	free(e->extra);
	free(e);
}

void cfs_framecache_free(struct cfs_framecache *cache)
{
	struct cfs_cached *e, *older;
	size_t i;

	if (!cache)
		return;
	for (i = 0; i < SHARDS; i++) {
		for (e = cache->shards[i].newest; e; e = older) {
			older = e->older;
			destroy(e);
		}
		free(cache->shards[i].buckets);
		pthread_cond_destroy(&cache->shards[i].loaded);
		pthread_mutex_destroy(&cache->shards[i].lock);
	}
	free(cache);
}

/* Digests are evenly spread already. */
static uint64_t spread(const struct cfs_digest *digest, uint32_t index)
{
	uint64_t h;

	memcpy(&h, digest->bytes, sizeof(h));
	return (h ^ index) * 0x9e3779b97f4a7c15u;
}

static struct shard *shard_of(struct cfs_framecache *c, uint64_t h)
{
	return &c->shards[h >> 60];
}

static struct cfs_cached **bucket_of(const struct cfs_framecache *c,
				     const struct shard *s, uint64_t h)
{
	return &s->buckets[(h >> 8) % c->n_buckets];
}

static struct cfs_cached **slot_of(struct cfs_cached **bucket,
				   const struct cfs_digest *digest,
				   uint32_t index)
{
	while (*bucket && ((*bucket)->index != index ||
			   cfs_digest_cmp(&(*bucket)->digest, digest) != 0))
		bucket = &(*bucket)->chain;
	return bucket;
}

static void list_remove(struct shard *s, struct cfs_cached *e)
{
	if (e->newer)
		e->newer->older = e->older;
	else
		s->newest = e->older;
	if (e->older)
		e->older->newer = e->newer;
	else
		s->oldest = e->newer;
}

static void list_push(struct shard *s, struct cfs_cached *e)
{
	e->newer = NULL;
	e->older = s->newest;
	if (s->newest)
		s->newest->newer = e;
	else
		s->oldest = e;
	s->newest = e;
}

static void unref(struct cfs_cached *e)
{
	if (--e->refs == 0)
		destroy(e);
}

/* Out of the table; the entry lives on while it is held. */
static void evict(struct shard *s, struct cfs_cached **slot)
{
	struct cfs_cached *e = *slot;

	*slot = e->chain;
	e->linked = false;
	list_remove(s, e);
	s->bytes -= e->bytes;
	unref(e);
}

static void hold(struct shard *s, struct cfs_cached *e)
{
	e->refs++;
	list_remove(s, e);
	list_push(s, e);
}

struct cfs_cached *cfs_framecache_get(struct cfs_framecache *cache,
				      const struct cfs_digest *digest,
				      uint32_t index)
{
	uint64_t h = spread(digest, index);
	struct shard *s = shard_of(cache, h);
	struct cfs_cached *e;

	pthread_mutex_lock(&s->lock);
	e = *slot_of(bucket_of(cache, s, h), digest, index);
	if (e && !e->data)
		e = NULL; /* being loaded */
	if (e)
		hold(s, e);
	pthread_mutex_unlock(&s->lock);
	return e;
}

/* Back to the limit, sparing the one just used. */
static void shrink(struct cfs_framecache *c, struct shard *s,
		   const struct cfs_cached *e)
{
	uint64_t h;

	while (s->bytes > c->shard_bytes && s->oldest != e) {
		struct cfs_cached *o = s->oldest;

		h = spread(&o->digest, o->index);
		evict(s, slot_of(bucket_of(c, s, h), &o->digest, o->index));
	}
}

static void insert(struct cfs_framecache *c, struct shard *s, uint64_t h,
		   struct cfs_cached *e)
{
	struct cfs_cached **bucket = bucket_of(c, s, h);

	e->chain = *bucket;
	*bucket = e;
	e->linked = true;
	list_push(s, e);
	s->bytes += e->bytes;
	shrink(c, s, e);
}

struct cfs_cached *cfs_framecache_claim(struct cfs_framecache *cache,
					const struct cfs_digest *digest,
					uint32_t index, bool *load_out)
{
	uint64_t h = spread(digest, index);
	struct shard *s = shard_of(cache, h);
	struct cfs_cached *e;

	*load_out = false;
	pthread_mutex_lock(&s->lock);
	while ((e = *slot_of(bucket_of(cache, s, h), digest, index))) {
		hold(s, e);
		while (!e->data && !e->failed)
			pthread_cond_wait(&s->loaded, &s->lock);
		if (e->data)
			break;
		unref(e); /* who comes next tries anew */
	}
	if (!e) {
		e = calloc(1, sizeof(*e));
		if (e) {
			*e = (struct cfs_cached){
				.shard = s,
				.digest = *digest,
				.index = index,
				.refs = 2, /* the table's and the caller's */
				.bytes = sizeof(*e),
			};
			insert(cache, s, h, e);
			*load_out = true;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return e;
}

void cfs_framecache_loaded(struct cfs_framecache *cache,
			   struct cfs_cached *cached, void *data, size_t len)
{
	struct shard *s = cached->shard;
	struct cfs_cached **slot;
	uint64_t h = spread(&cached->digest, cached->index);

	pthread_mutex_lock(&s->lock);
	cached->data = data;
	cached->failed = !data;
	if (data && cached->linked) {
		cached->bytes += len;
		s->bytes += len;
		shrink(cache, s, cached);
	} else if (cached->linked) {
		slot = bucket_of(cache, s, h);
		evict(s, slot_of(slot, &cached->digest, cached->index));
	}
	pthread_cond_broadcast(&s->loaded);
	pthread_mutex_unlock(&s->lock);
}

struct cfs_cached *cfs_framecache_replace(struct cfs_framecache *cache,
					  const struct cfs_digest *digest,
					  uint32_t index, void *data,
					  size_t len, void *extra)
{
	uint64_t h = spread(digest, index);
	struct shard *s = shard_of(cache, h);
	struct cfs_cached *e = calloc(1, sizeof(*e)), **slot;

	if (!e) {
		free(data);
		free(extra);
		return NULL;
	}
	*e = (struct cfs_cached){
		.shard = s,
		.digest = *digest,
		.index = index,
		.refs = 2, /* the table's and the caller's */
		.bytes = sizeof(*e) + len,
		.data = data,
		.extra = extra,
	};
	pthread_mutex_lock(&s->lock);
	slot = slot_of(bucket_of(cache, s, h), digest, index);
	if (*slot)
		evict(s, slot);
	insert(cache, s, h, e);
	pthread_mutex_unlock(&s->lock);
	return e;
}

void cfs_framecache_drop(struct cfs_framecache *cache,
			 const struct cfs_digest *digest, uint32_t index)
{
	uint64_t h = spread(digest, index);
	struct shard *s = shard_of(cache, h);
	struct cfs_cached **slot;

	pthread_mutex_lock(&s->lock);
	slot = slot_of(bucket_of(cache, s, h), digest, index);
	if (*slot)
		evict(s, slot);
	pthread_mutex_unlock(&s->lock);
}

void cfs_framecache_put(struct cfs_cached *cached)
{
	struct shard *s;

	if (!cached)
		return;
	s = cached->shard;
	pthread_mutex_lock(&s->lock);
	unref(cached);
	pthread_mutex_unlock(&s->lock);
}

void cfs_framecache_putp(struct cfs_cached **cached)
{
	cfs_framecache_put(*cached);
}

void *cfs_cached_data(const struct cfs_cached *cached)
{
	return cached->data;
}

void *cfs_cached_extra(const struct cfs_cached *cached)
{
	return cached->extra;
}
