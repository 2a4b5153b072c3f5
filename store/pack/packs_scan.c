/*
 * Walking the chain record by record; and behind its end, looking for what
 * tells damage from a crash.
 */
#include "store/pack/packs_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/checked.h"
#include "store/util/endian.h"
#include "store/util/error.h"
#include "store/util/hash.h"

#define WINDOW (8u << 10) /* several small records a read */
#define BLOCK  (1u << 20)
#define STEP   (64u << 10) /* as much as a bad sector hides */

int cfs_packs_scan_read(struct cfs_packs *packs, uint32_t number, void *buf,
			size_t len, uint64_t off)
{
	ssize_t n = packs->engine->ops->read(
		packs->engine, cfs_packs_id(number), buf, len, off);

	if (n < 0)
		return (int)n;
	return (size_t)n == len ? 0 : -EBADMSG;
}

struct walk {
	struct cfs_packs *packs;
	cfs_record_fn *fn;
	void *arg;
	struct cfs_scan_end *end;
	uint64_t last_number; /* 0: any may follow */
	/* the pack being walked */
	uint32_t pack;
	uint64_t off, size, limit;
	uint64_t window_off;
	size_t window_len;
	uint8_t window[WINDOW];
	uint8_t *payload; /* CFS_RECORD_MAX bytes, when first needed */
};

static void walk_fini(struct walk *w)
{
	free(w->payload);
}

static const uint8_t *head_at(struct walk *w)
{
	struct cfs_engine *engine = w->packs->engine;
	ssize_t n;

	if (w->off < w->window_off ||
	    !cfs_range_ok(w->off - w->window_off, CFS_RECORD_HEAD_BYTES,
			  w->window_len)) {
		n = engine->ops->read(engine, cfs_packs_id(w->pack), w->window,
				      WINDOW, w->off);
		w->window_off = w->off;
		w->window_len = n > 0 ? (size_t)n : 0;
		if (w->window_len < CFS_RECORD_HEAD_BYTES)
			return NULL;
	}
	return w->window + (w->off - w->window_off);
}

/* SYNCED: group (0); GROUP: what was synced before (40). */
static void note_synced(struct cfs_scan_end *end, uint32_t pack,
			const struct cfs_record *record, const uint8_t *payload)
{
	size_t at = record->type == CFS_RECORD_GROUP ? 40 : 0;
	uint64_t synced;

	if (record->payload_len < at + 8)
		return;
	synced = cfs_get_le64(payload + at);
	if (synced > end->synced) {
		end->synced = synced;
		end->synced_pack = pack;
	}
}

static bool is_checked(enum cfs_record_type type)
{
	return type == CFS_RECORD_BATCH || type == CFS_RECORD_GROUP ||
	       type == CFS_RECORD_SYNCED;
}

/* 1: the payload is what was written; 0: it is not. */
static int payload_holds(struct walk *w, const struct cfs_record *record)
{
	int r;

	if (!is_checked(record->type))
		return 1;
	if (!w->payload)
		w->payload = malloc(CFS_RECORD_MAX);
	if (!w->payload)
		return -ENOMEM;
	r = cfs_packs_scan_read(w->packs, w->pack, w->payload,
				record->payload_len,
				w->off + CFS_RECORD_HEAD_BYTES);
	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	if (cfs_hash64(w->payload, record->payload_len, 0) !=
	    record->payload_hash)
		return 0;
	if (record->type != CFS_RECORD_BATCH)
		note_synced(w->end, w->pack, record, w->payload);
	return 1;
}

/* 1: a record is there; 0: none is. */
static int next_record(struct walk *w, struct cfs_record *record)
{
	const uint8_t *head;
	int r;

	if (!cfs_range_ok(w->off, CFS_RECORD_HEAD_BYTES,
			  CFS_MIN(w->limit, w->size)))
		return 0;
	head = head_at(w);
	if (!head)
		return 0;
	r = cfs_record_decode(head, CFS_RECORD_HEAD_BYTES, w->packs->seed,
			      record);
	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	if (record->lane != CFS_PACKS_LANE ||
	    !cfs_range_ok(w->off + CFS_RECORD_HEAD_BYTES, record->payload_len,
			  CFS_MIN(w->limit, w->size)) ||
	    (record->type == CFS_RECORD_PACK) != (w->off == 0))
		return 0;
	if (w->last_number && (w->off && !w->packs->options.salvage
				       ? record->number != w->last_number + 1
				       : record->number <= w->last_number))
		return 0;
	r = payload_holds(w, record);
	return r == -EIO && w->packs->options.salvage ? 0 : r;
}

