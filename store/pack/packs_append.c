/*
 * Appending: the place is given out under the lock, the bytes are written
 * outside it, many at a time.
 */
#include "store/pack/packs_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "store/util/grow.h"
#include "store/util/hash.h"

static uint64_t hash_iov(const struct iovec *iov, int n, uint64_t *len_out)
{
	XXH3_state_t *state;
	uint64_t hash, len = 0;

	if (n == 1) {
		*len_out = iov->iov_len;
		return cfs_hash64(iov->iov_base, iov->iov_len, 0);
	}
	state = XXH3_createState();
	if (!state)
		abort(); /* 576 bytes */
	(void)XXH3_64bits_reset(state);
	for (int i = 0; i < n; i++) {
		(void)XXH3_64bits_update(state, iov[i].iov_base,
					 iov[i].iov_len);
		len += iov[i].iov_len;
	}
	hash = XXH3_64bits_digest(state);
	(void)XXH3_freeState(state);
	*len_out = len;
	return hash;
}

/* One more line in the pack's table, in the order of the records. */
static struct cfs_packs_entry *entry_add(struct cfs_packs_pack *pack)
{
	if (!CFS_GROW(pack->entries, pack->n, pack->cap))
		return NULL;
	return &pack->entries[pack->n++];
}

struct taken {
	struct cfs_packs_pack *pack;
	size_t entry;
	uint64_t off; /* of the record */
	struct cfs_packs_flight flight;
};

static void flight_add(struct cfs_packs *packs, struct cfs_packs_flight *f)
{
	f->next = NULL;
	f->prev = packs->last_flight;
	*(f->prev ? &f->prev->next : &packs->flights) = f;
	packs->last_flight = f;
}

static void flight_end(struct cfs_packs *packs, struct cfs_packs_flight *f)
{
	*(f->prev ? &f->prev->next : &packs->flights) = f->next;
	*(f->next ? &f->next->prev : &packs->last_flight) = f->prev;
	pthread_cond_broadcast(&packs->landed);
}

/* Gives the record its place and number. */
static int take(struct cfs_packs *packs, struct cfs_record *record,
		struct taken *t)
{
	struct cfs_packs_entry *e;
	int r;

	r = cfs_packs_room_open(packs, record->payload_len);
	if (r < 0)
		return r;
	t->pack = packs->open;
	e = entry_add(t->pack);
	if (!e)
		return -ENOMEM;
	t->entry = t->pack->n - 1;
	t->off = t->pack->end;
	record->number = packs->next_number++;
	*e = (struct cfs_packs_entry){
		.digest = record->digest,
		.number = record->number,
		.off = (uint32_t)t->off + CFS_RECORD_HEAD_BYTES,
		.len = record->payload_len,
		.raw_len = record->raw_len,
		.type = (uint8_t)record->type,
		.flags = record->flags,
	};
	t->pack->end += CFS_RECORD_HEAD_BYTES + (uint64_t)record->payload_len;
	if (record->type == CFS_RECORD_CHUNK || record->type == CFS_RECORD_MAP)
		t->pack->objects++;
	packs->appended += CFS_RECORD_HEAD_BYTES + record->payload_len;
	t->pack->in_flight++;
	t->flight.number = record->number;
	flight_add(packs, &t->flight);
	return 0;
}

static void land(struct cfs_packs *packs, struct taken *t, int r)
{
	if (r < 0) {
		t->pack->entries[t->entry].failed = true;
		if (!t->pack->doomed)
			cfs_packs_room_doom(packs, r);
	}
	t->pack->in_flight--;
	flight_end(packs, &t->flight);
}

