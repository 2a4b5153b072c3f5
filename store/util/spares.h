/*
 * Things that are dear to make and wanted for moments, kept for the next one
 * who wants such a thing.  What was put back last is taken first: it is still
 * in the processor's cache, where one thing a thread would be in none.
 */
#ifndef CFS_UTIL_SPARES_H
#define CFS_UTIL_SPARES_H

#include <pthread.h>

#include "store/util/base.h"

/* Static: never freed, there are as many things as were used at once. */
struct cfs_spares {
	pthread_mutex_t lock;
	void *top;
};

#define CFS_SPARES_INIT                                                        \
	{                                                                      \
		.lock = PTHREAD_MUTEX_INITIALIZER                              \
	}

/* NULL: there is none, make one. */
CFS_MUST_CHECK void *cfs_spares_take(struct cfs_spares *spares);
/* @thing is of at least a pointer's size; its beginning is written to. */
void cfs_spares_put(struct cfs_spares *spares, void *thing);

#endif
