/*
 * Packs: how much of each is needed, and giving back those that hold little.
 *
 * A pack is only removed when each record in it was asked for: whatever its key
 * still says lies there is copied first, and what is copied is durable before.
 * Least needed first, so that a full disk gets room before it needs any.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/core/gc_internal.h"
#include "store/util/error.h"
#include "store/util/grow.h"

#define COPY_AT_ONCE  (64u << 20) /* between two commits */
#define PACKS_AT_ONCE 64u

void cfs_gc_packs_fini(struct cfs_gc_packs *packs)
{
	free(packs->v);
	*packs = (struct cfs_gc_packs){NULL, 0, 0};
}

static int list_one(void *arg, struct cfs_pack_id id, uint64_t size)
{
	struct cfs_gc_packs *packs = arg;

	if (id.lane)
		return 0;
	if (!CFS_GROW(packs->v, packs->n, packs->cap))
		return -ENOMEM;
	packs->v[packs->n++] =
		(struct cfs_gc_pack){.number = id.number, .size = size};
	return 0;
}

static struct cfs_gc_pack *find(struct cfs_gc_packs *packs, uint32_t number)
{
	size_t lo = 0, hi = packs->n, mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (packs->v[mid].number < number)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < packs->n && packs->v[lo].number == number ? &packs->v[lo]
							      : NULL;
}

static int count_class(struct cfs_gc *gc, struct cfs_gc_packs *packs,
		       bool is_map)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *it = NULL;
	struct cfs_slice prefix, key, val;
	struct cfs_key class_key;
	struct cfs_object_value v;
	struct cfs_digest digest;
	struct cfs_gc_pack *pack;
	int r;

	cfs_key_prefix(&class_key, is_map ? 'm' : 'c', 0);
	prefix = cfs_key_slice(&class_key);
	r = cfs_levels_iter(gc->store->levels, prefix, prefix, &it);
	if (r < 0)
		return r;
	while ((r = it->ops->next(it, &key, &val)) > 0) {
		r = cfs_object_decode(val.data, val.len, &v);
		if (r == 0)
			r = cfs_key_parse_digest(key, &digest);
		if (r < 0)
			return r;
		pack = find(packs, v.pack);
		/* what could not be forgotten counts as needed, too */
		if (pack && (!gc->options.dry_run ||
			     cfs_gc_is_live(gc, is_map, &digest)))
			pack->live += v.stored_len + CFS_RECORD_HEAD_BYTES;
	}
	return r;
}

int cfs_gc_count(struct cfs_gc *gc, struct cfs_gc_packs *packs)
{
	int r;

	cfs_gc_packs_fini(packs);
	r = cfs_packs_list(gc->store->packs, list_one, packs);
	if (r == 0)
		r = count_class(gc, packs, false);
	return r == 0 ? count_class(gc, packs, true) : r;
}

bool cfs_gc_is_poor(const struct cfs_gc *gc, const struct cfs_gc_pack *pack)
{
	const unsigned percent = gc->options.min_dead_percent;

	return !pack->live ||
	       (pack->live < pack->size &&
		pack->size - pack->live >= pack->size / 100 * percent);
}

/* ---- emptying one ---- */

struct move {
	struct cfs_gc *gc;
	uint64_t seen;	 /* bytes of records that keys say lie here */
	uint64_t copied; /* of those that do not any more */
	bool stays;	 /* one cannot be copied */
};

static void find_fault(struct cfs_gc *gc, const char *text)
{
	if (gc->control && gc->control->finding)
		gc->control->finding(gc->control->arg, text);
}

static void damaged(struct move *m, const struct cfs_record *record,
		    struct cfs_place place)
{
	char hex[CFS_DIGEST_HEX], text[200];

	(void)snprintf(
		text, sizeof(text),
		"%s %s in pack 0000/%08x at %u is damaged: the pack stays",
		record->type == CFS_RECORD_MAP ? "map" : "chunk",
		cfs_digest_hex(&record->digest, hex), place.pack.number,
		place.off);
	find_fault(m->gc, text);
	m->stays = true;
}

static int move_one(void *arg, const struct cfs_record *entry,
		    struct cfs_place place, struct cfs_position at)
{
	struct move *m = arg;
	struct cfs_store *s = m->gc->store;
	struct cfs_object_value now, here;
	const bool is_map = entry->type == CFS_RECORD_MAP;
	const uint64_t bytes = (uint64_t)place.len + CFS_RECORD_HEAD_BYTES;
	struct cfs_record record;
	int r;

