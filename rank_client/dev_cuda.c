/*
 * Device memory of CUDA.  The only file that sees its headers; the runtime is
 * linked in, and the driver looked for when device memory is first put.
 */
#include <cuda_runtime_api.h>
#include <errno.h>
#include <pthread.h>

#include "rank_client/dev.h"
#include "store/util/error.h"

struct cuda_event {
	struct cfs_dev_event base;
	struct cuda_event *next;
	int device;
	cudaEvent_t event;
};

struct cuda_dev {
	struct cfs_dev base;
	void *ring;
	pthread_mutex_t lock;
	struct cuda_event *spare; /* guarded by lock */
};

static int fail(struct cfs_error *err, cudaError_t e, const char *what)
{
	int r = e == cudaErrorMemoryAllocation ? -ENOMEM
		: e == cudaErrorNoDevice || e == cudaErrorInsufficientDriver ||
				e == cudaErrorSystemDriverMismatch ||
				e == cudaErrorStubLibrary
			? -ENODEV
			: -EIO;

	(void)cudaGetLastError(); /* not to be found by the program */
	return cfs_fail(err, r, "CUDA: %s: %s", what, cudaGetErrorString(e));
}

/* Work of @device is done with it current, and then the program's is again. */
static int enter(int device)
{
	int old = device;

	if (cudaGetDevice(&old) == cudaSuccess && old != device)
		(void)cudaSetDevice(device);
	return old;
}

static void leave(int device, int old)
{
	if (old != device)
		(void)cudaSetDevice(old);
}

static int device_of(const void *data, int *device_out, struct cfs_error *err)
{
	struct cudaPointerAttributes a;
	cudaError_t e = cudaPointerGetAttributes(&a, data);

	if (e != cudaSuccess)
		return fail(err, e, "looking a pointer up");
	if (a.type != cudaMemoryTypeDevice && a.type != cudaMemoryTypeManaged)
		return cfs_fail(err, -EINVAL,
				"%p is no device memory, as was said", data);
	*device_out = a.device;
	return 0;
}

static int cuda_open(void *ring, size_t len, struct cfs_dev **dev_out,
		     struct cfs_error *err)
{
	struct cuda_dev *dev;
	int count = 0;
	cudaError_t e = cudaGetDeviceCount(&count);

	if (e != cudaSuccess)
		return fail(err, e, "looking for devices");
	if (!count)
		return fail(err, cudaErrorNoDevice, "looking for devices");
	e = cudaHostRegister(ring, len, cudaHostRegisterPortable);
	if (e != cudaSuccess)
		return fail(err, e, "pinning the ring");
	dev = calloc(1, sizeof(*dev));
	if (!dev) {
		(void)cudaHostUnregister(ring);
		return -ENOMEM;
	}
	dev->base.ops = &cfs_dev_cuda;
	dev->ring = ring;
	pthread_mutex_init(&dev->lock, NULL);
	*dev_out = &dev->base;
	return 0;
}

static int copy(void *to, const void *from, size_t len, const void *data,
		void *stream, struct cfs_error *err)
{
	cudaError_t e;
	int device, old, r;

	r = device_of(data, &device, err);
	if (r < 0)
		return r;
	old = enter(device); /* which one's the default stream is */
	e = cudaMemcpyAsync(to, from, len, cudaMemcpyDefault,
			    (cudaStream_t)stream);
	leave(device, old);
	return e == cudaSuccess ? 0 : fail(err, e, "copying");
}

static int cuda_to_ring(struct cfs_dev *dev, void *ring, const void *data,
			size_t len, void *stream, struct cfs_error *err)
{
	(void)dev;
	return copy(ring, data, len, data, stream, err);
}

static int cuda_from_ring(struct cfs_dev *dev, void *data, const void *ring,
			  size_t len, void *stream, struct cfs_error *err)
{
	(void)dev;
	return copy(data, ring, len, data, stream, err);
}

