/*
 * Recovery: what the log says becomes what the index says (store/FORMAT.md,
 * "Sync and recovery").
 *
 * The scan goes along the chain once.  A group is applied when the next one is
 * found, which says that it was synced; the last one (`tip`) at the end, when a
 * SYNCED record vouches for it or all that was appended for it is intact.
 */
#include "store/core/replay_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/endian.h"
#include "store/util/error.h"
#include "store/util/log.h"

static struct cfs_position behind(struct cfs_position at, uint32_t payload_len)
{
	at.off += CFS_RECORD_HEAD_BYTES + payload_len;
	return at;
}

/* ---- GROUP records ---- */

/* The last @n batches seen are those of the group: 1 yes, 0 no. */
static int batches_fit(struct replay *rp, const struct cfs_group_record *g)
{
	_cleanup_(cfs_buf_free) struct cfs_buf payload = CFS_BUF_INIT;
	struct cfs_digester *d;
	struct cfs_digest is;
	size_t i;
	int r = 1;

	if (rp->batches.n < g->n_batches)
		return 0;
	d = cfs_digester_new();
	if (!d)
		return -ENOMEM;
	for (i = rp->batches.n - g->n_batches; r > 0 && i < rp->batches.n;
	     i++) {
		r = cfs_replay_payload(rp, rp->batches.items[i].place,
				       &payload);
		if (r < 0)
			break;
		cfs_digester_add(d, payload.data, payload.len);
		r = payload.len >= 8 && cfs_get_le64(payload.data) == g->number;
	}
	cfs_digester_end(d, &is);
	cfs_digester_free(d);
	if (r <= 0)
		return r;
	return cfs_digest_cmp(&is, &g->batches) == 0;
}

/* What was seen belongs to the tip now. */
static int take_seen(struct replay *rp, uint32_t n_batches)
{
	size_t skip = rp->batches.n - n_batches, i;
	int r = 0;

	rp->tip_batches.n = 0;
	for (i = skip; r == 0 && i < rp->batches.n; i++)
		r = cfs_seen_push(&rp->tip_batches,
				  &rp->batches.items[i].record,
				  rp->batches.items[i].place);
	rp->batches.n = 0;
	if (r == 0)
		r = cfs_seen_append(&rp->tip_objects, &rp->objects);
	return r;
}

/* The newest snapshot, this group included.  Only its own batches: what was
 * seen may begin with another group's. */
static struct cfs_position snapshot_of(const struct replay *rp,
				       const struct cfs_group_record *g,
				       struct cfs_position at)
{
	const struct cfs_place *first;

	if (!(g->flags & CFS_GROUP_SNAPSHOT) || g->n_batches > rp->batches.n)
		return rp->before.snapshot;
	if (!g->n_batches)
		return at;
	first = &rp->batches.items[rp->batches.n - g->n_batches].place;
	return (struct cfs_position){first->pack.number,
				     first->off - CFS_RECORD_HEAD_BYTES};
}

static int new_tip(struct replay *rp, const struct cfs_group_record *g,
		   const struct cfs_digest *digest, struct cfs_position at,
		   bool replaces)
{
	int r;

	if (!replaces) {
		r = cfs_replay_apply(rp);
		if (r < 0)
			return r;
		rp->before = rp->tip;
		rp->tip_objects.n = 0;
	}
	rp->tip = (struct cfs_tip){
		.number = g->number,
		.digest = *digest,
		.prev = g->prev,
		.end = behind(at, CFS_GROUP_BYTES),
		.snapshot = snapshot_of(rp, g, at),
		.flags = g->flags,
		.time_ns = g->time_ns,
	};
	/* A pack's head names a snapshot that is durable. */
	if (rp->from_snapshot && !rp->have_tip)
		rp->synced = CFS_MAX(rp->synced, g->number);
	rp->tip_applied = false;
	rp->have_tip = true;
	rp->trailing = false;
	return take_seen(rp, g->n_batches);
}

/* An index that caught up begins a bit before the group it has applied, and
 * must meet it: else the log is not the one it was made from. */
static int meet(struct replay *rp, const struct cfs_group_record *g,
		const struct cfs_digest *digest, struct cfs_position at)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch batch = CFS_BATCH_INIT;
	size_t i;
	int r;

	if (g->number > rp->tip.number)
		return -ESTALE;
	/* before it, or an attempt at it that it replaced */
	if (g->number < rp->tip.number ||
	    cfs_digest_cmp(digest, &rp->tip.digest) != 0)
		return 0;
	for (i = 0; i < rp->objects.n; i++)
		cfs_rebuild_put(&batch, &rp->objects.items[i].record,
				rp->objects.items[i].place);
	r = cfs_replay_commit(rp, &batch);
	rp->tip.snapshot = snapshot_of(rp, g, at);
	rp->objects.n = 0;
	rp->batches.n = 0;
	rp->tip.end = behind(at, CFS_GROUP_BYTES);
	rp->tip.flags = g->flags;
	rp->tip.time_ns = g->time_ns;
	rp->tip.prev = g->prev;
	rp->before = rp->tip;
	rp->met = true;
	rp->trailing = false;
	return r;
}

/* Salvage: something is missing before it.  A snapshot needs nothing. */
static int unfit_salvaged(struct replay *rp, const struct cfs_group_record *g,
			  const struct cfs_digest *digest,
			  struct cfs_position at)
{
	int r = 0;

