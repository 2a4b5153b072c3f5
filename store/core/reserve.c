/*
 * Room for data that callers have taken but packs have not yet: counted in
 * bytes of data, held in bytes of packs.
 *
 * Callers reserve in small steps and give back in large ones (or the other way
 * round), so what packs hold is a function of the sum; it is changed in steps
 * of a slab.  Packs are asked each time all the same: what was appended since
 * took room, and bytes that come in its place need their own.
 */
#include "store/core/store_internal.h"

#include <assert.h>
#include <errno.h>

/* Chunks are rarely below 16 KiB; what tiny ones need beyond this comes from
 * the room kept for deletions. */
uint64_t cfs_reserve_worst(uint64_t bytes)
{
	return bytes + bytes / 64;
}

/* Packs promise @more, a slab at a time as long as they can; room_lock held. */
static int hold_more(struct cfs_store *store, uint64_t more, bool urgent)
{
	int r = -ENOSPC;

	if (more < store->slab)
		r = cfs_packs_reserve(store->packs, store->slab, false);
	if (r == 0) {
		store->room_held += store->slab;
		return 0;
	}
	r = cfs_packs_reserve(store->packs, more, urgent);
	if (r == 0)
		store->room_held += more;
	return r;
}

/*
 * What was appended since packs were asked last has used up some of their room,
 * although as much as before is promised: there must be new room for it, or
 * data would flow into what is kept for deletions.
 */
static int hold_on(struct cfs_store *store, uint64_t need, bool urgent)
{
	int r = cfs_packs_reserve(store->packs, 0, urgent);

	if ((r != -ENOSPC && r != -EDQUOT) || store->room_held == need)
		return r;
	cfs_packs_unreserve(store->packs, store->room_held - need);
	store->room_held = need;
	return cfs_packs_reserve(store->packs, 0, urgent);
}

int cfs_store_reserve(struct cfs_store *store, uint64_t bytes, bool urgent)
{
	uint64_t need;
	int r = cfs_append_start(store);

	if (r < 0)
		return r;
	/* Chunks that cannot be written stay in memory: no more of them. */
	pthread_mutex_lock(&store->pending_lock);
	if (!urgent && store->failed_bytes > store->options.in_flight_bytes)
		r = store->failed_error;
	pthread_mutex_unlock(&store->pending_lock);
	if (r < 0)
		return r;
	pthread_mutex_lock(&store->room_lock);
	need = cfs_reserve_worst(store->room_data + bytes);
	r = need > store->room_held
		    ? hold_more(store, need - store->room_held, urgent)
		    : hold_on(store, need, urgent);
	if (r == 0)
		store->room_data += bytes;
	pthread_mutex_unlock(&store->room_lock);
	return r;
}

void cfs_store_unreserve(struct cfs_store *store, uint64_t bytes)
{
	uint64_t need, less;

	pthread_mutex_lock(&store->room_lock);
	assert(bytes <= store->room_data);
	store->room_data -= bytes;
	need = cfs_reserve_worst(store->room_data);
	less = store->room_held - need;
	/* One slab is kept while there is traffic. */
	if (less >= 2 * store->slab || (!store->room_data && less)) {
		if (store->room_data)
			less -= store->slab;
		store->room_held -= less;
		cfs_packs_unreserve(store->packs, less);
	}
	pthread_mutex_unlock(&store->room_lock);
}
