/* Opening: which packs make the chain; and beginning a new one behind it. */
#include "store/pack/packs_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/endian.h"
#include "store/util/error.h"
#include "store/util/grow.h"

/* Beside a whole pack: gc copies what is needed of one before it gives it back,
 * and while names are deleted groups are written. */
#define RESERVE_MORE (8u << 20)

int cfs_packs_head_read(struct cfs_packs *packs, uint32_t number,
			struct cfs_layout_head *head_out, uint64_t *first_out,
			struct cfs_error *err)
{
	struct cfs_record record;
	uint8_t raw[CFS_LAYOUT_FIRST];
	ssize_t n;
	int r;

	n = packs->engine->ops->read(packs->engine, cfs_packs_id(number), raw,
				     sizeof(raw), 0);
	if (n < 0)
		return n == -ENOENT ? -ENOENT
				    : cfs_fail(err, (int)n,
					       "pack %08x cannot be read: %s",
					       number, strerror((int)-n));
	r = cfs_layout_head_parse(raw, (size_t)n, &record, head_out);
	if (r == -EPROTONOSUPPORT)
		return cfs_fail(err, r,
				"pack %08x is of a newer format than this "
				"program knows",
				number);
	if (r < 0)
		return r;
	if (memcmp(head_out->uuid, packs->options.uuid, 16) != 0)
		return cfs_fail(err, -EPERM,
				"pack %08x belongs to another store", number);
	if (head_out->number != number || record.lane != CFS_PACKS_LANE)
		return -EBADMSG;
	*first_out = record.number;
	return 0;
}

struct seen {
	uint32_t *numbers;
	size_t n, cap;
};

static void seen_free(struct seen *seen)
{
	free(seen->numbers);
}

static int seen_add(void *arg, struct cfs_pack_id id, uint64_t size)
{
	struct seen *seen = arg;

	(void)size;
	if (id.lane != CFS_PACKS_LANE)
		return 0;
	if (!CFS_GROW(seen->numbers, seen->n, seen->cap))
		return -ENOMEM;
	seen->numbers[seen->n++] = id.number;
	return 0;
}

static int link_add(struct cfs_packs *packs, uint32_t number, uint64_t end)
{
	if (!CFS_GROW(packs->chain, packs->n_chain, packs->cap_chain))
		return -ENOMEM;
	packs->chain[packs->n_chain++] = (struct cfs_packs_link){number, end};
	return 0;
}

static void chain_reverse(struct cfs_packs *packs)
{
	for (size_t i = 0, j = packs->n_chain; i + 1 < j; i++) {
		struct cfs_packs_link t = packs->chain[i];

		packs->chain[i] = packs->chain[--j];
		packs->chain[j] = t;
	}
}

/* From the newest pack whose head holds back to the first there is. */
static int chain_find(struct cfs_packs *packs, const struct seen *seen,
		      struct cfs_error *err)
{
	struct cfs_layout_head head = {0};
	uint64_t first, end = UINT64_MAX;
	uint32_t number = 0;
	int r = -EBADMSG;

	for (size_t i = seen->n; i && r < 0; i--) {
		number = seen->numbers[i - 1];
		r = cfs_packs_head_read(packs, number, &head, &first, err);
		if (r < 0 && r != -EBADMSG && r != -ENOENT)
			return r == -EPERM ? -EBADMSG : r;
	}
	if (r < 0)
		return 0; /* nothing was ever written, or nothing holds */
	packs->snapshot = head.snapshot;
	for (;;) {
		r = link_add(packs, number, end);
		if (r < 0)
			return r;
		number = head.prev;
		end = head.prev_end;
		if (!number)
			break;
		r = cfs_packs_head_read(packs, number, &head, &first, err);
		if (r == -ENOENT || r == -EBADMSG || r == -EIO) {
			packs->lacking = number;
			packs->lacking_bad = r != -ENOENT;
			break;
		}
		if (r < 0)
			return r == -EPERM ? -EBADMSG : r;
	}
	chain_reverse(packs);
	return 0;
}

/*
 * Every pack that may belong to the log, newest first.  Where a head holds it
 * says what is before it: what lies between was left behind.  Behind one that
 * does not, or is missing, any may follow.
 */
static int chain_gather(struct cfs_packs *packs, const struct seen *seen,
			struct cfs_error *err)
{
	struct cfs_layout_head head = {0};
	uint64_t first, end = UINT64_MAX;
	uint32_t before = 0;
	bool any = false;
	int r;

	for (size_t i = seen->n; i; i--) {
		uint32_t number = seen->numbers[i - 1];

		if (before && number > before)
			continue;
		if (number != before)
			end = UINT64_MAX;
		r = link_add(packs, number, end);
		if (r < 0)
			return r;
		r = cfs_packs_head_read(packs, number, &head, &first, err);
		if (r == -EPROTONOSUPPORT || r == -EPERM)
			return r == -EPERM ? -EBADMSG : r;
		before = r < 0 ? 0 : head.prev;
		end = r < 0 || !head.prev ? UINT64_MAX : head.prev_end;
		if (r == 0 && !any)
			packs->snapshot = head.snapshot;
		any |= r == 0;
	}
	chain_reverse(packs);
	return 0;
}

