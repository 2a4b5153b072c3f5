/* Making appended records durable, and writing them again when that failed. */
#include "store/pack/packs_internal.h"

#include <errno.h>

#include "store/util/hash.h"
#include "store/util/log.h"

/* ---- mending ---- */

static int payload_read(struct cfs_packs *packs, struct cfs_record *record,
			struct cfs_place place, uint8_t **data_out)
{
	_cleanup_(cfs_freep) uint8_t *data = malloc(place.len + 1u);
	int r;

	if (!data)
		return -ENOMEM;
	r = cfs_packs_record(packs, place, record);
	if (r == 0)
		r = cfs_packs_read(packs, place, 0, data, place.len);
	if (r == 0 && cfs_hash64(data, place.len, 0) != record->payload_hash)
		r = -EBADMSG;
	if (r < 0)
		return r;
	*data_out = cfs_steal(data);
	return 0;
}

/* ---- another copy of what was lost: gc was copying it, or it was healed ----
 */

struct other {
	struct cfs_packs *packs;
	const struct cfs_record *record;
	struct cfs_position before; /* durable up to there */
	struct cfs_place place;
};

static int is_other(void *arg, const struct cfs_record *record,
		    struct cfs_place place, struct cfs_position at)
{
	struct other *o = arg;

	if (record->type != o->record->type ||
	    cfs_digest_cmp(&record->digest, &o->record->digest) != 0 ||
	    (at.pack == o->before.pack && at.off >= o->before.off) ||
	    cfs_packs_verify(o->packs, record, place) < 0)
		return 0;
	o->place = place;
	return 1;
}

static int other_in_pack(void *arg, struct cfs_pack_id id, uint64_t size)
{
	struct other *o = arg;
	int r;

	(void)size;
	if (id.lane != CFS_PACKS_LANE || id.number > o->before.pack)
		return 0;
	r = cfs_packs_objects(o->packs, id, is_other, o, NULL);
	return r > 0; /* one that cannot be read has none */
}

/* Pack 0: there is none. */
static struct cfs_place other_copy(struct cfs_packs *packs,
				   const struct cfs_record *record)
{
	struct other o = {.packs = packs, .record = record};

	pthread_mutex_lock(&packs->lock);
	o.before = packs->good;
	pthread_mutex_unlock(&packs->lock);
	(void)packs->engine->ops->list(packs->engine, other_in_pack, &o);
	return o.place;
}

static int move_one(struct cfs_packs *packs, const struct cfs_packs_pack *pack,
		    const struct cfs_packs_entry *e)
{
	_cleanup_(cfs_freep) uint8_t *data = NULL;
	struct cfs_place from = {cfs_packs_id(pack->number), e->off, e->len};
	struct cfs_place to = {0};
	struct cfs_record record;
	struct iovec iov;
	int r;

	r = payload_read(packs, &record, from, &data);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		record = (struct cfs_record){.type = e->type,
					     .digest = e->digest,
					     .payload_len = e->len,
					     .raw_len = e->raw_len};
		to = other_copy(packs, &record);
		(void)cfs_log_err(r,
				  "pack %08x: bytes at %u were never "
				  "written and are %s",
				  pack->number, e->off,
				  to.pack.number ? "elsewhere only" : "lost");
	} else {
		iov = (struct iovec){data, e->len};
		r = cfs_packs_append_record(packs, &record, &iov, 1, true, &to,
					    NULL);
		if (r < 0)
			return r;
	}
	if (packs->moved_fn)
		packs->moved_fn(packs->moved_arg, &record, from, to);
	return 0;
}

static int mend_pack(struct cfs_packs *packs, struct cfs_packs_pack *pack)
{
	int r;

	pthread_mutex_lock(&packs->lock);
	while (pack->in_flight)
		pthread_cond_wait(&packs->landed, &packs->lock);
	pthread_mutex_unlock(&packs->lock);
	/* doomed and landed: its table does not change any more */
	for (size_t i = 0; i < pack->n; i++) {
		struct cfs_packs_entry *e = &pack->entries[i];

		if (e->failed || e->moved || e->off <= pack->good ||
		    (e->type != CFS_RECORD_CHUNK && e->type != CFS_RECORD_MAP))
			continue;
		r = move_one(packs, pack, e);
		if (r < 0)
			return r;
		e->moved = true;
	}
	return 0;
}

int cfs_packs_sync_mend(struct cfs_packs *packs)
{
	struct cfs_packs_pack *pack;
	int r;

	for (;;) {
		pthread_mutex_lock(&packs->lock);
		pack = packs->doomed.first;
		pthread_mutex_unlock(&packs->lock);
		if (!pack)
			return 0;
		r = mend_pack(packs, pack);
		if (r < 0)
			return r;
		pthread_mutex_lock(&packs->lock);
		pack = cfs_packs_list_pop(&packs->doomed);
		cfs_packs_list_add(&packs->dead, pack);
		pthread_mutex_unlock(&packs->lock);
	}
}

