/*
 * One save of a job: all begin it, all commit it, or it fails for all.
 *
 *   GATHERING ─▶ WORKING ─▶ OPEN ─▶ WORKING ─▶ DONE
 *                   └────────┴─────────┴─────▶ FAILED
 *
 * The first text is kept: whatever fails afterwards is a consequence.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/rank/agree.h"
#include "fs/rank/job_internal.h"
#include "fs/rank/stage.h"

enum state {
	GATHERING,
	WORKING, /* one rank opens or commits it, unlocked */
	OPEN,
	DONE,
	FAILED,
};

struct cfs_job_save {
	struct cfs_rank_job *job; /* a reference */
	struct cfs_stage *stage;
	/* guarded by the job's lock */
	unsigned refs;
	enum state state;
	int r; /* FAILED; while GATHERING, what will fail */
	struct cfs_error err;
	uint32_t first, n_came;
	bool *came; /* to begin, then to commit */
	/* as the first to begin said */
	struct cfs_stage_options options;
	char *step, *format, *pointer;
};

/* ---- life ---- */

static void save_free(struct cfs_job_save *save)
{
	struct cfs_rank_job *job = save->job;

	cfs_stage_free(save->stage);
	free(save->step);
	free(save->format);
	free(save->pointer);
	free(save->came);
	free(save);
	cfs_rank_job_release(job);
}

static struct cfs_job_save *save_new(struct cfs_rank_member *member,
				     const struct cfs_op *op)
{
	struct cfs_rank_job *job = member->job;
	struct cfs_job_save *save = calloc(1, sizeof(*save));

	if (!save)
		return NULL;
	cfs_rank_job_hold(job);
	save->job = job;
	save->first = member->rank;
	save->step = strdup(op->step ? op->step : "");
	save->format = strdup(op->format ? op->format : "");
	save->pointer = op->pointer ? strdup(op->pointer) : NULL;
	save->came = calloc(job->n_ranks, sizeof(*save->came));
	if (!save->step || !save->format || !save->came ||
	    (op->pointer && !save->pointer)) {
		save_free(save);
		return NULL;
	}
	save->options = (struct cfs_stage_options){
		.run = job->run,
		.step = save->step,
		.format = save->format,
		.pointer = save->pointer,
		.dp = op->dp,
		.tp = op->tp,
		.pp = op->pp,
		.zero_stage = op->zero_stage,
		.replace = op->replace,
		.n_ranks = job->n_ranks,
		.uid = job->uid,
		.gid = job->gid,
		.groups = job->groups,
		.n_groups = job->n_groups,
		.umask = job->umask,
	};
	return save;
}

void cfs_job_save_drop(struct cfs_rank_member *member)
{
	struct cfs_job_save *save = cfs_steal(member->save);
	struct cfs_rank_job *job = member->job;
	bool last;

	if (!save)
		return;
	pthread_mutex_lock(&job->lock);
	last = --save->refs == 0;
	if (last && job->gathering == save)
		job->gathering = NULL;
	pthread_mutex_unlock(&job->lock);
	if (last)
		save_free(save);
}

/* ---- failing ---- */

/* Locked.  What has been decided stays. */
static void fail(struct cfs_job_save *save, int r, const struct cfs_error *why)
{
	if (save->state == DONE || save->state == FAILED)
		return;
	save->state = FAILED;
	/* where a rank left, that is why */
	save->r = save->job->r ? save->job->r : r;
	save->err = save->job->r ? save->job->err : *why;
	pthread_cond_broadcast(&save->job->changed);
}

static void fail_open(struct cfs_rank_member *member, int r,
		      const struct cfs_error *why)
{
	pthread_mutex_lock(&member->job->lock);
	if (member->save->state == OPEN)
		fail(member->save, r, why);
	pthread_mutex_unlock(&member->job->lock);
}

void cfs_job_save_fail(struct cfs_rank_member *member, int r, const char *text)
{
	struct cfs_error err;

	snprintf(err.text, sizeof(err.text), "rank %u: %.600s", member->rank,
		 text && *text ? text : strerror(-r));
	fail_open(member, r, &err);
}

void cfs_job_save_abort(struct cfs_rank_member *member, const char *reason)
{
	struct cfs_error err;

	snprintf(err.text, sizeof(err.text), "rank %u aborted%s%.600s",
		 member->rank, reason && *reason ? ": " : "",
		 reason ? reason : "");
	fail_open(member, -ECANCELED, &err);
}

struct cfs_stage *cfs_job_save_stage(const struct cfs_rank_member *member)
{
	return member->save->stage;
}

/* ---- meeting ---- */

static bool has_come(const void *arg, uint32_t rank)
{
	return ((const bool *)arg)[rank];
}

/* Locked.  This rank comes; true: it is the last, and has the work. */
static bool come(struct cfs_job_save *save, uint32_t rank)
{
	save->came[rank] = true;
	if (++save->n_came < save->job->n_ranks)
		return false;
	save->n_came = 0;
	memset(save->came, 0, save->job->n_ranks * sizeof(*save->came));
	save->state = WORKING;
	return true;
}

