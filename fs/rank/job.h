/*
 * The ranks of a job, brought together: at opening, begin and commit all of
 * them wait for each other and get one answer.
 *
 *   job ──▶ members, one a rank       a member that leaves fails the job for
 *    └────▶ saves, in the order of    good; a save that fails, fails for all
 *           their begins
 *
 * The last to come does the work, unlocked, while the others wait.  Who waits
 * notices at once what others do, and five times a second whether its own rank
 * is still there and the time is not over.
 */
#ifndef CFS_RANK_JOB_H
#define CFS_RANK_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/daemon/control.h"
#include "fs/rank/op.h"
#include "store/util/base.h"
#include "store/util/error.h"

struct cfs_rank_job;
struct cfs_rank_jobs;
struct cfs_job_save;
struct cfs_stage;

/* One rank's part in its job; on one thread. */
struct cfs_rank_member {
	struct cfs_rank_job *job; /* NULL: in none */
	uint32_t rank;
	int fd;			   /* borrowed: is it still there? */
	struct cfs_job_save *save; /* that it is in, or NULL */
};

CFS_MUST_CHECK struct cfs_rank_jobs *cfs_rank_jobs_new(void);
/* The daemon ends: everything collective fails from now on, and says so. */
void cfs_rank_jobs_stop(struct cfs_rank_jobs *jobs);
void cfs_rank_jobs_free(struct cfs_rank_jobs *jobs); /* no member is left */

/* Makes the job (rank 0) or finds it: -EPERM, -EREMOTE; -EINVAL where it says
 * otherwise than the others, and then all of them get that. */
CFS_MUST_CHECK int cfs_rank_job_join(struct cfs_rank_jobs *jobs,
				     const struct cfs_verb_context *context,
				     const struct cfs_session *session,
				     const struct cfs_op_hello *hello,
				     struct cfs_rank_member *out,
				     struct cfs_error *err);
/* Everything collective fails from now on, and says who left. */
void cfs_rank_job_leave(struct cfs_rank_member *member); /* _cleanup_ */
const char *cfs_rank_job_token(const struct cfs_rank_job *job);
const char *cfs_rank_job_run(const struct cfs_rank_job *job);
/* Does the daemon end?  Then why, in words. */
bool cfs_rank_job_stopping(const struct cfs_rank_job *job,
			   struct cfs_error *err);
/* Until all ranks are there. */
CFS_MUST_CHECK int cfs_rank_job_gather(struct cfs_rank_member *member,
				       struct cfs_error *err);

/* ---- save.c ---- */

/* Collective; @refused: this rank's operation is none, as @err says already. */
CFS_MUST_CHECK int cfs_job_save_begin(struct cfs_rank_member *member,
				      const struct cfs_op *op, int refused,
				      struct cfs_error *err);
/* Collective; the member is in no save afterwards. */
CFS_MUST_CHECK int cfs_job_save_commit(struct cfs_rank_member *member,
				       struct cfs_error *err);
/* The save has failed, for all ranks: "rank 3: @text", or "rank 3 @text". */
void cfs_job_save_fail(struct cfs_rank_member *member, int r, const char *text);
void cfs_job_save_abort(struct cfs_rank_member *member, const char *reason);
/* 0, or what all ranks are told. */
CFS_MUST_CHECK int cfs_job_save_check(const struct cfs_rank_member *member,
				      struct cfs_error *err);
/* The member has ended all its streams of it. */
void cfs_job_save_drop(struct cfs_rank_member *member);
struct cfs_stage *cfs_job_save_stage(const struct cfs_rank_member *member);

#endif
