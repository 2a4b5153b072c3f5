/* Jobs and their members: job.h. */
#include "fs/rank/job_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "store/util/buf.h"
#include "store/util/wire.h"

#define LOOK_NS	  INT64_C(200000000)
#define NAMED_MAX 8u /* ranks that a message names */
/* Ranks have met before they open: who is late then has failed. */
#define OPEN_S 60u

struct cfs_rank_jobs {
	pthread_mutex_t lock;
	struct cfs_rank_job *list; /* guarded by lock */
	bool stopping;		   /* guarded by lock */
};

struct cfs_rank_jobs *cfs_rank_jobs_new(void)
{
	struct cfs_rank_jobs *jobs = calloc(1, sizeof(*jobs));

	if (jobs)
		pthread_mutex_init(&jobs->lock, NULL);
	return jobs;
}

void cfs_rank_jobs_free(struct cfs_rank_jobs *jobs)
{
	if (!jobs)
		return;
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
}

/* ---- life ---- */

static void job_free(struct cfs_rank_job *job)
{
	pthread_cond_destroy(&job->changed);
	pthread_mutex_destroy(&job->lock);
	free(job->members);
	free(job->groups);
	free(job->run);
	free(job);
}

void cfs_rank_job_hold(struct cfs_rank_job *job)
{
	pthread_mutex_lock(&job->jobs->lock);
	job->refs++;
	pthread_mutex_unlock(&job->jobs->lock);
}

void cfs_rank_job_release(struct cfs_rank_job *job)
{
	struct cfs_rank_jobs *jobs = job->jobs;
	bool last;

	pthread_mutex_lock(&jobs->lock);
	last = --job->refs == 0;
	for (struct cfs_rank_job **p = &jobs->list; last && *p;
	     p = &(*p)->next) {
		if (*p == job) {
			*p = job->next;
			break;
		}
	}
	pthread_mutex_unlock(&jobs->lock);
	if (last)
		job_free(job);
}

static const struct cfs_error unmounted = {
	"the store is being unmounted; mount it again, open it again and save "
	"again"};

/* A reference to one that was not told yet, or NULL. */
static struct cfs_rank_job *next_to_stop(struct cfs_rank_jobs *jobs)
{
	struct cfs_rank_job *job;

	pthread_mutex_lock(&jobs->lock);
	jobs->stopping = true;
	for (job = jobs->list; job && job->told_to_stop; job = job->next)
		;
	if (job) {
		job->told_to_stop = true;
		job->refs++;
	}
	pthread_mutex_unlock(&jobs->lock);
	return job;
}

void cfs_rank_jobs_stop(struct cfs_rank_jobs *jobs)
{
	struct cfs_rank_job *job;

	while ((job = next_to_stop(jobs))) {
		pthread_mutex_lock(&job->lock);
		cfs_rank_job_fail(job, -EPIPE, &unmounted);
		pthread_mutex_unlock(&job->lock);
		cfs_rank_job_release(job);
	}
}

bool cfs_rank_job_stopping(const struct cfs_rank_job *job,
			   struct cfs_error *err)
{
	bool stopping;

	pthread_mutex_lock(&job->jobs->lock);
	stopping = job->jobs->stopping;
	pthread_mutex_unlock(&job->jobs->lock);
	if (stopping)
		*err = unmounted;
	return stopping;
}

static void init_locks(struct cfs_rank_job *job)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&job->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&job->changed, &attr);
	pthread_condattr_destroy(&attr);
}

static int make_token(char token[33])
{
	uint8_t raw[16];

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		return -EAGAIN;
	for (size_t i = 0; i < sizeof(raw); i++)
		snprintf(token + 2 * i, 3, "%02x", raw[i]);
	return 0;
}