/* Locked.  Until somebody has changed what is @state. */
static int await(struct cfs_rank_member *member, enum state state,
		 const char *what)
{
	struct cfs_job_save *save = member->save;
	struct cfs_rank_job *job = member->job;
	int64_t deadline = cfs_rank_job_deadline(job->timeout_s);
	int r = 0;

	while (!r && (save->state == state || save->state == WORKING)) {
		if (save->state == state && job->r)
			fail(save, job->r, &job->err);
		else
			r = cfs_rank_job_wait(member, deadline);
		if (r != -ETIMEDOUT)
			continue;
		r = 0; /* as long as it takes, once all have come */
		if (save->state == state && !job->r)
			cfs_rank_job_late(job, has_come, save->came, what,
					  job->timeout_s);
		else
			deadline = cfs_rank_job_deadline(job->timeout_s);
	}
	return r;
}

/* Locked.  Its end, as all ranks get it. */
static int result(const struct cfs_job_save *save, struct cfs_error *err)
{
	if (save->state != FAILED)
		return 0;
	*err = save->err;
	return save->r;
}

int cfs_job_save_check(const struct cfs_rank_member *member,
		       struct cfs_error *err)
{
	struct cfs_job_save *save = member->save;
	struct cfs_rank_job *job = member->job;
	int r;

	pthread_mutex_lock(&job->lock);
	if (save->state == OPEN && job->r)
		fail(save, job->r, &job->err);
	r = result(save, err);
	pthread_mutex_unlock(&job->lock);
	return r;
}

/* ---- begin ---- */

/* Locked.  The member joins the save that is being begun, or is the first. */
static int enter(struct cfs_rank_member *member, const struct cfs_op *op,
		 int refused, struct cfs_error *err)
{
	struct cfs_rank_job *job = member->job;
	struct cfs_job_save *save;
	int r = refused;

	if (job->r) {
		*err = job->err;
		return job->r;
	}
	if (!job->gathering)
		job->gathering = save_new(member, op);
	save = job->gathering;
	if (!save)
		return -ENOMEM;
	save->refs++;
	member->save = save;
	if (refused)
		(void)cfs_fail_prefix(err, refused, "rank %u", member->rank);
	else if (!save->r && save->first != member->rank)
		r = cfs_rank_agree(&save->options, save->first, op,
				   member->rank, err);
	if (r < 0 && !save->r) {
		save->r = r;
		save->err = *err;
	}
	return 0;
}

/* By the last to come. */
static void open_stage(struct cfs_job_save *save)
{
	struct cfs_rank_job *job = save->job;
	struct cfs_error err = save->err;
	int r = save->r;

	pthread_mutex_unlock(&job->lock);
	if (!r)
		r = cfs_stage_new(&job->context, &save->options, &save->stage,
				  &err);
	if (r < 0 && !err.text[0])
		(void)cfs_fail_prefix(&err, r, "%s", save->step);
	pthread_mutex_lock(&job->lock);
	if (r < 0 || job->r)
		fail(save, r, &err);
	else
		save->state = OPEN;
	pthread_cond_broadcast(&job->changed);
}

int cfs_job_save_begin(struct cfs_rank_member *member, const struct cfs_op *op,
		       int refused, struct cfs_error *err)
{
	struct cfs_rank_job *job = member->job;
	int r;

	pthread_mutex_lock(&job->lock);
	r = enter(member, op, refused, err);
	if (!r && come(member->save, member->rank)) {
		job->gathering = NULL;
		open_stage(member->save);
	} else if (!r) {
		r = await(member, GATHERING, "begin");
	}
	if (!r)
		r = result(member->save, err);
	pthread_mutex_unlock(&job->lock);
	if (r < 0)
		cfs_job_save_drop(member);
	return r;
}

/* ---- commit ---- */

/* By the last to come; a rank that leaves now comes too late to matter. */
static void commit_stage(struct cfs_job_save *save)
{
	struct cfs_rank_job *job = save->job;
	struct cfs_error err = {""};
	int r;

	pthread_mutex_unlock(&job->lock);
	r = cfs_stage_commit(save->stage, &err);
	if (r < 0 && !err.text[0])
		(void)cfs_fail_prefix(&err, r, "committing %s", save->step);
	pthread_mutex_lock(&job->lock);
	save->state = r < 0 ? FAILED : DONE;
	save->r = r;
	save->err = err;
	pthread_cond_broadcast(&job->changed);
}

int cfs_job_save_commit(struct cfs_rank_member *member, struct cfs_error *err)
{
	struct cfs_job_save *save = member->save;
	struct cfs_rank_job *job = member->job;
	int r = 0;

	pthread_mutex_lock(&job->lock);
	if (save->state == OPEN && job->r)
		fail(save, job->r, &job->err);
	if (save->state == OPEN && come(save, member->rank))
		commit_stage(save);
	else
		r = await(member, OPEN, "commit");
	if (!r)
		r = result(save, err);
	pthread_mutex_unlock(&job->lock);
	cfs_job_save_drop(member);
	return r;
}
