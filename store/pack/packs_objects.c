/* Chunk and map records of packs: from the footer, else by reading it all. */
#include "store/pack/packs_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/checked.h"
#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/log.h"

#define STEP   (64u << 10)
#define SECTOR 4096u /* that cannot be read, and is passed over */

struct objects {
	struct cfs_packs *packs;
	struct cfs_pack_id id;
	uint64_t size, limit; /* what lies behind limit does not count */
	cfs_record_fn *fn;
	void *arg;
	uint64_t damaged; /* offset of a record that does not hold; or 0 */
};

static int tell(const struct objects *o, const struct cfs_record *record,
		uint32_t off)
{
	struct cfs_place place = {o->id, off, record->payload_len};
	struct cfs_position at = {o->id.number, off - CFS_RECORD_HEAD_BYTES};

	if ((uint64_t)off + record->payload_len > o->limit)
		return 0;
	return o->fn(o->arg, record, place, at);
}

static int tell_entry(void *arg, const struct cfs_layout_entry *e)
{
	struct cfs_record record = {.type = e->type,
				    .lane = CFS_PACKS_LANE,
				    .payload_len = e->len,
				    .raw_len = e->raw_len,
				    .digest = e->digest};

	return tell(arg, &record, e->off);
}

/* -ENOENT: there is no footer that holds. */
static int from_footer(struct objects *o)
{
	_cleanup_(cfs_freep) uint8_t *payload = NULL;
	uint8_t raw[CFS_RECORD_HEAD_BYTES];
	struct cfs_record record = {0};
	uint32_t at = 0;
	int r;

	if (o->size < CFS_LAYOUT_FIRST + sizeof(raw) + CFS_LAYOUT_TRAILER)
		return -ENOENT;
	r = cfs_packs_scan_read(o->packs, o->id.number, raw, CFS_LAYOUT_TRAILER,
				o->size - CFS_LAYOUT_TRAILER);
	if (r == 0)
		r = cfs_layout_trailer(raw, &at);
	if (r == 0)
		r = cfs_packs_scan_read(o->packs, o->id.number, raw,
					sizeof(raw), at);
	if (r == 0)
		r = cfs_record_decode(raw, sizeof(raw), o->packs->seed,
				      &record);
	if (r < 0)
		return -ENOENT;
	if (record.type != CFS_RECORD_FOOTER ||
	    (uint64_t)at + sizeof(raw) + record.payload_len != o->size)
		return -ENOENT;
	payload = malloc(record.payload_len + 1u);
	if (!payload)
		return -ENOMEM;
	r = cfs_packs_scan_read(o->packs, o->id.number, payload,
				record.payload_len, at + sizeof(raw));
	if (r < 0)
		return r == -EBADMSG || r == -EIO ? -ENOENT : r;
	if (cfs_hash64(payload, record.payload_len, 0) != record.payload_hash)
		return -ENOENT;
	r = cfs_layout_footer_parse(payload, record.payload_len, at, tell_entry,
				    o);
	return r == -EBADMSG ? -ENOENT : r;
}

static int read_record(struct objects *o, const struct cfs_record *record,
		       uint64_t off, uint8_t *payload)
{
	bool holds;
	int r;

	r = cfs_packs_scan_read(o->packs, o->id.number, payload,
				record->payload_len, off);
	if (r < 0 && r != -EIO)
		return r;
	holds = r == 0 && cfs_hash64(payload, record->payload_len, 0) ==
				  record->payload_hash;
	if (!holds)
		o->damaged = off; /* its length may be trusted, so go on */
	/* What cannot be read is told, as the footer would: it may be there
	 * next time, and gc must not take it for nothing meanwhile. */
	if (r == 0 && !holds)
		return 0;
	return tell(o, record, (uint32_t)off);
}

/* The record at @off with a number above @after: 1, 0 or an error. */
static int head_at(const struct objects *o, uint64_t off, uint64_t after,
		   struct cfs_record *record)
{
	uint64_t size = CFS_MIN(o->size, o->limit);
	uint8_t raw[CFS_RECORD_HEAD_BYTES];
	int r;

	r = cfs_packs_scan_read(o->packs, o->id.number, raw, sizeof(raw), off);
	if (r == 0)
		r = cfs_record_decode(raw, sizeof(raw), o->packs->seed, record);
	if (r < 0)
		return r == -EBADMSG || r == -EIO ? 0 : r;
	return cfs_range_ok(off + sizeof(raw), record->payload_len, size) &&
	       record->number > after;
}

/* The next head that holds, from @off on: one byte that changed, or a sector
 * that cannot be read, must not hide all that lies behind it. */
