/* A queue, a condition, and threads that wait for it. */
#include "store/util/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sched.h>
#include <stdlib.h>

struct thread {
	struct cfs_workers *workers;
	pthread_t id;
	unsigned number;
};

struct cfs_workers {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct cfs_job *head, **tail; /* guarded by lock */
	unsigned idle;		      /* guarded by lock */
	bool ending;		      /* guarded by lock */
	unsigned started;
	struct thread threads[];
};

/* lock is held */
static struct cfs_job *pop(struct cfs_workers *w)
{
	struct cfs_job *job = w->head;

	if (job) {
		w->head = job->next;
		if (!w->head)
			w->tail = &w->head;
	}
	return job;
}

static struct cfs_job *next_job(struct cfs_workers *w)
{
	struct cfs_job *job;

	pthread_mutex_lock(&w->lock);
	w->idle++;
	while (!w->head && !w->ending)
		pthread_cond_wait(&w->more, &w->lock);
	w->idle--;
	job = pop(w);
	pthread_mutex_unlock(&w->lock);
	return job;
}

struct cfs_job *cfs_workers_take(struct cfs_workers *workers,
				 void (*run)(struct cfs_job *job,
					     unsigned worker))
{
	struct cfs_job *job = NULL;

	pthread_mutex_lock(&workers->lock);
	if (!workers->idle && workers->head && workers->head->run == run)
		job = pop(workers);
	pthread_mutex_unlock(&workers->lock);
	return job;
}

static void *serve(void *arg)
{
	struct thread *t = arg;
	struct cfs_job *job;

	while ((job = next_job(t->workers)))
		job->run(job, t->number);
	return NULL;
}

/* What this process may use, which a container may have made few. */
static unsigned processors(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	return (unsigned)CPU_COUNT(&set);
}

int cfs_workers_new(unsigned threads, struct cfs_workers **workers_out)
{
	_cleanup_(cfs_workers_freep) struct cfs_workers *w = NULL;
	struct thread *t;
	int r;

	if (!threads)
		threads = processors();
	w = calloc(1, sizeof(*w) + threads * sizeof(w->threads[0]));
	if (!w)
		return -ENOMEM;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	w->tail = &w->head;
	while (w->started < threads) {
		t = &w->threads[w->started];
		*t = (struct thread){.workers = w, .number = w->started};
		r = -pthread_create(&t->id, NULL, serve, t);
		if (r < 0)
			return r;
		w->started++;
	}
	*workers_out = cfs_steal(w);
	return 0;
}

void cfs_workers_free(struct cfs_workers *workers)
{
	unsigned i;

	if (!workers)
		return;
	pthread_mutex_lock(&workers->lock);
	workers->ending = true;
	pthread_cond_broadcast(&workers->more);
	pthread_mutex_unlock(&workers->lock);
	for (i = 0; i < workers->started; i++)
		pthread_join(workers->threads[i].id, NULL);
	pthread_cond_destroy(&workers->more);
	pthread_mutex_destroy(&workers->lock);
	free(workers);
}

void cfs_workers_freep(struct cfs_workers **workers)
{
	cfs_workers_free(*workers);
}

unsigned cfs_workers_count(const struct cfs_workers *workers)
{
	return workers->started;
}

void cfs_workers_submit(struct cfs_workers *workers, struct cfs_job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&workers->lock);
	*workers->tail = job;
	workers->tail = &job->next;
	pthread_cond_signal(&workers->more);
	pthread_mutex_unlock(&workers->lock);
}
