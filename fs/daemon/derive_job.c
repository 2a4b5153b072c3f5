/*
 * The pass in the background: when no group was written for a while and one
 * was since the last pass, every step it has not seen is looked at.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "fs/daemon/control.h"
#include "fs/daemon/derive.h"
#include "fs/daemon/nstree.h"
#include "store/core/store.h"
#include "store/ns/ns.h"
#include "store/util/error.h"
#include "store/util/grow.h"
#include "store/util/hash.h"
#include "store/util/log.h"

#define NICE 10

struct cfs_derive_job {
	struct cfs_verb_context context;
	unsigned idle_seconds;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping;	     /* guarded by lock */
	atomic_bool cut_off; /* the same, without it; relaxed */
	/* the thread's: steps it has seen, as they were */
	uint64_t *seen;
	size_t n_seen, cap_seen;
};

static bool go_on(void *arg, uint64_t done, uint64_t total, const char *what)
{
	struct cfs_derive_job *job = arg;

	(void)done;
	(void)total;
	(void)what;
	return !atomic_load_explicit(&job->cut_off, memory_order_relaxed);
}

static int add_to_key(void *arg, const char *path, const struct stat *st)
{
	uint64_t *key = arg;
	const uint64_t what[] = {st->st_ino, (uint64_t)st->st_size,
				 (uint64_t)st->st_mtim.tv_sec,
				 (uint64_t)st->st_mtim.tv_nsec};

	(void)path;
	*key = cfs_hash64(what, sizeof(what), *key);
	return 0;
}

/*
 * Notes it: what fails is tried when it has changed, or by the verb.  A step
 * in which a name came or went, or a file was written, is another one.
 */
static bool was_seen(void *arg, const char *path, const struct stat *st)
{
	struct cfs_derive_job *job = arg;
	uint64_t key = 0;

	if (cfs_nstree_walk(job->context.ns, st->st_ino, path, add_to_key,
			    &key) < 0)
		return true; /* it is going */
	for (size_t i = 0; i < job->n_seen; i++)
		if (job->seen[i] == key)
			return true;
	if (CFS_GROW(job->seen, job->n_seen, job->cap_seen))
		job->seen[job->n_seen++] = key;
	return false;
}

static void pass(struct cfs_derive_job *job)
{
	const struct cfs_verb_reply reply = {.progress = go_on, .arg = job};
	struct cfs_derive_result d;
	struct cfs_error err = {""};
	int r;

	r = cfs_derive_tree(&job->context, "", was_seen, job, &reply, &d, &err);
	if (r < 0 && r != -ECANCELED)
		(void)cfs_log_err(r, "deriving weights: %s", err.text);
	else if (d.derived)
		cfs_log(CFS_LOG_INFO,
			"derived %llu chunks of weights, %llu bytes can go",
			(unsigned long long)d.derived,
			(unsigned long long)d.bytes_saved);
}

/* false: to be ended. */
static bool wait(struct cfs_derive_job *job)
{
	struct timespec until;
	bool stopping;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += job->idle_seconds;
	pthread_mutex_lock(&job->lock);
	while (!job->stopping && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&job->wake, &job->lock, &until);
	stopping = job->stopping;
	pthread_mutex_unlock(&job->lock);
	return !stopping;
}

static void *run(void *arg)
{
	struct cfs_derive_job *job = arg;
	struct cfs_store *store = cfs_ns_store(job->context.ns);
	uint64_t done = UINT64_MAX, last = cfs_store_group(store), now;

	/* of this thread alone, on Linux */
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	while (wait(job)) {
		now = cfs_store_group(store);
		if (now == last && now != done) {
			pass(job);
			done = now = cfs_store_group(store);
		}
		last = now;
	}
	return NULL;
}

int cfs_derive_job_start(const struct cfs_verb_context *context,
			 unsigned idle_seconds, struct cfs_derive_job **job_out)
{
	struct cfs_derive_job *job = calloc(1, sizeof(*job));
	pthread_condattr_t monotonic;
	int r;

	if (!job)
		return -ENOMEM;
	job->context = *context;
	job->idle_seconds = idle_seconds;
	pthread_mutex_init(&job->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&job->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	r = -pthread_create(&job->thread, NULL, run, job);
	if (r < 0) {
		pthread_cond_destroy(&job->wake);
		pthread_mutex_destroy(&job->lock);
		free(job);
		return r;
	}
	*job_out = job;
	return 0;
}

void cfs_derive_job_stop(struct cfs_derive_job *job)
{
	if (!job)
		return;
	atomic_store_explicit(&job->cut_off, true, memory_order_relaxed);
	pthread_mutex_lock(&job->lock);
	job->stopping = true;
	pthread_cond_broadcast(&job->wake);
	pthread_mutex_unlock(&job->lock);
	pthread_join(job->thread, NULL);
	pthread_cond_destroy(&job->wake);
	pthread_mutex_destroy(&job->lock);
	free(job->seen);
	free(job);
}