static int write_record(struct cfs_packs *packs,
			const struct cfs_record *record,
			const struct iovec *iov, int n, const struct taken *t)
{
	uint8_t head[CFS_RECORD_HEAD_BYTES];
	_cleanup_(cfs_freep) struct iovec *all = NULL;

	all = malloc((size_t)(n + 1) * sizeof(*all));
	if (!all)
		return -ENOMEM;
	cfs_record_encode(record, packs->seed, head);
	all[0] = (struct iovec){head, sizeof(head)};
	memcpy(all + 1, iov, (size_t)n * sizeof(*iov));
	return packs->engine->ops->write(packs->engine,
					 cfs_packs_id(t->pack->number), all,
					 n + 1, t->off);
}

int cfs_packs_append_record(struct cfs_packs *packs, struct cfs_record *record,
			    const struct iovec *iov, int n, bool again,
			    struct cfs_place *place_out,
			    struct cfs_position *at_out)
{
	struct taken t = {0};
	struct cfs_place place;
	uint64_t len;
	int r;

	record->lane = CFS_PACKS_LANE;
	record->payload_hash = hash_iov(iov, n, &len);
	if (len > CFS_RECORD_MAX)
		return -EINVAL;
	record->payload_len = (uint32_t)len;
	pthread_mutex_lock(&packs->lock);
	assert(packs->started);
	r = take(packs, record, &t);
	pthread_mutex_unlock(&packs->lock);
	if (r < 0)
		return r;
	r = write_record(packs, record, iov, n, &t);
	place = (struct cfs_place){cfs_packs_id(t.pack->number),
				   (uint32_t)t.off + CFS_RECORD_HEAD_BYTES,
				   record->payload_len};
	/* still in flight: nobody can move it before this was told */
	if (r == 0 && !again && packs->appended_fn &&
	    (record->type == CFS_RECORD_CHUNK ||
	     record->type == CFS_RECORD_MAP))
		packs->appended_fn(packs->appended_arg, record, place);
	pthread_mutex_lock(&packs->lock);
	land(packs, &t, r);
	pthread_mutex_unlock(&packs->lock);
	if (r < 0)
		return r;
	if (place_out)
		*place_out = place;
	if (at_out)
		*at_out = (struct cfs_position){place.pack.number,
						(uint32_t)t.off};
	return 0;
}

/*
 * What is in doubt must lie before the GROUP that refers to it, and a GROUP
 * must not follow when some of its BATCHes were left behind.
 */
static int before_group(struct cfs_packs *packs, enum cfs_record_type type)
{
	bool mend;
	int r = 0;

	pthread_mutex_lock(&packs->lock);
	mend = packs->doomed.first;
	pthread_mutex_unlock(&packs->lock);
	if (mend) {
		pthread_mutex_lock(&packs->sync_lock);
		r = cfs_packs_sync_mend(packs);
		pthread_mutex_unlock(&packs->sync_lock);
	}
	if (r < 0 || type != CFS_RECORD_GROUP)
		return r;
	pthread_mutex_lock(&packs->lock);
	r = packs->behind;
	pthread_mutex_unlock(&packs->lock);
	return r;
}

int cfs_packs_append(struct cfs_packs *packs, enum cfs_record_type type,
		     uint8_t flags, const struct cfs_digest *digest,
		     uint32_t raw_len, const struct iovec *iov, int n,
		     struct cfs_place *place_out, struct cfs_position *at_out)
{
	struct cfs_record record = {
		.type = type, .flags = flags, .raw_len = raw_len};
	bool group = type == CFS_RECORD_BATCH || type == CFS_RECORD_GROUP;
	int r = 0;

	if (digest)
		record.digest = *digest;
	if (group) {
		record.flags |= CFS_RECORD_MUST_KNOW;
		r = before_group(packs, type);
	}
	if (r == 0)
		r = cfs_packs_append_record(packs, &record, iov, n, false,
					    place_out, at_out);
	if (r < 0 && group) {
		/* the caller begins the group anew: leave this one behind */
		pthread_mutex_lock(&packs->lock);
		cfs_packs_room_doom(packs, r);
		packs->behind = 0;
		pthread_mutex_unlock(&packs->lock);
	}
	return r;
}
