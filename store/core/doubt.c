/*
 * Objects whose stored record was found damaged since the store was opened: one
 * of the same bytes is stored anew, not taken for there already, and so what
 * refers to it is whole again.  The younger record counts from then on.
 */
#include "store/core/store_internal.h"

#include <errno.h>

#include "store/index/tree.h"

static void key_of(bool is_map, const struct cfs_digest *digest,
		   struct cfs_key *key)
{
	if (is_map)
		cfs_key_map(key, digest);
	else
		cfs_key_chunk(key, digest);
}

void cfs_doubt_add(struct cfs_store *store, bool is_map,
		   const struct cfs_digest *digest)
{
	static const struct cfs_slice nothing = {"", 0};
	struct cfs_key key;

	key_of(is_map, digest, &key);
	pthread_mutex_lock(&store->doubt_lock);
	/* without memory it is found again by who reads it next */
	if (cfs_memtree_put(&store->doubted, cfs_key_slice(&key), &nothing) > 0)
		atomic_fetch_add_explicit(&store->n_doubted, 1,
					  memory_order_relaxed);
	pthread_mutex_unlock(&store->doubt_lock);
}

bool cfs_doubt_has(struct cfs_store *store, bool is_map,
		   const struct cfs_digest *digest)
{
	struct cfs_key key;
	bool found;

	/* relaxed: who was told of the damage comes after it anyway */
	if (!atomic_load_explicit(&store->n_doubted, memory_order_relaxed))
		return false;
	key_of(is_map, digest, &key);
	pthread_mutex_lock(&store->doubt_lock);
	found = cfs_memtree_get(store->doubted, cfs_key_slice(&key));
	pthread_mutex_unlock(&store->doubt_lock);
	return found;
}

void cfs_doubt_drop(struct cfs_store *store, bool is_map,
		    const struct cfs_digest *digest)
{
	struct cfs_key key;

	if (!cfs_doubt_has(store, is_map, digest))
		return;
	key_of(is_map, digest, &key);
	pthread_mutex_lock(&store->doubt_lock);
	if (cfs_memtree_get(store->doubted, cfs_key_slice(&key))) {
		/* nobody shares the tree, so no memory is needed */
		(void)(cfs_memtree_remove(&store->doubted,
					  cfs_key_slice(&key)) < 0);
		atomic_fetch_sub_explicit(&store->n_doubted, 1,
					  memory_order_relaxed);
	}
	pthread_mutex_unlock(&store->doubt_lock);
	/* it may say where the damaged one is */
	cfs_framecache_drop(store->cache, digest, CFS_CACHE_HEAD);
}

void cfs_doubt_fini(struct cfs_store *store)
{
	cfs_memtree_unref(store->doubted);
	store->doubted = NULL;
}
