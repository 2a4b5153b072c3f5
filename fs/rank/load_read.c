/*
 * Bytes of a handle into slots of the ring, several slots at once: decoding is
 * what takes time.  They are made in memory of our own and copied out whole, so
 * that what is computed never lies where the rank could change it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "fs/rank/load.h"
#include "store/map/eval.h"
#include "store/map/source.h"
#include "store/util/checked.h"
#include "store/util/workers.h"

#define HELPERS_MAX 16u

struct reading {
	struct cfs_conn *conn;
	const struct cfs_load_handle *handle;
	const struct cfs_op *op;
	/* relaxed: what they order is ordered by the lock */
	atomic_uint next; /* slot of the list */
	atomic_int r;	  /* the first error */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned n_running; /* guarded by lock */
};

struct helper {
	struct cfs_job job;
	struct reading *reading;
};

static ssize_t read_some(const struct cfs_load_handle *handle, uint8_t *buf,
			 size_t len, uint64_t off)
{
	if (handle->reader)
		return cfs_reader_pread(handle->reader, buf, len, off);
	return handle->file->ops->pread(handle->file, buf, len, off);
}

static int read_all(const struct cfs_load_handle *handle, uint8_t *buf,
		    size_t len, uint64_t off)
{
	while (len) {
		ssize_t n = read_some(handle, buf, len, off);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		buf += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

static int fill_slot(const struct reading *in, uint32_t i, uint8_t *buf)
{
	const struct cfs_ring *ring = &in->conn->ring;
	uint64_t done = i * ring->slot_bytes;
	size_t len = (size_t)CFS_MIN(ring->slot_bytes, in->op->len - done);
	int r = read_all(in->handle, buf, len, in->op->off + done);

	if (!r)
		memcpy(cfs_ring_slot(ring, in->op->slots[i], len), buf, len);
	return r;
}

static void fill_slots(struct reading *in)
{
	size_t most = (size_t)CFS_MIN(in->conn->ring.slot_bytes, in->op->len);
	_cleanup_(cfs_freep) uint8_t *buf = malloc(most);
	int r = buf ? 0 : -ENOMEM;

	while (!r && !atomic_load_explicit(&in->r, memory_order_relaxed)) {
		unsigned i = atomic_fetch_add_explicit(&in->next, 1,
						       memory_order_relaxed);

		if (i >= in->op->n_slots)
			return;
		r = fill_slot(in, i, buf);
	}
	if (r < 0) {
		int none = 0;

		(void)atomic_compare_exchange_strong(&in->r, &none, r);
	}
}

static void help(struct cfs_job *job, unsigned worker)
{
	struct reading *in = container_of(job, struct helper, job)->reading;

	(void)worker;
	fill_slots(in);
	pthread_mutex_lock(&in->lock);
	if (!--in->n_running)
		pthread_cond_signal(&in->changed);
	pthread_mutex_unlock(&in->lock);
}

static int check(const struct cfs_conn *conn,
		 const struct cfs_load_handle *handle, const struct cfs_op *op,
		 struct cfs_error *err)
{
	if (!cfs_range_ok(op->off, op->len, handle->size))
		return cfs_fail(err, -EINVAL,
				"%llu bytes at %llu: there are %llu",
				(unsigned long long)op->len,
				(unsigned long long)op->off,
				(unsigned long long)handle->size);
	if (op->n_slots != cfs_div_up(op->len, conn->ring.slot_bytes))
		return cfs_fail(err, -EINVAL, "%llu bytes do not fill %u slots",
				(unsigned long long)op->len, op->n_slots);
	for (uint32_t i = 0; i < op->n_slots; i++)
		if (op->slots[i] >= conn->ring.n_slots)
			return cfs_fail(err, -EINVAL,
					"slot %u: the ring has %llu",
					op->slots[i],
					(unsigned long long)conn->ring.n_slots);
	return 0;
}

int cfs_load_read(struct cfs_conn *conn, const struct cfs_load_handle *handle,
		  const struct cfs_op *op, struct cfs_error *err)
{
	struct reading in = {.conn = conn,
			     .handle = handle,
			     .op = op,
			     .lock = PTHREAD_MUTEX_INITIALIZER,
			     .changed = PTHREAD_COND_INITIALIZER};
	struct helper helpers[HELPERS_MAX];
	unsigned n = 0;
	int r = check(conn, handle, op, err);

	if (r < 0 || !op->n_slots)
		return r;
	/* this thread is one of them */
	n = CFS_MIN(CFS_MIN(op->n_slots, cfs_workers_count(conn->workers)) - 1,
		    HELPERS_MAX);
	in.n_running = n;
	for (unsigned i = 0; i < n; i++) {
		helpers[i] = (struct helper){.job.run = help, .reading = &in};
		cfs_workers_submit(conn->workers, &helpers[i].job);
	}
	fill_slots(&in);
	pthread_mutex_lock(&in.lock);
	while (in.n_running)
		pthread_cond_wait(&in.changed, &in.lock);
	pthread_mutex_unlock(&in.lock);
	pthread_cond_destroy(&in.changed);
	pthread_mutex_destroy(&in.lock);
	return atomic_load(&in.r);
}
