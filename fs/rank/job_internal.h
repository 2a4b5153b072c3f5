/* What job.c and save.c share. */
#ifndef CFS_RANK_JOB_INTERNAL_H
#define CFS_RANK_JOB_INTERNAL_H

#include <pthread.h>

#include "fs/rank/job.h"

struct cfs_rank_job {
	struct cfs_rank_jobs *jobs; /* borrowed */
	struct cfs_rank_job *next;  /* guarded by jobs' lock */
	unsigned refs;		    /* guarded by jobs' lock */
	bool told_to_stop;	    /* guarded by jobs' lock */
	/* fixed */
	struct cfs_verb_context context; /* outlives every save */
	char token[33];
	char *run;
	uint32_t n_ranks, timeout_s;
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	size_t n_groups;
	mode_t umask;
	/* guarded by lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint32_t n_here;
	struct {
		bool came;
		pid_t pid;
	} * members;
	int r; /* 0, or why nothing collective works any more */
	struct cfs_error err;
	struct cfs_job_save *gathering; /* some have begun, not all */
};

/* Unless it has failed before.  Locked. */
void cfs_rank_job_fail(struct cfs_rank_job *job, int r,
		       const struct cfs_error *why);
int64_t cfs_rank_job_deadline(uint32_t seconds);
/* Locked.  0: look again; -EPIPE: @member's rank is gone; -ETIMEDOUT. */
CFS_MUST_CHECK int cfs_rank_job_wait(struct cfs_rank_member *member,
				     int64_t deadline);
/* Locked; "ranks 1, 2 and 5 more did not come to WHAT within SECONDS s" fails
 * the job. */
void cfs_rank_job_late(struct cfs_rank_job *job,
		       bool (*came)(const void *arg, uint32_t rank),
		       const void *arg, const char *what, uint32_t seconds);
void cfs_rank_job_hold(struct cfs_rank_job *job);
void cfs_rank_job_release(struct cfs_rank_job *job);

#endif
