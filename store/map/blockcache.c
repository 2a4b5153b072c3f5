/*
 * One table, one lock, one condition for all: a block takes hundreds of
 * microseconds to compute, the table nanoseconds to look at.
 *
 *   absent -> LOADING -> READY (in the LRU list) -> evicted
 *                     -> FAILED (out of the table, waiters read the error)
 *
 * A block is freed when its last holder leaves; the table is one holder.
 */
#include "store/map/blockcache.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#define N_BUCKETS ((size_t)4096)

enum state {
	LOADING,
	READY,
	FAILED
};

struct cfs_block {
	uint64_t id, index;
	enum state state;
	int r; /* FAILED: why */
	unsigned refs;
	struct cfs_block *next; /* in the bucket */
	struct cfs_block *newer, *older;
	size_t len;
	uint8_t *data;
};

struct cfs_blockcache {
	pthread_mutex_t lock; /* guards all, and the blocks but for data */
	pthread_cond_t done;  /* some block is no longer LOADING */
	struct cfs_block *buckets[N_BUCKETS];
	struct cfs_block *newest, *oldest;
	size_t limit, bytes;
	uint64_t hits, computed;
};

struct cfs_blockcache *cfs_blockcache_new(size_t limit_bytes)
{
	struct cfs_blockcache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return NULL;
	cache->limit = limit_bytes;
	(void)pthread_mutex_init(&cache->lock, NULL);
	(void)pthread_cond_init(&cache->done, NULL);
	return cache;
}

static struct cfs_block **bucket_of(struct cfs_blockcache *cache, uint64_t id,
				    uint64_t index)
{
	uint64_t h = (id * 0x9e3779b97f4a7c15 + index) * 0xd6e8feb86659fd93;

	return &cache->buckets[(h >> 40) % N_BUCKETS];
}

static struct cfs_block *find(struct cfs_blockcache *cache, uint64_t id,
			      uint64_t index)
{
	struct cfs_block *b = *bucket_of(cache, id, index);

	while (b && (b->id != id || b->index != index))
		b = b->next;
	return b;
}

static void lru_remove(struct cfs_blockcache *cache, struct cfs_block *b)
{
	*(b->newer ? &b->newer->older : &cache->newest) = b->older;
	*(b->older ? &b->older->newer : &cache->oldest) = b->newer;
	b->newer = b->older = NULL;
}

static void lru_add(struct cfs_blockcache *cache, struct cfs_block *b)
{
	b->older = cache->newest;
	*(b->older ? &b->older->newer : &cache->oldest) = b;
	cache->newest = b;
}

/* Gives @n references back. */
static void unref(struct cfs_blockcache *cache, struct cfs_block *b, unsigned n)
{
	b->refs -= n;
	if (b->refs)
		return;
	cache->bytes -= b->len;
	free(b->data);
	free(b);
}

/* Out of the table; holders keep it, and the table's reference is the
 * caller's now. */
static void forget(struct cfs_blockcache *cache, struct cfs_block *b)
{
	struct cfs_block **at = bucket_of(cache, b->id, b->index);

	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
}

static void evict(struct cfs_blockcache *cache)
{
	struct cfs_block *b = cache->oldest, *newer;

	for (; b && cache->bytes > cache->limit; b = newer) {
		newer = b->newer;
		if (b->refs > 1)
			continue; /* in use; its holder evicts later */
		lru_remove(cache, b);
		forget(cache, b);
		unref(cache, b, 1);
	}
}

void cfs_blockcache_free(struct cfs_blockcache *cache)
{
	if (!cache)
		return;
	while (cache->oldest) {
		struct cfs_block *b = cache->oldest;

		assert(b->refs == 1);
		lru_remove(cache, b);
		forget(cache, b);
		unref(cache, b, 1);
	}
	(void)pthread_cond_destroy(&cache->done);
	(void)pthread_mutex_destroy(&cache->lock);
	free(cache);
}

void cfs_blockcache_freep(struct cfs_blockcache **cache)
{
	cfs_blockcache_free(*cache);
}

/* Called and left with the lock; gives the holder's reference back on error. */
static int wait_for(struct cfs_blockcache *cache, struct cfs_block *b)
{
	int r;

	b->refs++;
	cache->hits++;
	while (b->state == LOADING)
		(void)pthread_cond_wait(&cache->done, &cache->lock);
	if (b->state == FAILED) {
		r = b->r;
		unref(cache, b, 1);
		return r;
	}
	if (b->newer || cache->newest == b) { /* not evicted meanwhile */
		lru_remove(cache, b);
		lru_add(cache, b);
	}
	return 0;
}

static struct cfs_block *insert(struct cfs_blockcache *cache, uint64_t id,
				uint64_t index, size_t len)
{
	struct cfs_block *b = calloc(1, sizeof(*b));
	struct cfs_block **bucket = bucket_of(cache, id, index);

	if (!b)
		return NULL;
	b->id = id;
	b->index = index;
	b->len = len;
	b->refs = 2; /* the table's and the caller's */
	b->next = *bucket;
	*bucket = b;
	cache->bytes += len;
	cache->computed++;
	evict(cache);
	return b;
}

/* Called without the lock by the one thread that computes @b. */
static int fill(struct cfs_block *b, cfs_block_fn *fn, void *arg)
{
	b->data = malloc(b->len);
	return b->data ? fn(arg, b->data, b->len) : -ENOMEM;
}

int cfs_blockcache_get(struct cfs_blockcache *cache, uint64_t id,
		       uint64_t index, size_t len, cfs_block_fn *fn, void *arg,
		       struct cfs_block **block_out)
{
	struct cfs_block *b;
	int r;

	(void)pthread_mutex_lock(&cache->lock);
	b = find(cache, id, index);
	if (b) {
		r = wait_for(cache, b);
		goto out_unlock;
	}
	b = insert(cache, id, index, len);
	if (!b) {
		r = -ENOMEM;
		goto out_unlock;
	}
	(void)pthread_mutex_unlock(&cache->lock);
	r = fill(b, fn, arg);
	(void)pthread_mutex_lock(&cache->lock);
	if (r < 0) {
		b->state = FAILED;
		b->r = r;
		forget(cache, b);
		unref(cache, b, 2);
	} else {
		b->state = READY;
		lru_add(cache, b);
	}
	(void)pthread_cond_broadcast(&cache->done);
out_unlock:
	(void)pthread_mutex_unlock(&cache->lock);
	if (r < 0)
		return r;
	*block_out = b;
	return 0;
}

const uint8_t *cfs_blockcache_data(const struct cfs_block *block)
{
	return block->data;
}

void cfs_blockcache_put(struct cfs_blockcache *cache, struct cfs_block *block)
{
	(void)pthread_mutex_lock(&cache->lock);
	unref(cache, block, 1);
	evict(cache);
	(void)pthread_mutex_unlock(&cache->lock);
}

void cfs_blockcache_stats(struct cfs_blockcache *cache,
			  struct cfs_blockcache_stats *out)
{
	(void)pthread_mutex_lock(&cache->lock);
	*out = (struct cfs_blockcache_stats){.hits = cache->hits,
					     .computed = cache->computed,
					     .bytes = cache->bytes};
	(void)pthread_mutex_unlock(&cache->lock);
}