static int job_new(struct cfs_rank_jobs *jobs,
		   const struct cfs_verb_context *context,
		   const struct cfs_session *session,
		   const struct cfs_op_hello *hello, struct cfs_rank_job **out)
{
	struct cfs_rank_job *job = calloc(1, sizeof(*job));
	int r;

	if (!job)
		return -ENOMEM;
	init_locks(job);
	job->jobs = jobs;
	job->refs = 1;
	job->context = *context;
	job->n_ranks = hello->n_ranks;
	job->timeout_s = hello->timeout_s ? hello->timeout_s : 1800;
	job->uid = session->uid;
	job->gid = session->gid;
	job->umask = hello->umask;
	job->n_groups = session->n_groups;
	job->members = calloc(job->n_ranks, sizeof(*job->members));
	job->groups = calloc(job->n_groups + 1, sizeof(*job->groups));
	job->run = strdup(hello->run);
	r = job->members && job->groups && job->run ? make_token(job->token)
						    : -ENOMEM;
	if (r < 0) {
		job_free(job);
		return r;
	}
	if (job->n_groups)
		memcpy(job->groups, session->groups,
		       job->n_groups * sizeof(*job->groups));
	pthread_mutex_lock(&jobs->lock);
	job->next = jobs->list;
	jobs->list = job;
	if (jobs->stopping) {
		job->r = -EPIPE;
		job->err = unmounted;
	}
	pthread_mutex_unlock(&jobs->lock);
	*out = job;
	return 0;
}

static struct cfs_rank_job *find(struct cfs_rank_jobs *jobs, const char *token)
{
	struct cfs_rank_job *job;

	pthread_mutex_lock(&jobs->lock);
	for (job = jobs->list; job; job = job->next)
		if (!strcmp(job->token, token))
			break;
	if (job)
		job->refs++;
	pthread_mutex_unlock(&jobs->lock);
	return job;
}

const char *cfs_rank_job_token(const struct cfs_rank_job *job)
{
	return job->token;
}

const char *cfs_rank_job_run(const struct cfs_rank_job *job)
{
	return job->run;
}

/* ---- failing and waiting ---- */