static struct cfs_packs *packs_new(struct cfs_engine *engine,
				   const struct cfs_packs_options *options)
{
	struct cfs_packs *packs = calloc(1, sizeof(*packs));

	if (!packs)
		return NULL;
	packs->engine = engine;
	packs->options = *options;
	packs->options.pack_bytes =
		CFS_MIN(packs->options.pack_bytes, CFS_LAYOUT_PACK_MAX);
	packs->seed = cfs_get_le64(options->uuid);
	if (!packs->options.pack_bytes)
		packs->options.pack_bytes = CFS_PACK_BYTES;
	if (!packs->options.reserve_bytes)
		packs->options.reserve_bytes =
			packs->options.pack_bytes + RESERVE_MORE;
	pthread_mutex_init(&packs->sync_lock, NULL);
	pthread_mutex_init(&packs->lock, NULL);
	pthread_cond_init(&packs->landed, NULL);
	packs->closed.tail = &packs->closed.first;
	packs->doomed.tail = &packs->doomed.first;
	packs->dead.tail = &packs->dead.first;
	packs->spares.tail = &packs->spares.first;
	return packs;
}

int cfs_packs_open(struct cfs_engine *engine,
		   const struct cfs_packs_options *options,
		   struct cfs_packs **packs_out, struct cfs_error *err)
{
	_cleanup_(cfs_packs_closep) struct cfs_packs *packs =
		packs_new(engine, options);
	_cleanup_(seen_free) struct seen seen = {0};
	int r;

	if (!packs)
		return -ENOMEM;
	r = engine->ops->list(engine, seen_add, &seen);
	if (r < 0)
		return cfs_fail(err, r, "packs cannot be listed: %s",
				strerror(-r));
	packs->newest = seen.n ? seen.numbers[seen.n - 1] : 0;
	r = options->salvage ? chain_gather(packs, &seen, err)
			     : chain_find(packs, &seen, err);
	if (r < 0)
		return r;
	*packs_out = cfs_steal(packs);
	return 0;
}

/* ---- starting ---- */

struct younger {
	struct cfs_packs *packs;
	uint32_t than;
};

static int remove_younger(void *arg, struct cfs_pack_id id, uint64_t size)
{
	const struct younger *y = arg;
	int r;

	(void)size;
	if (id.lane != CFS_PACKS_LANE || id.number <= y->than)
		return 0;
	r = y->packs->engine->ops->remove(y->packs->engine, id);
	return r == -ENOENT ? 0 : r;
}

/* A number above that of every record before @end: none is under 72 bytes. */
static int number_after(struct cfs_packs *packs, struct cfs_position end,
			struct cfs_error *err)
{
	struct cfs_layout_head head;
	uint64_t first = 0;
	int r;

	packs->next_number = 1;
	if (!end.pack)
		return 0;
	r = cfs_packs_head_read(packs, end.pack, &head, &first, err);
	if (r < 0)
		return cfs_fail(err, r,
				"pack %08x does not begin with a "
				"whole head",
				end.pack);
	packs->next_number = first + end.off / CFS_RECORD_HEAD_BYTES + 1;
	return 0;
}

/* A killed process leaves its last pack with all the room set aside for it. */
static void give_room_back(struct cfs_packs *packs, uint32_t number)
{
	struct cfs_engine *engine = packs->engine;
	uint64_t size;

	if (number &&
	    engine->ops->size(engine, cfs_packs_id(number), &size) == 0)
		(void)engine->ops->seal(engine, cfs_packs_id(number), size);
}

int cfs_packs_start(struct cfs_packs *packs, struct cfs_position end,
		    struct cfs_position snapshot, struct cfs_error *err)
{
	struct younger younger = {packs, end.pack};
	int r;

	r = number_after(packs, end, err);
	if (r < 0)
		return r;
	r = packs->engine->ops->list(packs->engine, remove_younger, &younger);
	if (r < 0)
		return cfs_fail(err, r, "packs behind %08x cannot be removed",
				end.pack);
	give_room_back(packs, end.pack);
	pthread_mutex_lock(&packs->lock);
	packs->snapshot = snapshot;
	packs->tail = end;
	packs->good = end;
	packs->started = true;
	r = cfs_packs_room_open(packs, 0);
	pthread_mutex_unlock(&packs->lock);
	/* on a full disk it begins as soon as something was deleted */
	if (r == -ENOSPC || r == -EDQUOT)
		return 0;
	return r < 0 ? cfs_fail(err, r, "a pack cannot be begun: %s",
				strerror(-r))
		     : 0;
}

int cfs_packs_start_anew(struct cfs_packs *packs, struct cfs_position *at_out,
			 struct cfs_error *err)
{
	struct cfs_position none = {0, 0};
	int r;

	pthread_mutex_lock(&packs->lock);
	packs->snapshot =
		(struct cfs_position){packs->newest + 1, CFS_LAYOUT_FIRST};
	packs->next_number = CFS_MAX(packs->next_number, (uint64_t)1);
	packs->tail = packs->good = none;
	packs->started = true;
	*at_out = packs->snapshot;
	r = cfs_packs_room_open(packs, 0);
	pthread_mutex_unlock(&packs->lock);
	return r < 0 ? cfs_fail(err, r, "a pack cannot be begun: %s",
				strerror(-r))
		     : 0;
}
