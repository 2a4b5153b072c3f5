/* Packs as a whole: lists, reading, what there is, removing. */
#include "store/pack/packs_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/checked.h"
#include "store/util/hash.h"
#include "store/util/log.h"

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

struct cfs_engine *cfs_packs_engine(const struct cfs_packs *packs)
{
	return packs->engine;
}

struct cfs_position cfs_packs_snapshot(const struct cfs_packs *packs)
{
	return packs->snapshot;
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
	r = cfs_record_decode(raw, (size_t)n, packs->seed, &record);
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
