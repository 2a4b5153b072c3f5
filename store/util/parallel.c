/* Jobs that are counted, over as many threads as there are processors. */
#include "store/util/parallel.h"

#include <pthread.h>
#include <stdbool.h>
#include <unistd.h>

#include "store/util/error.h"

#define THREADS_MAX 16

struct crew {
	cfs_parallel_fn *fn;
	void *arg;
	uint32_t n;
	pthread_mutex_t lock;
	uint32_t next;	 /* guarded by lock, like all below */
	uint32_t failed; /* lowest index that did, or UINT32_MAX */
	int r;
	struct cfs_error err;
};

static bool crew_take(struct crew *crew, uint32_t *i)
{
	bool more;

	pthread_mutex_lock(&crew->lock);
	more = crew->next < crew->n && crew->failed == UINT32_MAX;
	*i = crew->next;
	crew->next += more;
	pthread_mutex_unlock(&crew->lock);
	return more;
}

static void *crew_work(void *arg)
{
	struct crew *crew = arg;
	uint32_t i;

	while (crew_take(crew, &i)) {
		struct cfs_error err = {""};
		int r = crew->fn(crew->arg, i, &err);

		if (r >= 0)
			continue;
		pthread_mutex_lock(&crew->lock);
		if (i < crew->failed) {
			crew->failed = i;
			crew->r = r;
			crew->err = err;
		}
		pthread_mutex_unlock(&crew->lock);
	}
	return NULL;
}

int cfs_parallel(uint32_t n, cfs_parallel_fn *fn, void *arg,
		 struct cfs_error *err)
{
	struct crew crew = {.fn = fn,
			    .arg = arg,
			    .n = n,
			    .lock = PTHREAD_MUTEX_INITIALIZER,
			    .failed = UINT32_MAX};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t want = CFS_MIN(n, (uint32_t)CFS_MAX(cpus, 1));
	pthread_t threads[THREADS_MAX];
	uint32_t started = 0;

	/* This thread is one of them; fewer than wanted will do. */
	for (want = CFS_MIN(want, THREADS_MAX); started + 1 < want; started++)
		if (pthread_create(&threads[started], NULL, crew_work, &crew))
			break;
	crew_work(&crew);
	for (uint32_t i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	pthread_mutex_destroy(&crew.lock);
	if (crew.failed == UINT32_MAX)
		return 0;
	if (err)
		*err = crew.err;
	return crew.r;
}
