/*
 * Commits.  Callers share rounds: a round takes down all changes there are at
 * one moment (its cut) and makes them durable as one group, so a caller needs
 * the first round that is cut after its call.  The caller that finds no round
 * running leads the next one.
 *
 * A round: changes down (levels frozen) ─▶ participant resolves what was on its
 * way ─▶ BATCH records, GROUP record ─▶ sync ─▶ the frozen level settles in the
 * index.  Until the sync everything can be undone (thaw); after it nothing may:
 * a frozen level the index has no room for stays frozen and is settled first
 * thing in the next round.
 */
#include "store/core/store_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "store/util/endian.h"
#include "store/util/log.h"

/* A snapshot bounds what a rebuild replays: when this much was written since
 * the last one, and twice what it took. */
#define SNAPSHOT_AFTER (64u << 20)

struct round {
	struct cfs_store *store;
	struct cfs_position from; /* every record before it has its key */
	void *state;		  /* the participant's */
	bool cut;
	unsigned wish;
	int unsettled; /* why the index does not have the group; 0: it does */
};

void cfs_store_enter(struct cfs_store *store)
{
	pthread_rwlock_rdlock(&store->cut);
}

void cfs_store_leave(struct cfs_store *store)
{
	pthread_rwlock_unlock(&store->cut);
}

void cfs_store_set_participant(struct cfs_store *store,
			       const struct cfs_participant *participant)
{
	pthread_rwlock_wrlock(&store->cut);
	if (participant)
		store->participant = *participant;
	else
		memset(&store->participant, 0, sizeof(store->participant));
	pthread_rwlock_unlock(&store->cut);
}

uint64_t cfs_store_group(struct cfs_store *store)
{
	return atomic_load_explicit(&store->group, memory_order_relaxed);
}

/* What an earlier round left undone; nothing new is begun before. */
static int recover(struct cfs_store *s)
{
	int r;

	if (s->sync_failed) {
		r = cfs_packs_sync(s->packs);
		if (r < 0)
			return r;
		s->sync_failed = false;
	}
	if (s->frozen == CFS_FROZEN_SETTLE) {
		r = cfs_levels_settle(s->levels, &s->settle_extra);
		if (r < 0)
			return r;
		cfs_batch_fini(&s->settle_extra);
	} else if (s->frozen == CFS_FROZEN_THAW) {
		r = cfs_levels_thaw(s->levels);
		if (r < 0)
			return r;
	}
	s->frozen = CFS_FROZEN_NONE;
	return 0;
}

/* Who calls from now on needs the next round. */
static void note_cut(struct round *rd)
{
	struct cfs_store *s = rd->store;

	pthread_mutex_lock(&s->round_lock);
	s->rounds_cut++;
	rd->wish = s->wish;
	s->wish = 0;
	pthread_mutex_unlock(&s->round_lock);
	rd->cut = true;
}

/* 1: there is something to write, and it is frozen; 0: there is not. */
static int cut(struct round *rd)
{
	struct cfs_store *s = rd->store;
	int r = 0, need = 0;

	pthread_rwlock_wrlock(&s->cut);
	note_cut(rd);
	if (s->participant.cut)
		r = s->participant.cut(s->participant.arg, rd->wish != 0,
				       &rd->state);
	if (r == 0) {
		need = rd->state || cfs_levels_dirty(s->levels) ||
		       (rd->wish & (CFS_WISH_GROUP | CFS_WISH_SNAPSHOT)) ||
		       (rd->wish & CFS_WISH_CLEAN && !s->last_clean);
		if (need)
			r = cfs_levels_freeze(s->levels);
	}
	pthread_rwlock_unlock(&s->cut);
	if (r < 0 && rd->state)
		s->participant.done(s->participant.arg, rd->state, r);
	return r < 0 ? r : need;
}

/* The group's records, synced. */
static int write_group(struct round *rd, struct cfs_digest *digest_out)
{
	_cleanup_(cfs_batcher_fini) struct cfs_batcher b;
	struct cfs_store *s = rd->store;
	int r;

	r = cfs_batcher_init(&b, s,
			     rd->wish & CFS_WISH_CLEAN ? CFS_GROUP_CLEAN : 0);
	if (r == 0)
		r = cfs_levels_each_frozen(s->levels, cfs_batcher_add, &b);
	if (r == 0)
		r = cfs_batcher_end(&b, digest_out);
	if (r < 0)
		return r;
	r = cfs_packs_sync(s->packs);
	if (r < 0)
		s->sync_failed = true;
	else
		s->batch_bytes += b.bytes;
	return r;
}

