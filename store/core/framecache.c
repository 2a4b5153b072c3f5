/*
 * What reading decoded: frames, and heads of chunks.  Least recently used goes
 * first; sharded, so that readers seldom meet on a lock.  An entry that is held
 * outlives its eviction.
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
	unsigned refs; /* guarded by the shard's lock; the table's is one */
	size_t bytes;
	void *data, *extra; /* free()d with it */
};

struct shard {
	pthread_mutex_t lock;
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
	list_remove(s, e);
	s->bytes -= e->bytes;
	unref(e);
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
	if (e) {
		e->refs++;
		list_remove(s, e);
		list_push(s, e);
	}
	pthread_mutex_unlock(&s->lock);
	return e;
}

static void insert(struct cfs_framecache *c, struct shard *s, uint64_t h,
		   struct cfs_cached *e)
{
	struct cfs_cached **bucket = bucket_of(c, s, h);

	e->chain = *bucket;
	*bucket = e;
	list_push(s, e);
	s->bytes += e->bytes;
	while (s->bytes > c->shard_bytes && s->oldest != e) {
		struct cfs_cached *o = s->oldest;

		h = spread(&o->digest, o->index);
		evict(s, slot_of(bucket_of(c, s, h), &o->digest, o->index));
	}
}

struct cfs_cached *cfs_framecache_add(struct cfs_framecache *cache,
				      const struct cfs_digest *digest,
				      uint32_t index, void *data, size_t len,
				      void *extra)
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
	if (*slot && index != CFS_CACHE_HEAD) {
		struct cfs_cached *there = *slot;

		there->refs++;
		destroy(e);
		e = there;
	} else {
		if (*slot)
			evict(s, slot);
		insert(cache, s, h, e);
	}
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