static int next_head(const struct objects *o, uint64_t *off, uint64_t after)
{
	uint64_t size = CFS_MIN(o->size, o->limit), at = *off;
	_cleanup_(cfs_freep) uint8_t *buf = malloc(STEP);
	struct cfs_record record = {0};
	uint64_t step = STEP;
	size_t len;
	int r = 0;

	if (!buf)
		return -ENOMEM;
	for (; r == 0 && cfs_range_ok(at, CFS_RECORD_HEAD_BYTES, size);
	     at += len - (CFS_RECORD_HEAD_BYTES - 1)) {
		const uint8_t *p = buf;

		len = (size_t)CFS_MIN(size - at, step);
		r = cfs_packs_scan_read(o->packs, o->id.number, buf, len, at);
		if (r == -EIO) {
			if (step > SECTOR) /* the same again, less of it */
				len = CFS_RECORD_HEAD_BYTES - 1;
			step = SECTOR;
			r = 0;
			continue;
		}
		while (r == 0 &&
		       (p = memmem(p, (size_t)(buf + len - p), "CFSr", 4))) {
			*off = at + (uint64_t)(p++ - buf);
			if (cfs_range_ok(*off, CFS_RECORD_HEAD_BYTES, size))
				r = head_at(o, *off, after, &record);
		}
	}
	return r;
}

/* Every record that holds. */
static int by_reading(struct objects *o)
{
	_cleanup_(cfs_freep) uint8_t *payload = malloc(CFS_RECORD_MAX);
	uint64_t off = 0, number = 0, size = CFS_MIN(o->size, o->limit);
	struct cfs_record record = {0};
	int r;

	if (!payload)
		return -ENOMEM;
	while (cfs_range_ok(off, CFS_RECORD_HEAD_BYTES, size)) {
		r = head_at(o, off, number, &record);
		if (r == 0) {
			o->damaged = off++ + CFS_RECORD_HEAD_BYTES;
			r = next_head(o, &off, number);
			if (r > 0)
				continue;
		}
		if (r <= 0)
			return r;
		off += CFS_RECORD_HEAD_BYTES;
		if (record.type == CFS_RECORD_CHUNK ||
		    record.type == CFS_RECORD_MAP) {
			r = read_record(o, &record, off, payload);
			if (r)
				return r;
		}
		number = record.number;
		off += record.payload_len;
	}
	return 0;
}

static int objects_of(struct objects *o, struct cfs_error *err)
{
	int r;

	r = from_footer(o);
	if (r == -ENOENT) {
		r = by_reading(o);
		if (r == 0 && o->damaged)
			cfs_log(CFS_LOG_WARN,
				"pack %08x: the record at %llu does not hold",
				o->id.number,
				(unsigned long long)(o->damaged -
						     CFS_RECORD_HEAD_BYTES));
	}
	return r < 0 ? cfs_fail(err, r, "pack %08x cannot be read: %s",
				o->id.number, strerror(-r))
		     : r;
}

int cfs_packs_objects(struct cfs_packs *packs, struct cfs_pack_id id,
		      cfs_record_fn *fn, void *arg, struct cfs_error *err)
{
	struct objects o = {.packs = packs,
			    .id = id,
			    .limit = UINT64_MAX,
			    .fn = fn,
			    .arg = arg};
	int r;

	r = packs->engine->ops->size(packs->engine, id, &o.size);
	if (r < 0)
		return cfs_fail(err, r, "pack %08x cannot be read: %s",
				id.number, strerror(-r));
	return objects_of(&o, err);
}

struct all {
	struct cfs_packs *packs;
	struct cfs_position end;
	cfs_record_fn *fn;
	void *arg;
	struct cfs_error *err;
};

/* How much of a pack counts; 0: nothing. */
static uint64_t limit_of(const struct all *all, uint32_t number)
{
	const struct cfs_packs *packs = all->packs;

	if (packs->options.salvage)
		return UINT64_MAX;
	if (number > all->end.pack)
		return 0;
	for (size_t i = 0; i < packs->n_chain; i++)
		if (packs->chain[i].number == number)
			return number == all->end.pack ? all->end.off
						       : packs->chain[i].end;
	/* older than the chain: objects only; between its packs: left behind */
	return packs->n_chain && number < packs->chain[0].number ? UINT64_MAX
								 : 0;
}

static int all_one(void *arg, struct cfs_pack_id id, uint64_t size)
{
	const struct all *all = arg;
	struct objects o = {.packs = all->packs,
			    .id = id,
			    .size = size,
			    .fn = all->fn,
			    .arg = all->arg};

	if (id.lane != CFS_PACKS_LANE)
		return 0;
	o.limit = limit_of(all, id.number);
	return o.limit ? objects_of(&o, all->err) : 0;
}

int cfs_packs_scan_objects(struct cfs_packs *packs, struct cfs_position end,
			   cfs_record_fn *fn, void *arg, struct cfs_error *err)
{
	struct all all = {packs, end, fn, arg, err};

	return packs->engine->ops->list(packs->engine, all_one, &all);
}
