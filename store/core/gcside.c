/* The moments of a collection that must not meet others' (store_internal.h). */
#include "store/core/store_internal.h"

#include <errno.h>

#include "store/util/hash.h"

void cfs_gc_barrier(struct cfs_store *store, cfs_touch_fn *fn, void *arg)
{
	pthread_rwlock_wrlock(&store->object_lock);
	store->touch = fn;
	store->touch_arg = arg;
	pthread_rwlock_unlock(&store->object_lock);
}

bool cfs_store_collects(struct cfs_store *store)
{
	bool is;

	pthread_rwlock_rdlock(&store->object_lock);
	is = store->touch != NULL;
	pthread_rwlock_unlock(&store->object_lock);
	return is;
}

static int load(struct cfs_store *store, const struct cfs_record *record,
		const struct cfs_object_value *v, struct cfs_buf *out)
{
	uint8_t *p = cfs_buf_grow(out, v->stored_len);
	int r;

	if (!p)
		return -ENOMEM;
	r = cfs_packs_read(store->packs, cfs_object_place(v), 0, p,
			   v->stored_len);
	if (r < 0)
		return r;
	return cfs_hash64(p, v->stored_len, 0) == record->payload_hash
		       ? 0
		       : -EBADMSG;
}

static int says(struct cfs_store *store, bool is_map,
		const struct cfs_digest *digest,
		const struct cfs_object_value *v)
{
	struct cfs_object_value now;
	int r = cfs_object_locate(store, is_map, digest, &now);

	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : cfs_object_value_eq(&now, v);
}

int cfs_gc_move(struct cfs_store *store, const struct cfs_record *record,
		const struct cfs_object_value *from)
{
	_cleanup_(cfs_buf_free) struct cfs_buf payload = CFS_BUF_INIT;
	bool is_map = record->type == CFS_RECORD_MAP;
	struct cfs_place place;
	unsigned epoch;
	int r;

	r = says(store, is_map, &record->digest, from);
	if (r <= 0)
		return r;
	r = load(store, record, from, &payload);
	if (r < 0)
		return r;
	epoch = cfs_append_begin(store);
	r = cfs_append_record(store, record->type, record->flags,
			      &record->digest, record->raw_len, payload.data,
			      payload.len, false, &place, NULL);
	if (r == 0) {
		pthread_rwlock_wrlock(&store->object_lock);
		r = says(store, is_map, &record->digest, from);
		if (r > 0)
			r = cfs_append_key(
				store, is_map, &record->digest,
				cfs_object_value_of(place, record->raw_len));
		else if (r == 0)
			r = -EAGAIN; /* put elsewhere meanwhile */
		pthread_rwlock_unlock(&store->object_lock);
	}
	cfs_append_end(store, epoch);
	if (r == -EAGAIN)
		return 0;
	return r < 0 ? r : 1;
}

static int forget_one(struct cfs_store *store, bool is_map,
		      const struct cfs_digest *digest,
		      const struct cfs_object_value *place)
{
	struct cfs_key key;
	int r;

	pthread_mutex_lock(&store->move_lock);
	r = says(store, is_map, digest, place);
	if (r > 0) {
		if (is_map)
			cfs_key_map(&key, digest);
		else
			cfs_key_chunk(&key, digest);
		r = cfs_levels_del(store->levels, cfs_key_slice(&key));
	}
	pthread_mutex_unlock(&store->move_lock);
	return r;
}

int cfs_gc_forget(struct cfs_store *store, bool is_map,
		  const struct cfs_digest *digests,
		  const struct cfs_object_value *places, size_t n,
		  bool (*dead)(void *arg, const struct cfs_digest *digest),
		  void *arg)
{
	size_t i;
	int r = 0;

	pthread_rwlock_wrlock(&store->object_lock);
	for (i = 0; r >= 0 && i < n; i++)
		if (dead(arg, &digests[i]))
			r = forget_one(store, is_map, &digests[i], &places[i]);
	pthread_rwlock_unlock(&store->object_lock);
	return r < 0 ? r : 0;
}
