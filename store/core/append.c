/*
 * Appending: the lazy beginning of a pack, and the order between a record and
 * its key.
 *
 * A group's `t` names a position before which every record has its key in the
 * index.  Records are appended by many threads, and their keys put afterwards,
 * so the position is taken first and then those that began to append before it
 * are waited for (cfs_append_drain); only then the levels are frozen.
 */
#include "store/core/store_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/log.h"

int cfs_append_start(struct cfs_store *store)
{
	struct cfs_error err = {""};
	int r = 0;

	if (store->options.read_only)
		return -EROFS;
	if (atomic_load_explicit(&store->started, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&store->start_lock);
	if (!atomic_load_explicit(&store->started, memory_order_relaxed)) {
		r = cfs_packs_start(store->packs, store->recovered_end,
				    store->recovered_snapshot, &err);
		if (r == 0)
			atomic_store_explicit(&store->started, true,
					      memory_order_release);
	}
	pthread_mutex_unlock(&store->start_lock);
	if (r < 0)
		return cfs_log_err(r, "store %s: no pack can be begun: %s",
				   store->path, err.text);
	return 0;
}

unsigned cfs_append_begin(struct cfs_store *store)
{
	unsigned epoch;

	pthread_mutex_lock(&store->epoch_lock);
	epoch = store->epoch;
	store->appenders[epoch & 1]++;
	pthread_mutex_unlock(&store->epoch_lock);
	return epoch;
}

void cfs_append_end(struct cfs_store *store, unsigned epoch)
{
	pthread_mutex_lock(&store->epoch_lock);
	if (--store->appenders[epoch & 1] == 0)
		pthread_cond_broadcast(&store->epoch_over);
	pthread_mutex_unlock(&store->epoch_lock);
}

/* Whoever might still put one of the first @n has put it. */
static void forget_moves(struct cfs_store *store, size_t n)
{
	pthread_mutex_lock(&store->move_lock);
	store->n_moves -= n;
	if (n && store->n_moves)
		memmove(store->moves, store->moves + n,
			store->n_moves * sizeof(*store->moves));
	pthread_mutex_unlock(&store->move_lock);
}

/* One caller at a time: the leader of a round. */
struct cfs_position cfs_append_drain(struct cfs_store *store)
{
	struct cfs_position at = store->recovered_end;
	size_t stale;
	unsigned old;

	pthread_mutex_lock(&store->epoch_lock);
	/* Before the epoch changes: who begins in the new one appends behind
	 * it. */
	if (atomic_load_explicit(&store->started, memory_order_acquire))
		at = cfs_packs_end(store->packs);
	old = store->epoch++ & 1;
	pthread_mutex_lock(&store->move_lock);
	stale = store->n_moves;
	pthread_mutex_unlock(&store->move_lock);
	while (store->appenders[old])
		pthread_cond_wait(&store->epoch_over, &store->epoch_lock);
	pthread_mutex_unlock(&store->epoch_lock);
	forget_moves(store, stale);
	return at;
}

int cfs_append_record(struct cfs_store *store, enum cfs_record_type type,
		      uint8_t flags, const struct cfs_digest *digest,
		      uint32_t raw_len, const void *data, size_t len,
		      bool reserved, struct cfs_place *place_out,
		      struct cfs_position *at_out)
{
	uint64_t room = len + CFS_RECORD_HEAD_BYTES;
	struct cfs_position at;
	struct cfs_place place;
	struct iovec iov = {.iov_len = len};
	int r = cfs_append_start(store);

	/* iovec is for both directions; nothing is written through it here */
	iov.iov_base = (void *)(uintptr_t)data;
	if (r == 0 && !reserved)
		r = cfs_packs_reserve(store->packs, room, true);
	if (r < 0)
		return r;
	r = cfs_packs_append(store->packs, type, flags, digest, raw_len, &iov,
			     1, &place, &at);
	if (!reserved)
		cfs_packs_unreserve(store->packs, room);
	if (r < 0)
		return r;
	atomic_fetch_add_explicit(&store->appended_bytes, room,
				  memory_order_relaxed);
	if (place_out)
		*place_out = place;
	if (at_out)
		*at_out = at;
	return 0;
}

/* What was lost must not be taken for a copy of the next equal chunk. */
static int del_key(struct cfs_store *store, bool is_map,
		   const struct cfs_digest *digest)
{
	struct cfs_key key;

	if (is_map)
		cfs_key_map(&key, digest);
	else
		cfs_key_chunk(&key, digest);
	return cfs_levels_del(store->levels, cfs_key_slice(&key));
}

static int put_key(struct cfs_store *store, bool is_map,
		   const struct cfs_digest *digest,
		   const struct cfs_object_value *value)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_key key;

	if (is_map)
		cfs_key_map(&key, digest);
	else
		cfs_key_chunk(&key, digest);
	cfs_object_encode(value, &buf);
	if (buf.failed)
		return -ENOMEM;
	return cfs_levels_put(store->levels, cfs_key_slice(&key),
			      (struct cfs_slice){buf.data, buf.len});
}

