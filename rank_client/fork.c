/*
 * A child that was forked has none of the parent's sessions: it closes their
 * sockets at once, so that the daemon sees the parent's end when it comes.
 */
#include <pthread.h>

#include "rank_client/rank_internal.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cfs_rank *all; /* guarded by lock */

static void prepare(void)
{
	pthread_mutex_lock(&lock);
}

static void parent(void)
{
	pthread_mutex_unlock(&lock);
}

static void child(void)
{
	struct cfs_rank *rank;

	for (rank = all; rank; rank = rank->next) {
		rank->forked = true;
		cfs_link_forked(rank->link);
	}
	all = NULL;
	pthread_mutex_unlock(&lock);
}

static void watch(void)
{
	(void)pthread_atfork(prepare, parent, child);
}

void cfs_rank_fork_add(struct cfs_rank *rank)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch);
	pthread_mutex_lock(&lock);
	rank->next = all;
	all = rank;
	pthread_mutex_unlock(&lock);
}

void cfs_rank_fork_remove(struct cfs_rank *rank)
{
	struct cfs_rank **at;

	pthread_mutex_lock(&lock);
	for (at = &all; *at; at = &(*at)->next) {
		if (*at == rank) {
			*at = rank->next;
			break;
		}
	}
	pthread_mutex_unlock(&lock);
}