/* ---- syncing ---- */

/* What one call makes durable. */
struct round {
	struct cfs_packs_pack **packs; /* in the order of the chain */
	size_t n, n_closed;
	struct cfs_position end;
	uint64_t appended, number;
	struct cfs_packs_list dead;
};

static void round_fini(struct round *round)
{
	free(round->packs);
}

static int round_take(struct cfs_packs *packs, struct round *round)
{
	struct cfs_packs_pack *p;
	size_t n = 1;

	for (p = packs->closed.first; p; p = p->next)
		n++;
	round->packs = calloc(n, sizeof(struct cfs_packs_pack *));
	if (!round->packs)
		return -ENOMEM;
	for (p = packs->closed.first; p; p = p->next)
		round->packs[round->n++] = p;
	round->n_closed = round->n;
	round->end = packs->tail;
	if (packs->open) {
		p = packs->open;
		round->packs[round->n++] = p;
		round->end = (struct cfs_position){p->number, (uint32_t)p->end};
	}
	round->appended = packs->appended;
	round->number = packs->next_number;
	return 0;
}

/* Waits for the appends that began before. */
static void round_land(struct cfs_packs *packs, const struct round *round)
{
	while (packs->flights && packs->flights->number < round->number)
		pthread_cond_wait(&packs->landed, &packs->lock);
}

static int round_sync(struct cfs_packs *packs, const struct round *round)
{
	int r = 0;

	for (size_t i = 0; i < round->n && r == 0; i++)
		r = packs->engine->ops->sync(
			packs->engine, cfs_packs_id(round->packs[i]->number));
	return r;
}

/* With lock held; what was in doubt before is not any more. */
static void round_done(struct cfs_packs *packs, struct round *round,
		       struct cfs_packs_list *full)
{
	packs->good = round->end;
	packs->synced = round->appended;
	packs->behind = 0;
	for (size_t i = 0; i < round->n_closed; i++)
		cfs_packs_list_add(full, cfs_packs_list_pop(&packs->closed));
	cfs_packs_list_join(&round->dead, &packs->dead);
}

/* What the dead packs held lies elsewhere, durably. */
static void bury(struct cfs_packs *packs, struct cfs_packs_list *dead)
{
	struct cfs_engine *engine = packs->engine;
	struct cfs_packs_pack *p;

	while ((p = cfs_packs_list_pop(dead))) {
		struct cfs_pack_id id = cfs_packs_id(p->number);

		(void)(p->keep ? engine->ops->seal(engine, id, p->end)
			       : engine->ops->remove(engine, id));
		cfs_packs_pack_free(p);
	}
}

static int sync_round(struct cfs_packs *packs, struct round *round)
{
	struct cfs_packs_list full = {NULL, &full.first};
	struct cfs_packs_pack *p;
	int r;

	pthread_mutex_lock(&packs->lock);
	r = packs->behind;
	if (r < 0) {
		/* a GROUP without its BATCHes: not to be replayed */
		cfs_packs_room_doom(packs, r);
		packs->behind = 0;
	}
	if (r == 0)
		r = round_take(packs, round);
	if (r == 0)
		round_land(packs, round);
	if (r == 0 && packs->doomed.first)
		r = packs->broken;
	pthread_mutex_unlock(&packs->lock);
	if (r < 0)
		return r;
	r = round_sync(packs, round);
	pthread_mutex_lock(&packs->lock);
	if (r < 0) {
		cfs_packs_room_doom(packs, r);
		packs->behind = 0;
	} else if (packs->doomed.first) {
		r = packs->broken; /* a write failed meanwhile */
		packs->behind = 0;
	} else {
		round_done(packs, round, &full);
	}
	pthread_mutex_unlock(&packs->lock);
	while ((p = cfs_packs_list_pop(&full))) {
		cfs_packs_footer_write(packs, p);
		cfs_packs_pack_free(p);
	}
	bury(packs, &round->dead);
	return r;
}

int cfs_packs_sync(struct cfs_packs *packs)
{
	_cleanup_(round_fini) struct round round = {0};
	int r;

	round.dead.tail = &round.dead.first;
	pthread_mutex_lock(&packs->sync_lock);
	r = cfs_packs_sync_mend(packs);
	if (r == 0 && cfs_packs_unsynced(packs))
		r = sync_round(packs, &round);
	pthread_mutex_unlock(&packs->sync_lock);
	return r;
}

uint64_t cfs_packs_unsynced(struct cfs_packs *packs)
{
	uint64_t bytes;

	pthread_mutex_lock(&packs->lock);
	bytes = packs->appended - packs->synced;
	pthread_mutex_unlock(&packs->lock);
	return bytes;
}

int cfs_packs_roll(struct cfs_packs *packs)
{
	int r;

	pthread_mutex_lock(&packs->lock);
	cfs_packs_room_close(packs);
	r = cfs_packs_room_open(packs, 0);
	pthread_mutex_unlock(&packs->lock);
	return r;
}
