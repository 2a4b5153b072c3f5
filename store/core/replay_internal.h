/* The state of one replay. */
#ifndef CFS_CORE_REPLAY_INTERNAL_H
#define CFS_CORE_REPLAY_INTERNAL_H

#include "store/core/store_internal.h"

struct cfs_seen {
	struct cfs_record record;
	struct cfs_place place;
};

struct cfs_seen_list {
	struct cfs_seen *items;
	size_t n, cap;
};

struct cfs_tip { /* a group that fits */
	uint64_t number;
	struct cfs_digest digest, prev;
	struct cfs_position end;      /* behind its GROUP record */
	struct cfs_position snapshot; /* the newest there was by then */
	uint8_t flags;
	bool afresh; /* a snapshot that does not go on from what is before */
	uint64_t time_ns;
};

struct replay {
	struct cfs_store *store;
	bool rebuild, from_snapshot;
	bool met;	  /* the group that the index has applied was seen */
	bool have_tip;	  /* a GROUP record was accepted */
	bool tip_applied; /* or nothing to apply yet */
	bool any_applied; /* the index has a state */
	bool broken;	  /* a GROUP record does not fit: nothing behind
			     counts, it may only show that it should */
	bool trailing;	  /* records behind the tip */
	struct cfs_tip tip, before;
	uint64_t synced; /* groups up to this one were synced */
	uint64_t known;	 /* salvage: the youngest there are signs of */
	struct cfs_position broken_at;
	struct cfs_seen_list batches, objects; /* since the tip */
	struct cfs_seen_list tip_batches, tip_objects;
};

/* Where the next replay must begin to meet the tip again: before its GROUP
 * record, or an index that has it could not be told from one of another log. */
static inline struct cfs_position cfs_tip_from(const struct cfs_tip *tip)
{
	struct cfs_position at = tip->end;

	if (tip->flags & CFS_GROUP_SNAPSHOT)
		return tip->snapshot;
	if (at.pack)
		at.off -= CFS_RECORD_HEAD_BYTES + CFS_GROUP_BYTES;
	return at;
}

/* ---- replay_apply.c ---- */

CFS_MUST_CHECK int cfs_seen_push(struct cfs_seen_list *list,
				 const struct cfs_record *record,
				 struct cfs_place place);
/* All of @from behind what @to has; @from is empty then. */
CFS_MUST_CHECK int cfs_seen_append(struct cfs_seen_list *to,
				   struct cfs_seen_list *from);
void cfs_seen_free(struct cfs_seen_list *list);
CFS_MUST_CHECK int cfs_replay_payload(struct replay *rp, struct cfs_place place,
				      struct cfs_buf *out);
CFS_MUST_CHECK int cfs_replay_commit(struct replay *rp,
				     const struct cfs_batch *batch);
/* The tip, which counts, if that is not done already. */
CFS_MUST_CHECK int cfs_replay_apply(struct replay *rp);

/* ---- replay_end.c ---- */

/* All was scanned. */
CFS_MUST_CHECK int cfs_replay_finish(struct replay *rp,
				     const struct cfs_scan_end *end,
				     struct cfs_recovered *out,
				     struct cfs_error *err);

#endif
