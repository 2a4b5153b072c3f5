/* Descriptors of packs: a bounded number open, the least recently used go. */
#ifndef CFS_PACK_FDCACHE_H
#define CFS_PACK_FDCACHE_H

#include "store/pack/engine.h"

struct cfs_fdcache;

/* A pack that is open; its descriptor stays while it is held. */
struct cfs_fdcache_file {
	struct cfs_fdcache_file *prev, *next; /* newest first */
	struct cfs_pack_id id;
	int fd;
	unsigned refs; /* guarded by the cache's lock */
	bool gone;     /* removed: closed with the last reference */
	bool unnamed;  /* its directory was not synced since it was opened */
	uint64_t room; /* being written: still held by create, else 0 */
};

typedef int cfs_fdcache_open_fn(void *arg, struct cfs_pack_id id);

/* @open_fn: a new descriptor or a negative errno. */
struct cfs_fdcache *cfs_fdcache_new(unsigned limit,
				    cfs_fdcache_open_fn *open_fn, void *arg);
void cfs_fdcache_free(struct cfs_fdcache *cache);
/* Any thread.  Opens it if need be. */
CFS_MUST_CHECK int cfs_fdcache_get(struct cfs_fdcache *cache,
				   struct cfs_pack_id id,
				   struct cfs_fdcache_file **file_out);
void cfs_fdcache_put(struct cfs_fdcache *cache, struct cfs_fdcache_file *file);
/* Takes @fd over; held until cfs_fdcache_settle().  -ENOMEM. */
CFS_MUST_CHECK int cfs_fdcache_add(struct cfs_fdcache *cache,
				   struct cfs_pack_id id, int fd,
				   uint64_t room);
/* No longer written: from now on it may be closed like any other. */
void cfs_fdcache_settle(struct cfs_fdcache *cache, struct cfs_pack_id id);
/* Not found again; whoever holds it keeps its descriptor. */
void cfs_fdcache_drop(struct cfs_fdcache *cache, struct cfs_pack_id id);
/* Sum of the rooms of files being written. */
uint64_t cfs_fdcache_rooms(struct cfs_fdcache *cache);

#endif
