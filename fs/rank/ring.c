/* A rank's memfd, mapped: ring.h. */
#include "fs/rank/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "store/util/error.h"

/* A page that is not there when it is touched is SIGBUS, so the file may not
 * shrink; and huge pages, once given back through a hole, may be had by others.
 */
static int check_kind(int fd, struct cfs_error *err)
{
	const int wanted = F_SEAL_SHRINK | F_SEAL_GROW;
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;

	if (seals < 0 || fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
		return cfs_fail(err, -EINVAL,
				"the ring is no memfd of ordinary pages");
	if ((seals & wanted) != wanted)
		return cfs_fail(err, -EINVAL,
				"the ring is not sealed against shrinking and "
				"growing");
	return 0;
}

static int check_size(int fd, uint64_t n_slots, uint64_t slot_bytes,
		      struct cfs_error *err)
{
	struct stat st;

	if (slot_bytes < CFS_RING_SLOT_MIN || slot_bytes > CFS_RING_SLOT_MAX ||
	    slot_bytes & (slot_bytes - 1))
		return cfs_fail(err, -EINVAL,
				"slots of %llu bytes: it must be a power of "
				"two from 64 KiB to 16 MiB",
				(unsigned long long)slot_bytes);
	if (!n_slots || n_slots > CFS_RING_BYTES_MAX / slot_bytes)
		return cfs_fail(err, -EINVAL,
				"%llu slots: a ring has 1 slot to 64 GiB",
				(unsigned long long)n_slots);
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != n_slots * slot_bytes)
		return cfs_fail(err, -EINVAL,
				"the ring has %llu bytes, not %llu slots of "
				"%llu",
				(unsigned long long)st.st_size,
				(unsigned long long)n_slots,
				(unsigned long long)slot_bytes);
	return 0;
}

int cfs_ring_map(struct cfs_ring *ring, int fd, uint64_t n_slots,
		 uint64_t slot_bytes, struct cfs_error *err)
{
	void *base;
	int r;

	if (fd < 0)
		return cfs_fail(err, -EINVAL, "no ring came along");
	r = check_kind(fd, err);
	if (!r)
		r = check_size(fd, n_slots, slot_bytes, err);
	if (r < 0)
		return r;
	base = mmap(NULL, n_slots * slot_bytes, PROT_READ | PROT_WRITE,
		    MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return cfs_fail_prefix(err, -errno, "mapping the ring");
	*ring = (struct cfs_ring){base, slot_bytes, n_slots};
	return 0;
}

void cfs_ring_unmap(struct cfs_ring *ring)
{
	if (ring->base)
		(void)munmap(ring->base, ring->n_slots * ring->slot_bytes);
	*ring = (struct cfs_ring){NULL, 0, 0};
}

void *cfs_ring_slot(const struct cfs_ring *ring, uint64_t slot, uint64_t len)
{
	if (slot >= ring->n_slots || len > ring->slot_bytes)
		return NULL;
	return ring->base + slot * ring->slot_bytes;
}