/* A hint for recovery; itself not synced, and no harm if it is missing. */
static void append_synced(struct cfs_store *s)
{
	static const struct cfs_digest none;
	uint8_t payload[8];
	int r;

	cfs_put_le64(payload, cfs_store_group(s));
	r = cfs_append_record(s, CFS_RECORD_SYNCED, 0, &none, 0, payload,
			      sizeof(payload), false, NULL, NULL);
	if (r < 0)
		cfs_log(CFS_LOG_DEBUG, "group %llu is not marked as synced",
			(unsigned long long)cfs_store_group(s));
}

static void settle(struct round *rd)
{
	struct cfs_store *s = rd->store;
	struct cfs_applied a = {
		.group = cfs_store_group(s),
		.from = rd->from,
		.digest = s->group_digest,
	};
	int r;

	assert(!s->settle_extra.count);
	s->settle_extra = (struct cfs_batch)CFS_BATCH_INIT;
	cfs_applied_put(&s->settle_extra, &a);
	if (s->settle_extra.bytes.failed) {
		/* Without `t` the index only seems to be behind. */
		cfs_batch_fini(&s->settle_extra);
		s->settle_extra = (struct cfs_batch)CFS_BATCH_INIT;
	}
	r = cfs_levels_settle(s->levels, &s->settle_extra);
	if (r < 0) {
		s->frozen = CFS_FROZEN_SETTLE;
		rd->unsettled = r;
		(void)cfs_log_err(r,
				  "store %s: the index does not take group "
				  "%llu yet (the log has it)",
				  s->path, (unsigned long long)a.group);
		return;
	}
	cfs_batch_fini(&s->settle_extra);
}

static int write_round(struct round *rd)
{
	struct cfs_store *s = rd->store;
	struct cfs_digest digest;
	int r = 0;

	if (rd->state)
		r = s->participant.resolve(s->participant.arg, rd->state,
					   s->levels);
	if (r == 0)
		r = write_group(rd, &digest);
	if (r < 0) {
		if (cfs_levels_thaw(s->levels) < 0)
			s->frozen = CFS_FROZEN_THAW;
	} else {
		s->group_digest = digest;
		s->last_clean = rd->wish & CFS_WISH_CLEAN;
		atomic_fetch_add_explicit(&s->group, 1, memory_order_relaxed);
		settle(rd);
	}
	if (rd->state)
		s->participant.done(s->participant.arg, rd->state, r);
	if (r == 0)
		append_synced(s);
	return r;
}

static bool snapshot_due(const struct cfs_store *s)
{
	return s->batch_bytes > SNAPSHOT_AFTER &&
	       s->batch_bytes / 2 > s->snapshot_bytes;
}

static void maybe_snapshot(struct round *rd)
{
	struct cfs_store *s = rd->store;
	bool wished = rd->wish & CFS_WISH_SNAPSHOT;
	int r = rd->unsettled;

	if (!wished && (!snapshot_due(s) || rd->wish & CFS_WISH_CLEAN))
		return;
	/* It is made from the index, which must have everything. */
	if (!r)
		r = cfs_snapshot_write(s, rd->from);
	if (r == 0)
		append_synced(s);
	if (wished)
		s->snapshot_result = r;
}

static int run_round(struct round *rd)
{
	struct cfs_store *s = rd->store;
	int r = recover(s);

	if (r == 0) {
		rd->from = cfs_append_drain(s);
		r = cut(rd);
	}
	if (r > 0)
		r = write_round(rd);
	if (rd->cut && rd->wish & CFS_WISH_SNAPSHOT)
		s->snapshot_result = r;
	if (r == 0)
		maybe_snapshot(rd);
	return r;
}

/* round_lock is held before and after. */
static void lead_round(struct cfs_store *s)
{
	struct round rd = {.store = s};
	int r;

	s->round_running = true;
	pthread_mutex_unlock(&s->round_lock);
	r = run_round(&rd);
	pthread_mutex_lock(&s->round_lock);
	if (!rd.cut)
		s->rounds_cut++;
	s->rounds_done = s->rounds_cut;
	s->round_result = r;
	if (r == 0)
		s->round_good = s->rounds_done;
	s->round_running = false;
	pthread_cond_broadcast(&s->round_over);
}

