/*
 * Checking the log where nothing else reads it while a store is open: every
 * record from the pack of the newest snapshot on, which a rebuild would need.
 */
#include "store/pack/packs_internal.h"

#include <errno.h>

#include "store/util/checked.h"
#include "store/util/grow.h"
#include "store/util/hash.h"

struct check {
	struct cfs_packs *packs;
	cfs_log_damage_fn *fn;
	void *arg;
	struct cfs_packs_link *links; /* newest first */
	size_t n, cap;
	uint8_t *payload; /* CFS_RECORD_MAX bytes */
};

static void check_fini(struct check *c)
{
	free(c->links);
	free(c->payload);
}

/* gc takes packs away that a newer snapshot made needless. */
static bool is_gone(const struct check *c, uint32_t number)
{
	struct cfs_packs *packs = c->packs;
	bool gone;

	(void)pthread_mutex_lock(&packs->lock);
	gone = number < packs->snapshot.pack;
	(void)pthread_mutex_unlock(&packs->lock);
	return gone;
}

/* Damage is told and is no error; what is left of errors is -ENOMEM. */
static int tell(const struct check *c, uint32_t number, uint64_t off, int r)
{
	if (r == -ENOMEM)
		return r;
	if (r == -ENOENT && is_gone(c, number))
		return 0;
	c->fn(c->arg, (struct cfs_position){number, (uint32_t)off}, r);
	return 0;
}

/* Back to the pack with the snapshot that the newest head names. */
static int find_links(struct check *c, struct cfs_position end)
{
	struct cfs_layout_head head = {.prev = end.pack, .prev_end = end.off};
	uint64_t first;
	uint32_t stop = 0;
	int r;

	while (head.prev && head.prev >= stop) {
		if (!CFS_GROW(c->links, c->n, c->cap))
			return -ENOMEM;
		c->links[c->n] =
			(struct cfs_packs_link){head.prev, head.prev_end};
		r = cfs_packs_head_read(c->packs, head.prev, &head, &first,
					NULL);
		if (r < 0)
			return tell(c, c->links[c->n].number, 0, r);
		if (!c->n++)
			stop = head.snapshot.pack;
	}
	return 0;
}

static bool is_read(enum cfs_record_type type)
{
	return type == CFS_RECORD_PACK || type == CFS_RECORD_BATCH ||
	       type == CFS_RECORD_GROUP || type == CFS_RECORD_SYNCED;
}

static int check_payload(const struct check *c, uint32_t number, uint64_t off,
			 const struct cfs_record *record)
{
	int r = 0;

	if (!is_read(record->type))
		return 0;
	r = cfs_packs_scan_read(c->packs, number, c->payload,
				record->payload_len,
				off + CFS_RECORD_HEAD_BYTES);
	if (r < 0)
		return r;
	return cfs_hash64(c->payload, record->payload_len, 0) ==
			       record->payload_hash
		       ? 0
		       : -EBADMSG;
}

/* 0 and the record at @off, which is the @last one's next (0: any is). */
static int check_head(const struct check *c, const struct cfs_packs_link *link,
		      uint64_t off, uint64_t last, struct cfs_record *record)
{
	uint8_t raw[CFS_RECORD_HEAD_BYTES];
	int r;

	if (!cfs_range_ok(off, sizeof(raw), link->end))
		return -EBADMSG;
	r = cfs_packs_scan_read(c->packs, link->number, raw, sizeof(raw), off);
	if (r == 0)
		r = cfs_record_decode(raw, sizeof(raw), c->packs->seed, record);
	if (r < 0)
		return r;
	if (record->lane != CFS_PACKS_LANE ||
	    (last && record->number != last + 1) ||
	    (record->type == CFS_RECORD_PACK) != (off == 0) ||
	    !cfs_range_ok(off + sizeof(raw), record->payload_len, link->end))
		return -EBADMSG;
	return 0;
}

/* Where a head does not hold, reading the log would end. */
static int check_pack(const struct check *c, const struct cfs_packs_link *link)
{
	struct cfs_record record = {0};
	uint64_t off = 0;
	int r;

	while (off < link->end) {
		r = check_head(c, link, off, record.number, &record);
		if (r < 0)
			return tell(c, link->number, off, r);
		r = check_payload(c, link->number, off, &record);
		if (r < 0)
			r = tell(c, link->number, off, r);
		if (r < 0)
			return r;
		off += CFS_RECORD_HEAD_BYTES + (uint64_t)record.payload_len;
	}
	return 0;
}

int cfs_packs_check_log(struct cfs_packs *packs, struct cfs_position end,
			cfs_log_damage_fn *fn, void *arg)
{
	_cleanup_(check_fini) struct check c = {
		.packs = packs, .fn = fn, .arg = arg};
	int r;

	/* What is not yet synced may still be being written. */
	(void)pthread_mutex_lock(&packs->lock);
	if (packs->started)
		end = packs->good;
	(void)pthread_mutex_unlock(&packs->lock);
	c.payload = malloc(CFS_RECORD_MAX);
	if (!c.payload)
		return -ENOMEM;
	r = find_links(&c, end);
	for (size_t i = c.n; r == 0 && i; i--)
		r = check_pack(&c, &c.links[i - 1]);
	return r;
}
