/* A list in order of use under one lock; a few hundred entries at most. */
#include "store/pack/fdcache.h"

#include <errno.h>
#include <pthread.h>

struct cfs_fdcache {
	pthread_mutex_t lock;
	struct cfs_fdcache_file *first, *last; /* guarded by lock */
	unsigned count, limit;
	uint64_t drops; /* guarded by lock */
	cfs_fdcache_open_fn *open_fn;
	void *arg;
};

struct cfs_fdcache *cfs_fdcache_new(unsigned limit,
				    cfs_fdcache_open_fn *open_fn, void *arg)
{
	struct cfs_fdcache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return NULL;
	pthread_mutex_init(&cache->lock, NULL);
	cache->limit = limit;
	cache->open_fn = open_fn;
	cache->arg = arg;
	return cache;
}

static void file_free(struct cfs_fdcache_file *f)
{
	(void)close(f->fd);
	free(f);
}

static void unlink_file(struct cfs_fdcache *cache, struct cfs_fdcache_file *f)
{
	*(f->prev ? &f->prev->next : &cache->first) = f->next;
	*(f->next ? &f->next->prev : &cache->last) = f->prev;
	cache->count--;
}

static void link_first(struct cfs_fdcache *cache, struct cfs_fdcache_file *f)
{
	f->prev = NULL;
	f->next = cache->first;
	*(f->next ? &f->next->prev : &cache->last) = f;
	cache->first = f;
	cache->count++;
}

void cfs_fdcache_free(struct cfs_fdcache *cache)
{
	struct cfs_fdcache_file *f, *next;

	if (!cache)
		return;
	for (f = cache->first; f; f = next) {
		next = f->next;
		file_free(f);
	}
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

static struct cfs_fdcache_file *find(struct cfs_fdcache *cache,
				     struct cfs_pack_id id)
{
	struct cfs_fdcache_file *f;

	for (f = cache->first; f; f = f->next)
		if (f->id.number == id.number && f->id.lane == id.lane)
			return f;
	return NULL;
}

static void trim(struct cfs_fdcache *cache)
{
	struct cfs_fdcache_file *f, *prev;

	for (f = cache->last; f && cache->count > cache->limit; f = prev) {
		prev = f->prev;
		if (f->refs)
			continue;
		unlink_file(cache, f);
		file_free(f);
	}
}

static struct cfs_fdcache_file *hold(struct cfs_fdcache *cache,
				     struct cfs_pack_id id)
{
	struct cfs_fdcache_file *f = find(cache, id);

	if (!f)
		return NULL;
	f->refs++;
	if (f != cache->first) {
		unlink_file(cache, f);
		link_first(cache, f);
	}
	return f;
}

int cfs_fdcache_get(struct cfs_fdcache *cache, struct cfs_pack_id id,
		    struct cfs_fdcache_file **file_out)
{
	struct cfs_fdcache_file *f, *fresh;
	uint64_t drops;
	int fd;

	pthread_mutex_lock(&cache->lock);
	f = hold(cache, id);
	drops = cache->drops;
	pthread_mutex_unlock(&cache->lock);
	if (f) {
		*file_out = f;
		return 0;
	}
	fd = cache->open_fn(cache->arg, id);
	if (fd < 0)
		return fd;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh) {
		(void)close(fd);
		return -ENOMEM;
	}
	fresh->id = id;
	fresh->fd = fd;
	fresh->unnamed = true; /* the process before may have been killed */
	pthread_mutex_lock(&cache->lock);
	f = hold(cache, id); /* another thread may have been faster */
	if (!f) {
		f = cfs_steal(fresh);
		f->refs = 1;
		/* it may be the one that was removed: nobody else finds it */
		f->gone = drops != cache->drops;
		if (!f->gone) {
			link_first(cache, f);
			trim(cache);
		}
	}
	pthread_mutex_unlock(&cache->lock);
	if (fresh)
		file_free(fresh);
	*file_out = f;
	return 0;
}

static void put_locked(struct cfs_fdcache *cache, struct cfs_fdcache_file *file)
{
	if (--file->refs)
		return;
	if (file->gone)
		file_free(file);
	else
		trim(cache);
}

void cfs_fdcache_put(struct cfs_fdcache *cache, struct cfs_fdcache_file *file)
{
	pthread_mutex_lock(&cache->lock);
	put_locked(cache, file);
	pthread_mutex_unlock(&cache->lock);
}

int cfs_fdcache_add(struct cfs_fdcache *cache, struct cfs_pack_id id, int fd,
		    uint64_t room)
{
	struct cfs_fdcache_file *f = calloc(1, sizeof(*f));

	if (!f) {
		(void)close(fd);
		return -ENOMEM;
	}
	*f = (struct cfs_fdcache_file){.id = id,
				       .fd = fd,
				       .refs = 1,
				       .unnamed = true,
				       .room = CFS_MAX(room, (uint64_t)1)};
	pthread_mutex_lock(&cache->lock);
	link_first(cache, f);
	trim(cache);
	pthread_mutex_unlock(&cache->lock);
	return 0;
}

void cfs_fdcache_settle(struct cfs_fdcache *cache, struct cfs_pack_id id)
{
	struct cfs_fdcache_file *f;

	pthread_mutex_lock(&cache->lock);
	f = find(cache, id);
	if (f && f->room) {
		f->room = 0;
		put_locked(cache, f);
	}
	pthread_mutex_unlock(&cache->lock);
}

void cfs_fdcache_drop(struct cfs_fdcache *cache, struct cfs_pack_id id)
{
	struct cfs_fdcache_file *f;

	pthread_mutex_lock(&cache->lock);
	cache->drops++;
	f = find(cache, id);
	if (f) {
		unlink_file(cache, f);
		f->gone = true;
		f->refs += f->room ? 0 : 1;
		f->room = 0;
		put_locked(cache, f);
	}
	pthread_mutex_unlock(&cache->lock);
}

uint64_t cfs_fdcache_rooms(struct cfs_fdcache *cache)
{
	struct cfs_fdcache_file *f;
	uint64_t sum = 0;

	pthread_mutex_lock(&cache->lock);
	for (f = cache->first; f; f = f->next)
		sum += f->room;
	pthread_mutex_unlock(&cache->lock);
	return sum;
}