int cfs_group_commit(struct cfs_store *store, unsigned wish)
{
	uint64_t need;
	int r;

	/* nothing can have been changed that would have to be kept */
	if (store->options.read_only)
		return wish & (CFS_WISH_GROUP | CFS_WISH_SNAPSHOT) ? -EROFS : 0;
	pthread_mutex_lock(&store->round_lock);
	need = store->rounds_cut + 1;
	store->wish |= wish;
	while (store->rounds_done < need) {
		if (store->round_running)
			pthread_cond_wait(&store->round_over,
					  &store->round_lock);
		else
			lead_round(store);
	}
	r = store->round_good >= need ? 0 : store->round_result;
	pthread_mutex_unlock(&store->round_lock);
	return r;
}

/* Bytes that were taken are gone: what there is is durable, but not all that
 * there should be.  Whoever asked to know is told, once. */
static int tell_lost(struct cfs_store *s)
{
	return atomic_exchange_explicit(&s->lost, false, memory_order_relaxed)
		       ? -EIO
		       : 0;
}

int cfs_store_commit(struct cfs_store *store)
{
	int r = cfs_group_commit(store, CFS_WISH_ALL);

	return r < 0 ? r : tell_lost(store);
}

int cfs_store_tick(struct cfs_store *store)
{
	return cfs_group_commit(store, 0);
}

static void *sync_now_and_then(void *arg)
{
	struct cfs_store *s = arg;
	struct timespec until;
	int r, last = 0;

	pthread_mutex_lock(&s->round_lock);
	while (!s->stopping) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += s->config.sync_seconds;
		if (pthread_cond_timedwait(&s->wake, &s->round_lock, &until) ==
		    0)
			continue;
		pthread_mutex_unlock(&s->round_lock);
		r = cfs_store_tick(s);
		if (r < 0 && r != last)
			(void)cfs_log_err(r, "store %s: sync failed", s->path);
		last = r;
		pthread_mutex_lock(&s->round_lock);
	}
	pthread_mutex_unlock(&s->round_lock);
	return NULL;
}

int cfs_group_init(struct cfs_store *store)
{
	pthread_rwlockattr_t rw;
	pthread_condattr_t monotonic;

	pthread_rwlockattr_init(&rw);
	pthread_rwlockattr_setkind_np(
		&rw, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&store->cut, &rw);
	pthread_rwlock_init(&store->object_lock, &rw);
	pthread_rwlock_init(&store->derive_lock, &rw);
	pthread_rwlockattr_destroy(&rw);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&store->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_init(&store->round_lock, NULL);
	pthread_cond_init(&store->round_over, NULL);
	pthread_mutex_init(&store->start_lock, NULL);
	pthread_mutex_init(&store->epoch_lock, NULL);
	pthread_cond_init(&store->epoch_over, NULL);
	pthread_mutex_init(&store->move_lock, NULL);
	pthread_mutex_init(&store->room_lock, NULL);
	pthread_mutex_init(&store->doubt_lock, NULL);
	store->settle_extra = (struct cfs_batch)CFS_BATCH_INIT;
	return 0;
}

void cfs_group_fini(struct cfs_store *store)
{
	cfs_batch_fini(&store->settle_extra);
	free(store->moves);
	pthread_rwlock_destroy(&store->cut);
	pthread_rwlock_destroy(&store->object_lock);
	pthread_rwlock_destroy(&store->derive_lock);
	pthread_cond_destroy(&store->wake);
	pthread_cond_destroy(&store->round_over);
	pthread_mutex_destroy(&store->round_lock);
	pthread_mutex_destroy(&store->start_lock);
	pthread_cond_destroy(&store->epoch_over);
	pthread_mutex_destroy(&store->epoch_lock);
	pthread_mutex_destroy(&store->move_lock);
	pthread_mutex_destroy(&store->room_lock);
	pthread_mutex_destroy(&store->doubt_lock);
}

int cfs_group_start_thread(struct cfs_store *store)
{
	int r = -pthread_create(&store->sync_thread, NULL, sync_now_and_then,
				store);

	store->sync_running = r == 0;
	return r;
}

void cfs_group_stop_thread(struct cfs_store *store)
{
	if (!store->sync_running)
		return;
	pthread_mutex_lock(&store->round_lock);
	store->stopping = true;
	pthread_cond_broadcast(&store->wake);
	pthread_mutex_unlock(&store->round_lock);
	pthread_join(store->sync_thread, NULL);
	store->sync_running = false;
}
