/*
 * A rank's connection to the daemon, and the slots of the ring with it.
 *
 *   callers ─▶ out: batches of frames ─▶ thread ─▶ socket ─▶ daemon
 *   callers ◀─ calls (answers in order), free slots ◀─ thread ◀─ socket
 *
 * A batch may have to wait until what it tells of has been copied from a
 * device: its event.  Batches go out in order.  Any thread may call.
 */
#ifndef CFS_RANK_CLIENT_LINK_H
#define CFS_RANK_CLIENT_LINK_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_dev_event;
struct cfs_error;
struct cfs_link;
struct cfs_link_call;
struct cfs_ring;

/* @fd becomes the link's; @ring is borrowed; @store names the other side in
 * messages. */
CFS_MUST_CHECK int cfs_link_new(int fd, struct cfs_ring *ring,
				const char *store, struct cfs_link **out);
/* Sends what is ready (for 5 s at most), closes, waits for device copies. */
void cfs_link_free(struct cfs_link *link);
/* In a child that was forked: closes the descriptors, touches nothing else. */
void cfs_link_forked(struct cfs_link *link);

/* 0, or what the link died of. */
CFS_MUST_CHECK int cfs_link_check(struct cfs_link *link, struct cfs_error *err);

/*
 * Queues @frames (emptied) once @event (NULL: at once; the link's afterwards)
 * is done.  @slots: the @n slots that they lend, @lens bytes of each.
 * @call_out: not NULL when the last of @frames is answered.  After an error
 * the slots are free again and @event is dropped.
 */
CFS_MUST_CHECK int cfs_link_send(struct cfs_link *link, struct cfs_buf *frames,
				 const uint32_t *slots, const uint32_t *lens,
				 unsigned n, struct cfs_dev_event *event,
				 struct cfs_link_call **call_out,
				 struct cfs_error *err);

/* Waits up to @ms for the answer: true when cfs_link_end() will not block. */
bool cfs_link_wait(struct cfs_link *link, struct cfs_link_call *call,
		   unsigned ms);
/* Blocks; frees @call.  What the daemon said: its "r" with the text in @err,
 * or 0 and the answer (@json_out may be NULL). */
CFS_MUST_CHECK int cfs_link_end(struct cfs_link *link,
				struct cfs_link_call *call, cJSON **json_out,
				struct cfs_error *err);
/* Nobody wants the answer. */
void cfs_link_drop(struct cfs_link *link, struct cfs_link_call *call);

/* A free slot: 1; 0, none within @ms; or what the link died of. */
CFS_MUST_CHECK int cfs_link_take(struct cfs_link *link, unsigned ms,
				 uint32_t *slot_out, struct cfs_error *err);
/* Slots are free once @event (as above) is done. */
void cfs_link_give(struct cfs_link *link, const uint32_t *slots, unsigned n,
		   struct cfs_dev_event *event);

/* Waits up to @ms until nothing has an event that is not done: 1, 0 not yet,
 * or why a copy failed. */
CFS_MUST_CHECK int cfs_link_copied(struct cfs_link *link, unsigned ms,
				   struct cfs_error *err);
/* Has the daemon said that save number @save failed?  0, or why. */
CFS_MUST_CHECK int cfs_link_failed(struct cfs_link *link, uint64_t save,
				   struct cfs_error *err);
/* Bytes that the daemon has taken from slots so far. */
uint64_t cfs_link_taken(struct cfs_link *link);

#endif
