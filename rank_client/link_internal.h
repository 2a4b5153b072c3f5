/* What link.c (callers) and link_thread.c (the thread) share. */
#ifndef CFS_RANK_CLIENT_LINK_INTERNAL_H
#define CFS_RANK_CLIENT_LINK_INTERNAL_H

#include <pthread.h>

#include "rank_client/link.h"
#include "store/util/buf.h"
#include "store/util/error.h"

/* Frames to be sent (or, in held, none), once the event is done. */
struct cfs_link_item {
	struct cfs_link_item *next;
	struct cfs_dev_event *event;
	struct cfs_buf frames;
	unsigned n_slots;
	uint32_t slots[]; /* held: free then; out: lent, for when it fails */
};

struct cfs_link_call {
	struct cfs_link_call *next;
	cJSON *answer;
	bool done;    /* answered, or never will be */
	bool dropped; /* the thread frees it */
};

struct cfs_link {
	int fd, wake; /* wake: an eventfd */
	pthread_t thread;
	char *store;

	pthread_mutex_t lock;	/* all below, and the ring's numbers */
	pthread_cond_t changed; /* for callers */
	struct cfs_ring *ring;
	struct cfs_link_item *out, **out_end;
	struct cfs_link_item *held; /* slots being copied to a device */
	struct cfs_link_call *calls, **calls_end;
	unsigned n_events; /* of out: not known to be done */
	uint64_t taken_bytes;
	uint64_t failed_save; /* the last that did, and why */
	int failed;
	struct cfs_error failed_why;
	bool sleeping; /* the thread has to be woken */
	bool unsent;   /* the thread has frames that are not written yet */
	bool stop;
	int dead;	 /* why it died, with the words in why */
	int copy_failed; /* why a copy from a device did */
	struct cfs_error why, copy_why;
};

void *cfs_link_thread(void *link);
/* With the lock. */
void cfs_link_wake(struct cfs_link *link);
void cfs_link_item_free(struct cfs_link_item *item);

#endif