	if (g->flags & CFS_GROUP_SNAPSHOT && g->number > rp->tip.number)
		r = batches_fit(rp, g);
	if (r > 0) {
		r = new_tip(rp, g, digest, at, false);
		rp->tip.afresh = true;
	}
	rp->batches.n = 0;
	return r;
}

static int unfit(struct replay *rp, struct cfs_position at)
{
	if (rp->store->salvage)
		return 0;
	if (!rp->broken)
		rp->broken_at = at;
	rp->broken = true;
	return 0;
}

static int on_group(struct replay *rp, const struct cfs_record *record,
		    struct cfs_place place, struct cfs_position at)
{
	uint8_t payload[CFS_GROUP_BYTES];
	struct cfs_group_record g;
	struct cfs_digest digest;
	bool next, again;
	int r;

	if (record->payload_len != sizeof(payload))
		return unfit(rp, at);
	r = cfs_packs_read(rp->store->packs, place, 0, payload,
			   sizeof(payload));
	if (r < 0)
		return r;
	if (cfs_group_decode(payload, sizeof(payload), &g) < 0)
		return unfit(rp, at);
	cfs_digest_of(payload, sizeof(payload), &digest);
	rp->synced = CFS_MAX(rp->synced, g.synced);
	rp->known = CFS_MAX(rp->known, g.number);
	if (rp->broken)
		return 0;
	if (!rp->met)
		return meet(rp, &g, &digest, at);
	next = g.number == rp->tip.number + 1 &&
	       cfs_digest_cmp(&g.prev, &rp->tip.digest) == 0;
	again = rp->have_tip && !rp->tip_applied &&
		g.number == rp->tip.number &&
		cfs_digest_cmp(&g.prev, &rp->tip.prev) == 0;
	if (!rp->have_tip && rp->from_snapshot)
		next = g.flags & CFS_GROUP_SNAPSHOT;
	r = next || again ? batches_fit(rp, &g) : 0;
	if (r < 0)
		return r;
	if (!r && rp->store->salvage)
		return unfit_salvaged(rp, &g, &digest, at);
	if (!r)
		return unfit(rp, at);
	return new_tip(rp, &g, &digest, at, again);
}

static int on_synced(struct replay *rp, struct cfs_place place)
{
	uint8_t payload[8];
	int r;

	if (place.len != sizeof(payload))
		return 0;
	r = cfs_packs_read(rp->store->packs, place, 0, payload,
			   sizeof(payload));
	if (r == 0)
		rp->synced = CFS_MAX(rp->synced, cfs_get_le64(payload));
	return r;
}

static int on_record(void *arg, const struct cfs_record *record,
		     struct cfs_place place, struct cfs_position at)
{
	struct replay *rp = arg;

	switch (record->type) {
	case CFS_RECORD_CHUNK:
	case CFS_RECORD_MAP:
		rp->trailing = true;
		return rp->broken ? 0
				  : cfs_seen_push(&rp->objects, record, place);
	case CFS_RECORD_BATCH:
		rp->trailing = true;
		return rp->broken ? 0
				  : cfs_seen_push(&rp->batches, record, place);
	case CFS_RECORD_GROUP:
		return on_group(rp, record, place, at);
	case CFS_RECORD_SYNCED:
		return on_synced(rp, place);
	case CFS_RECORD_PACK:
	case CFS_RECORD_FOOTER:
		break;
	}
	return 0;
}

/* ---- where to begin ---- */

static int begin(struct replay *rp, struct cfs_position *from)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_index *index = rp->store->index;
	struct cfs_applied a;
	struct cfs_key key;
	int r;

	rp->tip.snapshot = cfs_packs_snapshot(rp->store->packs);
	rp->before = rp->tip;
	rp->tip_applied = true;
	if (rp->rebuild) {
		/* or from the first record there is */
		if (rp->store->salvage != CFS_SALVAGE_ALL)
			*from = rp->tip.snapshot;
		rp->from_snapshot = from->pack;
		rp->met = true;
		return 0;
	}
	cfs_key_applied(&key);
	r = index->ops->get(index, cfs_key_slice(&key), &buf);
	if (r == 0)
		r = cfs_applied_decode(buf.data, buf.len, &a);
	if (r == -ENOENT || r == -EBADMSG)
		return -ESTALE;
	if (r)
		return r;
	rp->tip.number = a.group;
	rp->tip.digest = a.digest;
	rp->before = rp->tip;
	rp->synced = a.group;
	rp->any_applied = true;
	*from = a.from;
	return 0;
}

int cfs_replay(struct cfs_store *store, bool rebuild, struct cfs_recovered *out,
	       struct cfs_error *err)
{
	struct replay rp = {.store = store, .rebuild = rebuild};
	struct cfs_scan_end end = {.why = CFS_SCAN_END};
	struct cfs_position from = {0, 0};
	int r;

	r = begin(&rp, &from);
	if (r == 0)
		r = cfs_packs_scan(store->packs, from, on_record, &rp, &end,
				   err);
	if (r == 0)
		r = cfs_replay_finish(&rp, &end, out, err);
	cfs_seen_free(&rp.batches);
	cfs_seen_free(&rp.objects);
	cfs_seen_free(&rp.tip_batches);
	cfs_seen_free(&rp.tip_objects);
	/* What the index said may be what is wrong. */
	if (!rebuild && (r == -EBADMSG || r == -ENOENT || r == -EINVAL))
		r = -ESTALE;
	return r;
}
