/*
 * The memory that a rank shares with the daemon, cut into slots.
 *
 * A slot is free, or being filled or emptied here, or the daemon's.  Only
 * memory and numbers: the link has the lock.
 */
#ifndef CFS_RANK_CLIENT_RING_H
#define CFS_RANK_CLIENT_RING_H

#include <stdbool.h>

#include "store/util/base.h"

struct cfs_error;

struct cfs_ring {
	int fd;
	uint8_t *data;
	uint32_t slots, slot_bytes;
	uint32_t n_free;
	uint32_t *free; /* a stack: what was used last is warm */
	uint32_t *
		lent; /* bytes of it that the daemon has; 0: not the daemon's */
};

/* @bytes: 0 is 256 MiB. */
CFS_MUST_CHECK int cfs_ring_init(struct cfs_ring *ring, uint64_t bytes,
				 struct cfs_error *err);
void cfs_ring_fini(struct cfs_ring *ring);

size_t cfs_ring_bytes(const struct cfs_ring *ring);
uint8_t *cfs_ring_slot(const struct cfs_ring *ring, uint32_t slot);
/* false: none is free */
bool cfs_ring_take(struct cfs_ring *ring, uint32_t *slot_out);
void cfs_ring_give(struct cfs_ring *ring, uint32_t slot);

#endif