/* Salvage: to the next record that holds, behind w->off: 1; 0: there is none.
 */
static int pass_over(struct walk *w)
{
	_cleanup_(cfs_freep) uint8_t *buf = malloc(STEP);
	uint64_t from = w->off, off = from + 1;
	struct cfs_record record;
	size_t len;
	int r = 0;

	if (!buf)
		return -ENOMEM;
	for (; r == 0 && off < w->size; off += len - 3) {
		const uint8_t *p = buf;

		len = (size_t)CFS_MIN(w->size - off, STEP);
		if (len < 4)
			break;
		if (cfs_packs_scan_read(w->packs, w->pack, buf, len, off) < 0)
			continue; /* a sector that cannot be read */
		while (r == 0 &&
		       (p = memmem(p, (size_t)(buf + len - p), "CFSr", 4))) {
			w->off = off + (uint64_t)(p++ - buf);
			r = next_record(w, &record);
		}
	}
	if (r <= 0) {
		w->off = from;
		return r;
	}
	if (!w->end->passed++)
		w->end->passed_first =
			(struct cfs_position){w->pack, (uint32_t)from};
	return 1;
}

static bool is_told(enum cfs_record_type type)
{
	return type >= CFS_RECORD_CHUNK && type <= CFS_RECORD_SYNCED;
}

/* From w->off to the end of what holds. */
static int walk_pack(struct walk *w, struct cfs_error *err)
{
	struct cfs_record record;
	int r;

	for (;;) {
		r = next_record(w, &record);
		if (r == 0 && w->packs->options.salvage) {
			r = pass_over(w);
			if (r > 0)
				r = next_record(w, &record);
		}
		if (r <= 0)
			break;
		struct cfs_place place = {cfs_packs_id(w->pack),
					  (uint32_t)w->off +
						  CFS_RECORD_HEAD_BYTES,
					  record.payload_len};
		struct cfs_position at = {w->pack, (uint32_t)w->off};

		if (record.type == CFS_RECORD_FOOTER)
			return 0; /* it ends the pack, from outside the chain */
		w->last_number = record.number;
		w->off += CFS_RECORD_HEAD_BYTES + (uint64_t)record.payload_len;
		if (!is_told(record.type))
			continue;
		r = w->fn ? w->fn(w->arg, &record, place, at) : 0;
		if (r)
			return r;
	}
	if (r == -EPROTONOSUPPORT)
		return cfs_fail(err, r,
				"pack %08x has records at %llu of a kind this "
				"program does not know",
				w->pack, (unsigned long long)w->off);
	return r < 0 ? cfs_fail(err, r, "pack %08x cannot be read: %s", w->pack,
				strerror(-r))
		     : 0;
}

/* Are all bytes from w->off on zeros, or a footer? */
static int rest_is_clean(struct walk *w, bool *clean_out)
{
	_cleanup_(cfs_freep) uint8_t *buf = malloc(BLOCK);
	struct cfs_record record;
	size_t len;
	int r;

	if (!buf)
		return -ENOMEM;
	*clean_out = true;
	r = next_record(w, &record);
	if (r > 0 && record.type == CFS_RECORD_FOOTER)
		return 0;
	for (uint64_t off = w->off; off < w->size; off += len) {
		len = (size_t)CFS_MIN(w->size - off, BLOCK);
		r = cfs_packs_scan_read(w->packs, w->pack, buf, len, off);
		if (r < 0)
			return r;
		if (buf[0] || memcmp(buf, buf + 1, len - 1) != 0) {
			*clean_out = false;
			return 0;
		}
	}
	return 0;
}

/* ---- behind the end ---- */