/* Where it is by now, if packs had to write it again.  move_lock is held. */
static void follow_moves(const struct cfs_store *store,
			 struct cfs_object_value *value)
{
	size_t i;

	for (i = 0; i < store->n_moves; i++)
		if (cfs_object_value_eq(&store->moves[i].from, value))
			*value = store->moves[i].to;
}

int cfs_append_key(struct cfs_store *store, bool is_map,
		   const struct cfs_digest *digest,
		   struct cfs_object_value value)
{
	int r;

	pthread_mutex_lock(&store->move_lock);
	follow_moves(store, &value);
	r = value.pack ? put_key(store, is_map, digest, &value) : -EIO;
	pthread_mutex_unlock(&store->move_lock);
	return r;
}

int cfs_append_object(struct cfs_store *store, bool is_map,
		      const struct cfs_digest *digest, uint32_t raw_len,
		      const void *data, size_t len, bool reserved)
{
	unsigned epoch = cfs_append_begin(store);
	struct cfs_place place;
	int r;

	r = cfs_append_record(store, is_map ? CFS_RECORD_MAP : CFS_RECORD_CHUNK,
			      0, digest, raw_len, data, len, reserved, &place,
			      NULL);
	if (r == 0) {
		pthread_rwlock_rdlock(&store->object_lock);
		r = cfs_append_key(store, is_map, digest,
				   cfs_object_value_of(place, raw_len));
		if (r == 0 && store->touch)
			store->touch(store->touch_arg, is_map, digest);
		pthread_rwlock_unlock(&store->object_lock);
	}
	if (r == 0)
		cfs_doubt_drop(store, is_map, digest);
	cfs_append_end(store, epoch);
	return r;
}

/* For those who appended it and have not put its key. */
static int note_move(struct cfs_store *store,
		     const struct cfs_object_value *from,
		     const struct cfs_object_value *to)
{
	struct cfs_move *moves;

	moves = realloc(store->moves, (store->n_moves + 1) * sizeof(*moves));
	if (!moves)
		return -ENOMEM;
	store->moves = moves;
	store->moves[store->n_moves++] = (struct cfs_move){*from, *to};
	return 0;
}

/*
 * A record that packs wrote again: its key follows, unless the object has been
 * put elsewhere since.  Not under object_lock: whoever appends may hold it.
 */
void cfs_append_moved(void *arg, const struct cfs_record *record,
		      struct cfs_place from, struct cfs_place to)
{
	struct cfs_store *store = arg;
	bool is_map = record->type == CFS_RECORD_MAP;
	struct cfs_object_value now, then, next;
	bool lost = false;
	int r, noted;

	then = cfs_object_value_of(from, record->raw_len);
	next = cfs_object_value_of(to, record->raw_len);
	pthread_mutex_lock(&store->move_lock);
	noted = note_move(store, &then, &next);
	r = cfs_object_locate(store, is_map, &record->digest, &now);
	if (r == 0 && cfs_object_value_eq(&now, &then)) {
		lost = !to.pack.number;
		r = lost ? del_key(store, is_map, &record->digest)
			 : put_key(store, is_map, &record->digest, &next);
	}
	pthread_mutex_unlock(&store->move_lock);
	if (r == 0 || r == -ENOENT)
		r = noted;
	/* Where nobody has put the key yet, whoever appended it hears of it and
	 * still has the bytes. */
	if (lost || r < 0)
		atomic_store_explicit(&store->lost, true, memory_order_relaxed);
	if (r < 0) {
		char hex[CFS_DIGEST_HEX];

		(void)cfs_log_err(r, "the new place of %s is not kept",
				  cfs_digest_hex(&record->digest, hex));
	}
}
