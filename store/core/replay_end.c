/* The end of replay: does the last group count, and is there more that should?
 */
#include "store/core/replay_internal.h"

#include <errno.h>

#include "store/util/error.h"
#include "store/util/log.h"

static int damaged(struct replay *rp, struct cfs_position at,
		   struct cfs_error *err)
{
	return cfs_fail(err, -EBADMSG,
			"pack %08x is damaged at %u: group %llu, which was "
			"synced, cannot be read",
			at.pack, at.off,
			(unsigned long long)rp->tip.number + 1);
}

/* Where a pack ends as it should, the next one's head is what does not hold. */
static struct cfs_position damaged_at(const struct replay *rp,
				      const struct cfs_scan_end *end)
{
	if (rp->broken)
		return rp->broken_at;
	if (end->why == CFS_SCAN_END && end->synced_pack > end->at.pack)
		return (struct cfs_position){end->synced_pack, 0};
	return end->at;
}

/* Is all that was appended for the tip as it should be?  1, 0, an error. */
static int tip_intact(struct replay *rp)
{
	size_t i;
	int r;

	for (i = 0; i < rp->tip_objects.n; i++) {
		r = cfs_packs_verify(rp->store->packs,
				     &rp->tip_objects.items[i].record,
				     rp->tip_objects.items[i].place);
		if (r == -EBADMSG || (r == -EIO && rp->store->salvage)) {
			cfs_log(CFS_LOG_WARN,
				"pack %08x: what came after group %llu never "
				"reached the disk; it is cut off",
				rp->tip_objects.items[i].place.pack.number,
				(unsigned long long)rp->before.number);
			return 0;
		}
		if (r < 0)
			return r;
	}
	return 1;
}

/* A killed process leaves bytes in the page cache: what was recovered must not
 * get lost once something stands on it. */
static int make_durable(struct replay *rp)
{
	struct cfs_engine *engine = cfs_packs_engine(rp->store->packs);
	uint32_t n = CFS_MAX(rp->before.end.pack, 1u);
	int r = 0;

	if (rp->store->untouched) /* nothing will stand on it */
		return 0;
	for (; r == 0 && n <= rp->tip.end.pack; n++) {
		r = engine->ops->sync(engine, (struct cfs_pack_id){0, n});
		if (r == -ENOENT)
			r = 0;
	}
	return r;
}

int cfs_replay_finish(struct replay *rp, const struct cfs_scan_end *end,
		      struct cfs_recovered *out, struct cfs_error *err)
{
	bool torn = end->why == CFS_SCAN_TORN;
	int r;

	if (!rp->met)
		return -ESTALE;
	/* Records behind what is not whole may say that it was synced. */
	rp->synced = CFS_MAX(rp->synced, end->synced);
	if (rp->synced > rp->tip.number && !rp->store->salvage)
		return damaged(rp, damaged_at(rp, end), err);
	if (rp->from_snapshot && !rp->have_tip)
		return damaged(rp, rp->tip.snapshot, err);
	if (!rp->tip_applied && rp->have_tip && rp->synced < rp->tip.number) {
		r = tip_intact(rp);
		if (r > 0)
			r = make_durable(rp);
		else if (r == 0) {
			rp->tip = rp->before;
			rp->tip_applied = true;
			rp->trailing = true;
		}
		if (r < 0)
			return r;
	}
	r = cfs_replay_apply(rp);
	if (r < 0)
		return r;
	*out = (struct cfs_recovered){
		.end = rp->tip.end,
		.snapshot = rp->tip.snapshot,
		.from = cfs_tip_from(&rp->tip),
		.group = rp->tip.number,
		.known = CFS_MAX(rp->known, rp->synced),
		.time_ns = rp->tip.time_ns,
		.passed = end->passed,
		.passed_first = end->passed_first,
		.digest = rp->tip.digest,
		.clean = !torn && !rp->broken && !rp->trailing &&
			 (!rp->tip.number || rp->tip.flags & CFS_GROUP_CLEAN),
	};
	return 0;
}
