/* A pool of threads that run jobs in the order they were given. */
#ifndef CFS_UTIL_WORKERS_H
#define CFS_UTIL_WORKERS_H

#include "store/util/base.h"

struct cfs_workers;

/*
 * A job embeds this; it is the caller's until run() is entered, which owns it
 * from then on.  @worker (0 … threads - 1) picks what a thread keeps for
 * itself.
 */
struct cfs_job {
	void (*run)(struct cfs_job *job, unsigned worker);
	struct cfs_job *next; /* private */
};

/* @threads 0: one per processor.  -ENOMEM, -EAGAIN. */
CFS_MUST_CHECK int cfs_workers_new(unsigned threads,
				   struct cfs_workers **workers_out);
/* Runs what is queued, then ends the threads. */
void cfs_workers_free(struct cfs_workers *workers);
void cfs_workers_freep(struct cfs_workers **workers);
unsigned cfs_workers_count(const struct cfs_workers *workers);
/* Never blocks and never fails; any thread, jobs included. */
void cfs_workers_submit(struct cfs_workers *workers, struct cfs_job *job);
/*
 * For a job that is done better together with another of its kind: the one
 * that is next, if its run() is @run and no thread is free to do it; from then
 * on it is the caller's.  Else NULL.
 */
struct cfs_job *cfs_workers_take(struct cfs_workers *workers,
				 void (*run)(struct cfs_job *job,
					     unsigned worker));

#endif