void cfs_rank_job_fail(struct cfs_rank_job *job, int r,
		       const struct cfs_error *why)
{
	if (job->r)
		return;
	job->r = r;
	job->err = *why;
	pthread_cond_broadcast(&job->changed);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t cfs_rank_job_deadline(uint32_t seconds)
{
	return now_ns() + (int64_t)seconds * 1000000000;
}

int cfs_rank_job_wait(struct cfs_rank_member *member, int64_t deadline)
{
	struct cfs_rank_job *job = member->job;
	int64_t until = CFS_MIN(now_ns() + LOOK_NS, deadline);
	struct timespec t = {until / 1000000000, until % 1000000000};

	if (pthread_cond_timedwait(&job->changed, &job->lock, &t) != ETIMEDOUT)
		return 0;
	if (job->r) /* why it failed says more than that a socket was shut */
		return 0;
	if (cfs_wire_gone(member->fd))
		return -EPIPE;
	return now_ns() >= deadline ? -ETIMEDOUT : 0;
}

void cfs_rank_job_late(struct cfs_rank_job *job,
		       bool (*came)(const void *arg, uint32_t rank),
		       const void *arg, const char *what, uint32_t seconds)
{
	_cleanup_(cfs_buf_free) struct cfs_buf names = CFS_BUF_INIT;
	struct cfs_error err;
	uint32_t n = 0;

	for (uint32_t i = 0; i < job->n_ranks; i++)
		if (!came(arg, i) && n++ < NAMED_MAX)
			cfs_buf_printf(&names, "%s%u", n > 1 ? ", " : "", i);
	if (n > NAMED_MAX)
		cfs_buf_printf(&names, " and %u more", n - NAMED_MAX);
	snprintf(err.text, sizeof(err.text),
		 "rank%s %s did not come to %s within %u s", n > 1 ? "s" : "",
		 cfs_buf_str(&names), what, seconds);
	cfs_rank_job_fail(job, -ETIMEDOUT, &err);
}

/* ---- members ---- */

/* Locked. */
static int admit(struct cfs_rank_job *job, const struct cfs_session *session,
		 const struct cfs_op_hello *hello, struct cfs_error *err)
{
	if (job->r) {
		*err = job->err;
		return job->r;
	}
	if (hello->n_ranks != job->n_ranks)
		return cfs_fail(err, -EINVAL,
				"rank %u is one of %u ranks, rank 0 one of %u",
				hello->rank, hello->n_ranks, job->n_ranks);
	if (strcmp(hello->run, job->run) != 0)
		return cfs_fail(err, -EINVAL,
				"rank %u saves to \"%s\", rank 0 to \"%s\"",
				hello->rank, hello->run, job->run);
	if (job->members[hello->rank].came)
		return cfs_fail(err, -EINVAL,
				"pid %d and pid %d both say that they are "
				"rank %u",
				(int)job->members[hello->rank].pid,
				(int)session->pid, hello->rank);
	job->members[hello->rank].came = true;
	job->members[hello->rank].pid = session->pid;
	if (++job->n_here == job->n_ranks) /* all who wait wait for that */
		pthread_cond_broadcast(&job->changed);
	return 0;
}

int cfs_rank_job_join(struct cfs_rank_jobs *jobs,
		      const struct cfs_verb_context *context,
		      const struct cfs_session *session,
		      const struct cfs_op_hello *hello,
		      struct cfs_rank_member *out, struct cfs_error *err)
{
	struct cfs_rank_job *job = NULL;
	int r = 0;

	if (!*hello->job) {
		r = job_new(jobs, context, session, hello, &job);
		if (r < 0)
			return r;
	} else {
		job = find(jobs, hello->job);
		if (!job)
			return cfs_fail(err, -EREMOTE,
					"rank %u: this daemon does not know "
					"rank 0's job: all ranks must be on "
					"one machine and use one store",
					hello->rank);
	}
	if (session->uid != job->uid) {
		cfs_rank_job_release(job);
		return cfs_fail(err, -EPERM,
				"rank %u: the job is another user's",
				hello->rank);
	}
	pthread_mutex_lock(&job->lock);
	r = admit(job, session, hello, err);
	if (r < 0)
		cfs_rank_job_fail(job, r, err);
	pthread_mutex_unlock(&job->lock);
	if (r < 0) {
		cfs_rank_job_release(job);
		return r;
	}
	*out = (struct cfs_rank_member){job, hello->rank, session->fd, NULL};
	return 0;
}

static bool is_here(const void *arg, uint32_t rank)
{
	const struct cfs_rank_job *job = arg;

	return job->members[rank].came;
}

int cfs_rank_job_gather(struct cfs_rank_member *member, struct cfs_error *err)
{
	struct cfs_rank_job *job = member->job;
	uint32_t seconds = CFS_MIN(job->timeout_s, OPEN_S);
	int64_t deadline = cfs_rank_job_deadline(seconds);
	int r = 0;

	pthread_mutex_lock(&job->lock);
	while (!r && job->n_here < job->n_ranks) {
		r = job->r;
		if (!r)
			r = cfs_rank_job_wait(member, deadline);
		if (r == -ETIMEDOUT && !job->r)
			cfs_rank_job_late(job, is_here, job, "open", seconds);
	}
	if (r && job->r) {
		r = job->r;
		*err = job->err;
	}
	pthread_mutex_unlock(&job->lock);
	return r;
}

void cfs_rank_job_leave(struct cfs_rank_member *member)
{
	struct cfs_rank_job *job = member->job;
	struct cfs_error err;

	if (!job)
		return;
	pthread_mutex_lock(&job->lock);
	snprintf(err.text, sizeof(err.text), "rank %u (pid %d) is gone",
		 member->rank, (int)job->members[member->rank].pid);
	cfs_rank_job_fail(job, -EPIPE, &err);
	pthread_mutex_unlock(&job->lock);
	cfs_job_save_drop(member);
	member->job = NULL;
	cfs_rank_job_release(job);
}
