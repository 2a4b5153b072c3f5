/*
 * The shared memory of one rank: slots of equal size in a memfd that the rank
 * made.  Whatever is in it may change at any moment; that it stays mapped is
 * what is checked here.
 */
#ifndef CFS_RANK_RING_H
#define CFS_RANK_RING_H

#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

#define CFS_RING_SLOT_MIN  ((uint64_t)64 << 10)
#define CFS_RING_SLOT_MAX  ((uint64_t)16 << 20)
#define CFS_RING_BYTES_MAX ((uint64_t)64 << 30)

struct cfs_error;

struct cfs_ring {
	uint8_t *base;
	uint64_t slot_bytes, n_slots;
};

/* Maps @fd (stays the caller's): -EINVAL where it is not of that size, or
 * could be cut while it is read. */
CFS_MUST_CHECK int cfs_ring_map(struct cfs_ring *ring, int fd, uint64_t n_slots,
				uint64_t slot_bytes, struct cfs_error *err);
void cfs_ring_unmap(struct cfs_ring *ring); /* _cleanup_; of zeros: nothing */
/* @len bytes of slot @slot, or NULL: there are none. */
void *cfs_ring_slot(const struct cfs_ring *ring, uint64_t slot, uint64_t len);

#endif
