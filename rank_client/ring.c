#include "rank_client/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "store/util/error.h"

#define RING_DEFAULT (256u << 20)
#define RING_MAX     (64ull << 30) /* the daemon takes no more */
#define SLOT_MAX     (1u << 20)
#define SLOT_MIN     (64u << 10)
#define SLOTS_MIN    8 /* fewer, and the two sides wait for each other */

static void choose_slots(struct cfs_ring *ring, uint64_t bytes)
{
	ring->slot_bytes = SLOT_MAX;
	while (bytes / ring->slot_bytes < SLOTS_MIN &&
	       ring->slot_bytes > SLOT_MIN)
		ring->slot_bytes /= 2;
	ring->slots = (uint32_t)CFS_MAX(bytes / ring->slot_bytes,
					(uint64_t)SLOTS_MIN);
}

/* Every page now: the first save is not to wait for the kernel to zero them. */
static int populate(struct cfs_ring *ring)
{
	size_t len = cfs_ring_bytes(ring), at;

	(void)madvise(ring->data, len, MADV_HUGEPAGE);
#ifdef MADV_POPULATE_WRITE
	if (!madvise(ring->data, len, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -errno;
#endif
	for (at = 0; at < len; at += 4096)
		((volatile uint8_t *)ring->data)[at] = 0;
	return 0;
}

static int make_memory(struct cfs_ring *ring)
{
	size_t len = cfs_ring_bytes(ring);
	void *data;

	ring->fd = memfd_create("ckptfs-rank", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ring->fd < 0 || ftruncate(ring->fd, (off_t)len) < 0 ||
	    fcntl(ring->fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	ring->data = data;
	return populate(ring);
}

int cfs_ring_init(struct cfs_ring *ring, uint64_t bytes, struct cfs_error *err)
{
	uint32_t i;
	int r;

	*ring = (struct cfs_ring){.fd = -1};
	if (bytes > RING_MAX)
		return cfs_fail(err, -EINVAL,
				"ring_bytes %llu: a ring has 64 GiB at most",
				(unsigned long long)bytes);
	choose_slots(ring, bytes ? bytes : RING_DEFAULT);
	ring->free = calloc(ring->slots, sizeof(*ring->free));
	ring->lent = calloc(ring->slots, sizeof(*ring->lent));
	r = ring->free && ring->lent ? make_memory(ring) : -ENOMEM;
	if (r < 0) {
		size_t len = cfs_ring_bytes(ring);

		cfs_ring_fini(ring);
		return cfs_fail(err, r, "%zu MiB of shared memory: %s",
				len >> 20, strerror(-r));
	}
	for (i = 0; i < ring->slots; i++)
		ring->free[i] = ring->slots - 1 - i;
	ring->n_free = ring->slots;
	return 0;
}

void cfs_ring_fini(struct cfs_ring *ring)
{
	if (ring->data)
		(void)munmap(ring->data, cfs_ring_bytes(ring));
	cfs_closep(&ring->fd);
	free(ring->free);
	free(ring->lent);
	*ring = (struct cfs_ring){.fd = -1};
}

size_t cfs_ring_bytes(const struct cfs_ring *ring)
{
	return (size_t)ring->slots * ring->slot_bytes;
}

uint8_t *cfs_ring_slot(const struct cfs_ring *ring, uint32_t slot)
{
	return ring->data + (size_t)slot * ring->slot_bytes;
}

bool cfs_ring_take(struct cfs_ring *ring, uint32_t *slot_out)
{
	if (!ring->n_free)
		return false;
	*slot_out = ring->free[--ring->n_free];
	return true;
}

void cfs_ring_give(struct cfs_ring *ring, uint32_t slot)
{
	ring->free[ring->n_free++] = slot;
}
