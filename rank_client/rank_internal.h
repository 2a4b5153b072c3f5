/* The handles of the API, which several files work on. */
#ifndef CFS_RANK_CLIENT_RANK_INTERNAL_H
#define CFS_RANK_CLIENT_RANK_INTERNAL_H

#include <stdbool.h>
#include <time.h>

#include <cjson/cJSON.h>

#include "ckptfs/rank.h"
#include "rank_client/dev.h"
#include "rank_client/error.h"
#include "rank_client/link.h"
#include "rank_client/ring.h"
#include "store/util/base.h"
#include "store/util/buf.h"
#include "store/util/error.h"

#define CFS_TICK_MS 100 /* between two looks at progress */

struct cfs_rank {
	struct cfs_rank *next; /* of all in this process: fork.c */
	bool forked;	       /* it is the parent's */
	uint32_t rank, n_ranks;
	struct cfs_ring ring;
	struct cfs_link *link;
	struct cfs_dev *dev[2]; /* by enum cfs_rank_memory; NULL: not yet */
	struct cfs_rank_save *save;
	uint64_t n_saves; /* begun; counts them for the daemon */
	struct cfs_rank_load *loads;
	void (*progress)(void *arg, const struct cfs_rank_progress *progress);
	void *progress_arg;
	struct timespec told; /* when progress last was */
};

/* This process may use it: 0, -EPERM in a child, or what the link died of. */
CFS_MUST_CHECK int cfs_rank_check(const struct cfs_rank *rank,
				  struct cfs_error *err);
/* What copies to and from @memory. */
CFS_MUST_CHECK int cfs_rank_dev(struct cfs_rank *rank, uint32_t memory,
				struct cfs_dev **out, struct cfs_error *err);
/* Tells, if it is time to or this is the @last. */
void cfs_rank_tell(struct cfs_rank *rank, const char *what, uint64_t done,
		   uint64_t total, bool last);
/* Asks and waits; takes @json over. */
CFS_MUST_CHECK int cfs_rank_ask(struct cfs_rank *rank, cJSON *json,
				cJSON **answer_out, struct cfs_error *err);
/* For _cleanup_. */
void cfs_rank_json_freep(cJSON **json);

/* fork.c: the handles that a forked child has to let go of. */
void cfs_rank_fork_add(struct cfs_rank *rank);
void cfs_rank_fork_remove(struct cfs_rank *rank);

/* save.c, load.c: what a closed handle still has open. */
void cfs_rank_save_end(struct cfs_rank_save *save);
void cfs_rank_load_end(struct cfs_rank_load *load);

#endif