static struct cuda_event *take_spare(struct cuda_dev *dev, int device)
{
	struct cuda_event **at, *ev = NULL;

	pthread_mutex_lock(&dev->lock);
	for (at = &dev->spare; *at; at = &(*at)->next) {
		if ((*at)->device == device) {
			ev = *at;
			*at = ev->next;
			break;
		}
	}
	pthread_mutex_unlock(&dev->lock);
	return ev;
}

/* With its device current. */
static int record(struct cuda_dev *dev, int device, void *stream,
		  struct cuda_event **out, struct cfs_error *err)
{
	struct cuda_event *ev = take_spare(dev, device);
	cudaError_t e;

	if (!ev) {
		ev = calloc(1, sizeof(*ev));
		if (!ev)
			return -ENOMEM;
		ev->base.dev = &dev->base;
		ev->device = device;
		e = cudaEventCreateWithFlags(&ev->event,
					     cudaEventDisableTiming |
						     cudaEventBlockingSync);
		if (e != cudaSuccess) {
			free(ev);
			return fail(err, e, "making an event");
		}
	}
	e = cudaEventRecord(ev->event, (cudaStream_t)stream);
	if (e != cudaSuccess) {
		(void)cudaEventDestroy(ev->event);
		free(ev);
		return fail(err, e, "recording an event");
	}
	*out = ev;
	return 0;
}

static int cuda_mark(struct cfs_dev *base, const void *data, void *stream,
		     struct cfs_dev_event **event_out, struct cfs_error *err)
{
	struct cuda_dev *dev = container_of(base, struct cuda_dev, base);
	struct cuda_event *ev = NULL;
	int device, old, r;

	r = device_of(data, &device, err);
	if (r < 0)
		return r;
	old = enter(device);
	r = record(dev, device, stream, &ev, err);
	leave(device, old);
	if (!r)
		*event_out = &ev->base;
	return r;
}

/* Without @wait it is the library's thread that asks, whose current device is
 * its own affair, and must be one that is in use: another would be woken. */
static int cuda_done(struct cfs_dev_event *base, int wait,
		     struct cfs_error *err)
{
	struct cuda_event *ev = container_of(base, struct cuda_event, base);
	cudaError_t e;
	int old;

	if (wait) {
		old = enter(ev->device);
		e = cudaEventSynchronize(ev->event);
		leave(ev->device, old);
	} else {
		e = cudaSetDevice(ev->device);
		if (e == cudaSuccess)
			e = cudaEventQuery(ev->event);
	}
	if (e == cudaErrorNotReady) {
		(void)cudaGetLastError();
		return 0;
	}
	return e == cudaSuccess ? 1 : fail(err, e, "copying");
}

static void cuda_drop(struct cfs_dev_event *base)
{
	struct cuda_dev *dev = container_of(base->dev, struct cuda_dev, base);
	struct cuda_event *ev = container_of(base, struct cuda_event, base);

	pthread_mutex_lock(&dev->lock);
	ev->next = dev->spare;
	dev->spare = ev;
	pthread_mutex_unlock(&dev->lock);
}

static void cuda_close(struct cfs_dev *base)
{
	struct cuda_dev *dev = container_of(base, struct cuda_dev, base);

	while (dev->spare) {
		struct cuda_event *ev = dev->spare;

		dev->spare = ev->next;
		(void)cudaEventDestroy(ev->event);
		free(ev);
	}
	(void)cudaHostUnregister(dev->ring);
	(void)cudaGetLastError();
	pthread_mutex_destroy(&dev->lock);
	free(dev);
}

const struct cfs_dev_ops cfs_dev_cuda = {
	.open = cuda_open,
	.to_ring = cuda_to_ring,
	.from_ring = cuda_from_ring,
	.mark = cuda_mark,
	.done = cuda_done,
	.drop = cuda_drop,
	.close = cuda_close,
};
