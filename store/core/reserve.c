/*
 * Room for data that callers have taken but packs have not yet: counted in
 * bytes of data, held in bytes of packs.
 *
 * Callers reserve in small steps and give back in large ones (or the other way
 * round), so what packs hold is a function of the sum; it is changed in steps
 * of a slab, to ask packs rarely.
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

int cfs_store_reserve(struct cfs_store *store, uint64_t bytes, bool urgent)
{
	uint64_t need, more;
	int r = cfs_append_start(store);

	if (r < 0)
		return r;
	/* Chunks that cannot be written stay in memory: no more of them. */
	pthread_mutex_lock(&store->pending_lock);
	if (store->failed_bytes > store->options.in_flight_bytes)
		r = store->failed_error;
	pthread_mutex_unlock(&store->pending_lock);
	if (r < 0)
		return r;
	pthread_mutex_lock(&store->room_lock);
	need = cfs_reserve_worst(store->room_data + bytes);
	if (need > store->room_held) {
		more = need - store->room_held;
		r = -ENOSPC;
		if (more < store->slab)
			r = cfs_packs_reserve(store->packs, store->slab, false);
		if (r == 0)
			store->room_held += store->slab;
		else {
			r = cfs_packs_reserve(store->packs, more, urgent);
			if (r == 0)
				store->room_held += more;
		}
	}
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