	(void)at;
	here = cfs_object_value_of(place, entry->raw_len);
	r = cfs_object_locate(s, is_map, &entry->digest, &now);
	if (r == -ENOENT || (r == 0 && !cfs_object_value_eq(&now, &here)))
		return 0;
	if (r == 0) /* footers have no hashes */
		r = cfs_packs_record(s->packs, place, &record);
	if (r == 0)
		r = cfs_gc_move(s, &record, &here);
	if (r == -EBADMSG) {
		damaged(m, entry, place);
		return 0;
	}
	if (r < 0)
		return r;
	m->seen += bytes;
	m->copied += r ? bytes : 0;
	return 0;
}

/* 1: nothing in it is needed once the next commit is through; 0: it stays. */
static int empty(struct cfs_gc *gc, struct cfs_gc_pack *pack)
{
	struct move m = {.gc = gc};
	char text[120];
	int r;

	r = cfs_packs_objects(gc->store->packs,
			      (struct cfs_pack_id){0, pack->number}, move_one,
			      &m, gc->err);
	gc->result.bytes_copied += m.copied;
	if (r == 0 && !m.stays && m.seen < pack->live) {
		/* Damage hides some; or it was put elsewhere meanwhile. */
		(void)snprintf(
			text, sizeof(text),
			"pack 0000/%08x does not show all it holds: it stays",
			pack->number);
		find_fault(gc, text);
		m.stays = true;
	}
	/* for another attempt */
	pack->copied |= m.copied > 0;
	pack->live -= CFS_MIN(pack->live, m.copied);
	if (r == -ENOENT) /* left over from a crash, and gone since */
		return 0;
	if (r < 0 || m.stays)
		return r;
	return 1;
}

/* ---- removing them ---- */

struct sweep {
	struct cfs_gc *gc;
	const struct cfs_gc_pack *emptied[PACKS_AT_ONCE];
	size_t n;
	uint64_t copied; /* of gc->result.bytes_copied, and durable */
};

static int remove_emptied(struct sweep *sw)
{
	struct cfs_gc *gc = sw->gc;
	struct cfs_packs *packs = gc->store->packs;
	int r = 0;

	if (gc->result.bytes_copied != sw->copied)
		r = cfs_group_commit(gc->store, CFS_WISH_GROUP);
	if (r < 0)
		return r;
	sw->copied = gc->result.bytes_copied;
	for (size_t i = 0; i < sw->n; i++) {
		const struct cfs_gc_pack *p = sw->emptied[i];

		r = cfs_packs_remove(packs, (struct cfs_pack_id){0, p->number});
		if (r < 0 && r != -EBUSY && r != -ENOENT)
			return r;
		if (r < 0)
			continue;
		gc->result.packs_removed++;
		gc->result.packs_rewritten += p->copied;
		gc->result.bytes_freed += p->size;
	}
	sw->n = 0;
	return 0;
}

static int sweep_one(struct sweep *sw, struct cfs_gc_pack *pack)
{
	int r = empty(sw->gc, pack);

	if (r > 0)
		sw->emptied[sw->n++] = pack;
	else if (r < 0)
		return r;
	if (sw->n == PACKS_AT_ONCE ||
	    sw->gc->result.bytes_copied - sw->copied >= COPY_AT_ONCE)
		return remove_emptied(sw);
	return 0;
}

static int by_live(const void *a, const void *b)
{
	const struct cfs_gc_pack *x = a, *y = b;

	if (x->live != y->live)
		return x->live < y->live ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

int cfs_gc_sweep(struct cfs_gc *gc, struct cfs_gc_packs *packs, uint32_t before)
{
	struct sweep sw = {.gc = gc, .copied = gc->result.bytes_copied};
	int r = 0, flushed;

	qsort(packs->v, packs->n, sizeof(*packs->v), by_live);
	for (size_t i = 0; r == 0 && i < packs->n; i++) {
		struct cfs_gc_pack *p = &packs->v[i];

		if (p->number >= before || !cfs_gc_is_poor(gc, p))
			continue;
		/* room first: what is empty goes before anything is copied */
		if (p->live && sw.n && !sw.emptied[sw.n - 1]->copied)
			r = remove_emptied(&sw);
		if (r == 0)
			r = cfs_gc_tell(gc, i, packs->n, "rewriting packs");
		if (r == 0)
			r = sweep_one(&sw, p);
		if ((r == -ENOSPC || r == -EDQUOT) && sw.n) {
			r = remove_emptied(&sw);
			if (r == 0)
				r = sweep_one(&sw, p);
		}
	}
	flushed = remove_emptied(&sw);
	/* No room to copy more: what was given back is something. */
	if ((r == -ENOSPC || r == -EDQUOT) && gc->result.packs_removed)
		r = 0;
	return r < 0 ? r : flushed;
}
