/* Packs as a whole: opening (which packs make the chain), reading, removing. */
#include "store/pack/packs_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/checked.h"
#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/log.h"

#define RESERVE_BYTES (8u << 20)

void cfs_packs_list_add(struct cfs_packs_list *list,
			struct cfs_packs_pack *pack)
{
	pack->next = NULL;
	*list->tail = pack;
	list->tail = &pack->next;
}

struct cfs_packs_pack *cfs_packs_list_pop(struct cfs_packs_list *list)
{
	struct cfs_packs_pack *pack = list->first;

	if (!pack)
		return NULL;
	list->first = pack->next;
	if (!list->first)
		list->tail = &list->first;
	pack->next = NULL;
	return pack;
}

void cfs_packs_list_join(struct cfs_packs_list *list,
			 struct cfs_packs_list *from)
{
	struct cfs_packs_pack *pack;

	while ((pack = cfs_packs_list_pop(from)))
		cfs_packs_list_add(list, pack);
}

void cfs_packs_pack_free(struct cfs_packs_pack *pack)
{
	if (!pack)
		return;
	free(pack->entries);
	free(pack);
}

/* ---- opening ---- */

/* The head of a pack: 0, -EBADMSG: it has none that holds; -ENOENT. */
static int head_read(struct cfs_packs *packs, uint32_t number,
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
	uint32_t *grown;

	(void)size;
	if (id.lane != CFS_PACKS_LANE)
		return 0;
	if (seen->n == seen->cap) {
		seen->cap = seen->cap ? 2 * seen->cap : 64;
		grown = reallocarray(seen->numbers, seen->cap, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		seen->numbers = grown;
	}
	seen->numbers[seen->n++] = id.number;
	return 0;
}

static int link_add(struct cfs_packs *packs, uint32_t number, uint64_t end)
{
	struct cfs_packs_link *grown;

	grown = reallocarray(packs->chain, packs->n_chain + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	packs->chain = grown;
	grown[packs->n_chain++] = (struct cfs_packs_link){number, end};
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
		r = head_read(packs, number, &head, &first, err);
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
		r = head_read(packs, number, &head, &first, err);
		if (r == -ENOENT || r == -EBADMSG) {
			packs->lacking = number;
			packs->lacking_bad = r == -EBADMSG;
			break;
		}
		if (r < 0)
			return r == -EPERM ? -EBADMSG : r;
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
	if (!packs->options.pack_bytes)
		packs->options.pack_bytes = CFS_PACK_BYTES;
	if (!packs->options.reserve_bytes)
		packs->options.reserve_bytes = RESERVE_BYTES;
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
	r = chain_find(packs, &seen, err);
	if (r < 0)
		return r;
	*packs_out = cfs_steal(packs);
	return 0;
}

struct cfs_engine *cfs_packs_engine(const struct cfs_packs *packs)
{
	return packs->engine;
}

struct cfs_position cfs_packs_snapshot(const struct cfs_packs *packs)
{
	return packs->snapshot;
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
	uint64_t first;
	int r;

	packs->next_number = 1;
	if (!end.pack)
		return 0;
	r = head_read(packs, end.pack, &head, &first, err);
	if (r < 0)
		return cfs_fail(err, r,
				"pack %08x does not begin with a "
				"whole head",
				end.pack);
	packs->next_number = first + end.off / CFS_RECORD_HEAD_BYTES + 1;
	return 0;
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

void cfs_packs_set_snapshot(struct cfs_packs *packs, struct cfs_position at)
{
	pthread_mutex_lock(&packs->lock);
	packs->snapshot = at;
	pthread_mutex_unlock(&packs->lock);
}

void cfs_packs_on_moved(struct cfs_packs *packs, cfs_moved_fn *fn, void *arg)
{
	packs->moved_fn = fn;
	packs->moved_arg = arg;
}

void cfs_packs_on_appended(struct cfs_packs *packs, cfs_appended_fn *fn,
			   void *arg)
{
	packs->appended_fn = fn;
	packs->appended_arg = arg;
}

struct cfs_position cfs_packs_end(struct cfs_packs *packs)
{
	struct cfs_position end;

	pthread_mutex_lock(&packs->lock);
	end = packs->tail;
	if (packs->open)
		end = (struct cfs_position){packs->open->number,
					    (uint32_t)packs->open->end};
	pthread_mutex_unlock(&packs->lock);
	return end;
}

/* ---- reading ---- */

int cfs_packs_read(struct cfs_packs *packs, struct cfs_place place,
		   uint32_t off, void *buf, size_t len)
{
	ssize_t n;

	if (!cfs_range_ok(off, len, place.len))
		return -EINVAL;
	n = packs->engine->ops->read(packs->engine, place.pack, buf, len,
				     (uint64_t)place.off + off);
	if (n < 0)
		return (int)n;
	if ((size_t)n != len)
		return cfs_log_err(-EIO, "pack %08x ends before %u",
				   place.pack.number, place.off + place.len);
	return 0;
}

int cfs_packs_record(struct cfs_packs *packs, struct cfs_place place,
		     struct cfs_record *record_out)
{
	uint8_t raw[CFS_RECORD_HEAD_BYTES];
	struct cfs_record record;
	ssize_t n;
	int r;

	if (place.off < sizeof(raw))
		return -EBADMSG;
	n = packs->engine->ops->read(packs->engine, place.pack, raw,
				     sizeof(raw), place.off - sizeof(raw));
	if (n < 0)
		return (int)n;
	r = cfs_record_decode(raw, (size_t)n, &record);
	if (r < 0)
		return r;
	if (record.payload_len != place.len || record.lane != place.pack.lane)
		return -EBADMSG;
	*record_out = record;
	return 0;
}

int cfs_packs_verify(struct cfs_packs *packs, const struct cfs_record *record,
		     struct cfs_place place)
{
	_cleanup_(cfs_freep) uint8_t *buf = NULL;
	struct cfs_record head;
	int r;

	r = cfs_packs_record(packs, place, &head);
	if (r < 0)
		return r;
	if (head.type != record->type || head.raw_len != record->raw_len ||
	    cfs_digest_cmp(&head.digest, &record->digest) != 0)
		return -EBADMSG;
	buf = malloc(place.len ? place.len : 1);
	if (!buf)
		return -ENOMEM;
	r = cfs_packs_read(packs, place, 0, buf, place.len);
	if (r < 0)
		return r;
	return cfs_hash64(buf, place.len, 0) == head.payload_hash ? 0
								  : -EBADMSG;
}

/* ---- what there is ---- */

struct listing {
	cfs_pack_fn *fn;
	void *arg;
	struct cfs_packs *packs;
};

static bool list_has(const struct cfs_packs_list *list, uint32_t number)
{
	const struct cfs_packs_pack *p;

	for (p = list->first; p; p = p->next)
		if (p->number == number)
			return true;
	return false;
}

static bool is_spare(struct cfs_packs *packs, uint32_t number)
{
	bool found;

	pthread_mutex_lock(&packs->lock);
	found = list_has(&packs->spares, number);
	pthread_mutex_unlock(&packs->lock);
	return found;
}

static int list_one(void *arg, struct cfs_pack_id id, uint64_t size)
{
	const struct listing *l = arg;

	if (id.lane == CFS_PACKS_LANE && is_spare(l->packs, id.number))
		return 0;
	return l->fn(l->arg, id, size);
}

int cfs_packs_list(struct cfs_packs *packs, cfs_pack_fn *fn, void *arg)
{
	struct listing l = {fn, arg, packs};

	return packs->engine->ops->list(packs->engine, list_one, &l);
}

int cfs_packs_remove(struct cfs_packs *packs, struct cfs_pack_id id)
{
	bool busy;

	if (id.lane == CFS_PACKS_LANE) {
		pthread_mutex_lock(&packs->lock);
		busy = (packs->open && packs->open->number == id.number) ||
		       list_has(&packs->closed, id.number) ||
		       list_has(&packs->doomed, id.number) ||
		       list_has(&packs->dead, id.number) ||
		       list_has(&packs->spares, id.number);
		pthread_mutex_unlock(&packs->lock);
		if (busy)
			return -EBUSY;
	}
	return packs->engine->ops->remove(packs->engine, id);
}