/* SYNCED and GROUP records at any offset of [w->off, w->size) of a pack. */
static int look_behind(struct walk *w, uint64_t from)
{
	_cleanup_(cfs_freep) uint8_t *buf = NULL;
	struct cfs_record record;
	uint64_t off = from;
	size_t len;
	int r;

	buf = malloc(BLOCK);
	if (!buf)
		return -ENOMEM;
	for (; off < w->size; off += len - (CFS_RECORD_HEAD_BYTES - 1)) {
		const uint8_t *p = buf, *hit;

		len = (size_t)CFS_MIN(w->size - off, BLOCK);
		if (len < CFS_RECORD_HEAD_BYTES)
			break;
		r = cfs_packs_scan_read(w->packs, w->pack, buf, len, off);
		if (r < 0)
			return r;
		while ((hit = memmem(p, (size_t)(buf + len - p), "CFSr", 4))) {
			p = hit + 1;
			if (cfs_record_decode(hit, (size_t)(buf + len - hit),
					      w->packs->seed, &record) < 0 ||
			    record.number <= w->last_number ||
			    !is_checked(record.type))
				continue;
			w->off = off + (uint64_t)(hit - buf);
			r = payload_holds(w, &record);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

struct behind {
	struct walk *walk;
	struct cfs_position end;
};

static int look_in_pack(void *arg, struct cfs_pack_id id, uint64_t size)
{
	const struct behind *b = arg;

	if (id.lane != CFS_PACKS_LANE || id.number < b->end.pack)
		return 0;
	b->walk->pack = id.number;
	b->walk->size = size;
	return look_behind(b->walk, id.number == b->end.pack ? b->end.off : 0);
}

static int look_beyond(struct walk *w, struct cfs_position end)
{
	struct cfs_engine *engine = w->packs->engine;
	struct behind b = {w, end};
	int r = engine->ops->list(engine, look_in_pack, &b);

	return r == -EBADMSG ? 0 : r;
}

/* ---- the chain ---- */

static int no_chain(const struct cfs_packs *packs, uint32_t number,
		    struct cfs_error *err)
{
	if (number == packs->lacking && packs->lacking_bad)
		return cfs_fail(
			err, -EBADMSG,
			"pack %08x is damaged, its head does not hold: put "
			"it back from a copy",
			number);
	return cfs_fail(err, -EBADMSG,
			"pack %08x is missing: the log needs it; put it "
			"back from a copy",
			number);
}

/* The link at which a scan begins. */
static int first_link(const struct cfs_packs *packs, struct cfs_position from,
		      size_t *link_out, struct cfs_error *err)
{
	if (!from.pack) {
		*link_out = 0;
		return packs->lacking ? no_chain(packs, packs->lacking, err)
				      : 0;
	}
	for (size_t i = 0; i < packs->n_chain; i++)
		if (packs->chain[i].number == from.pack) {
			*link_out = i;
			if (from.off <= packs->chain[i].end)
				return 0;
			return cfs_fail(err, -EBADMSG,
					"pack %08x ends before %u", from.pack,
					from.off);
		}
	return no_chain(packs, packs->lacking ? packs->lacking : from.pack,
			err);
}

static int walk_link(struct walk *w, size_t i, uint64_t off,
		     struct cfs_error *err)
{
	struct cfs_engine *engine = w->packs->engine;
	const struct cfs_packs_link *link = &w->packs->chain[i];
	int r;

	w->pack = link->number;
	w->limit = link->end;
	w->off = off;
	w->window_len = 0;
	r = engine->ops->size(engine, cfs_packs_id(w->pack), &w->size);
	if (r == -ENOENT && w->packs->options.salvage)
		return 0;
	if (r < 0)
		return cfs_fail(err, r, "pack %08x is gone", w->pack);
	return walk_pack(w, err);
}

static int walk_chain(struct walk *w, struct cfs_position from, size_t first,
		      struct cfs_error *err)
{
	size_t n = w->packs->n_chain;
	bool clean;
	int r;

	for (size_t i = first; i < n; i++) {
		r = walk_link(w, i, i == first ? from.off : 0, err);
		if (r)
			return r;
		w->end->at = (struct cfs_position){w->pack, (uint32_t)w->off};
		if (i + 1 < n && w->off != w->limit &&
		    !w->packs->options.salvage) {
			w->end->why = CFS_SCAN_TORN;
			return 0;
		}
	}
	if (first == n)
		return 0;
	r = rest_is_clean(w, &clean);
	if (r < 0)
		return cfs_fail(err, r, "pack %08x cannot be read: %s", w->pack,
				strerror(-r));
	w->end->why = clean ? CFS_SCAN_END : CFS_SCAN_TORN;
	return 0;
}

int cfs_packs_scan(struct cfs_packs *packs, struct cfs_position from,
		   cfs_record_fn *fn, void *arg, struct cfs_scan_end *end_out,
		   struct cfs_error *err)
{
	struct cfs_scan_end end = {0};
	_cleanup_(walk_fini) struct walk w = {
		.packs = packs, .fn = fn, .arg = arg, .end = &end};
	size_t first = 0;
	int r;

	r = first_link(packs, from, &first, err);
	if (r == 0)
		r = walk_chain(&w, from, first, err);
	if (r)
		return r;
	if (packs->options.salvage) {
		packs->next_number =
			CFS_MAX(packs->next_number, w.last_number + 1);
		*end_out = end;
		return 0;
	}
	r = look_beyond(&w, end.at);
	if (r < 0)
		return cfs_fail(err, r, "packs cannot be read: %s",
				strerror(-r));
	*end_out = end;
	return 0;
}
