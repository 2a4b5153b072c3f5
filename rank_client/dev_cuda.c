/*
 * Device memory of CUDA.  The only file that sees its headers; the runtime is
 * linked in, and the driver looked for when device memory is first put.
 *
 * A graph that the program captures is not to notice any of this: calls are
 * made in the relaxed mode of capturing, and copies on a stream that captures
 * are refused, as they would happen at each replay and not now.
 */
#include <cuda_runtime_api.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

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
	size_t ring_len;
	bool pinned;
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
		: e == cudaErrorStreamCaptureImplicit ||
				e == cudaErrorStreamCaptureUnsupported
			? -EINVAL
			: -EIO;

	(void)cudaGetLastError(); /* not to be found by the program */
	return cfs_fail(err, r, "CUDA: %s: %s", what, cudaGetErrorString(e));
}

/* What is the program's, while work of @device is done. */
struct before {
	int device, old;
	enum cudaStreamCaptureMode mode;
};

static struct before enter(int device)
{
	struct before b = {device, device, cudaStreamCaptureModeRelaxed};

	(void)cudaThreadExchangeStreamCaptureMode(&b.mode);
	if (cudaGetDevice(&b.old) == cudaSuccess && b.old != device)
		(void)cudaSetDevice(device);
	return b;
}

static void leave(struct before *b)
{
	if (b->old != b->device)
		(void)cudaSetDevice(b->old);
	(void)cudaThreadExchangeStreamCaptureMode(&b->mode);
}

/* The handles that mean one stream of each device. */
static bool is_default(void *stream)
{
	return !stream || stream == (void *)cudaStreamLegacy ||
	       stream == (void *)cudaStreamPerThread;
}

/* Managed memory is of no device: its copies are the stream's. */
static int device_of_stream(void *stream, int *device_out,
			    struct cfs_error *err)
{
	cudaError_t e;

#if CUDART_VERSION >= 12080
	if (!is_default(stream)) {
		e = cudaStreamGetDevice((cudaStream_t)stream, device_out);
		return e == cudaSuccess ? 0 : fail(err, e, "using a stream");
	}
#else
	(void)stream;
#endif
	e = cudaGetDevice(device_out);
	return e == cudaSuccess ? 0 : fail(err, e, "looking for a device");
}

/* With the stream's device current. */
static int check_stream(void *stream, struct cfs_error *err)
{
	enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
	cudaError_t e = cudaStreamIsCapturing((cudaStream_t)stream, &status);

	if (e != cudaSuccess && e != cudaErrorStreamCaptureImplicit)
		return fail(err, e, "using a stream");
	if (e == cudaSuccess && status == cudaStreamCaptureStatusNone)
		return 0;
	(void)cudaGetLastError();
	return cfs_fail(err, -EINVAL,
			"the stream is being captured into a graph: save and "
			"load outside of that");
}

static int device_of(const void *data, void *stream, int *device_out,
		     struct cfs_error *err)
{
	struct cudaPointerAttributes a;
	cudaError_t e = cudaPointerGetAttributes(&a, data);

	if (e != cudaSuccess)
		return fail(err, e, "looking a pointer up");
	if (a.type != cudaMemoryTypeDevice && a.type != cudaMemoryTypeManaged)
		return cfs_fail(err, -EINVAL,
				"%p is no device memory, as was said", data);
	if (a.type == cudaMemoryTypeManaged)
		return device_of_stream(stream, device_out, err);
	*device_out = a.device;
	return 0;
}

/* Not before it is known which device is in use: pinning wakes the current
 * one. */
static int pin(struct cuda_dev *dev, struct cfs_error *err)
{
	cudaError_t e;

	if (dev->pinned)
		return 0;
	e = cudaHostRegister(dev->ring, dev->ring_len,
			     cudaHostRegisterPortable);
	if (e != cudaSuccess)
		return fail(err, e, "pinning the ring");
	dev->pinned = true;
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
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->base.ops = &cfs_dev_cuda;
	dev->ring = ring;
	dev->ring_len = len;
	pthread_mutex_init(&dev->lock, NULL);
	*dev_out = &dev->base;
	return 0;
}

static int copy(struct cfs_dev *base, void *to, const void *from, size_t len,
		const void *data, void *stream, struct cfs_error *err)
{
	struct cuda_dev *dev = container_of(base, struct cuda_dev, base);
	struct before before;
	cudaError_t e = cudaSuccess;
	int device = 0, r;

	r = device_of(data, stream, &device, err);
	if (r < 0)
		return r;
	before = enter(device); /* which one's the default stream is */
	r = check_stream(stream, err);
	if (!r)
		r = pin(dev, err);
	if (!r)
		e = cudaMemcpyAsync(to, from, len, cudaMemcpyDefault,
				    (cudaStream_t)stream);
	if (e != cudaSuccess) /* of work before it, perhaps */
		r = fail(err, e, "copying");
	leave(&before);
	return r;
}

static int cuda_to_ring(struct cfs_dev *dev, void *ring, const void *data,
			size_t len, void *stream, struct cfs_error *err)
{
	return copy(dev, ring, data, len, data, stream, err);
}

static int cuda_from_ring(struct cfs_dev *dev, void *data, const void *ring,
			  size_t len, void *stream, struct cfs_error *err)
{
	return copy(dev, data, ring, len, data, stream, err);
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
	struct before before;
	int device = 0, r;

	r = device_of(data, stream, &device, err);
	if (r < 0)
		return r;
	before = enter(device);
	r = record(dev, device, stream, &ev, err);
	leave(&before);
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
	enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
	struct before before;
	cudaError_t e;

	if (wait) {
		before = enter(ev->device);
		e = cudaEventSynchronize(ev->event);
		leave(&before);
	} else {
		(void)cudaThreadExchangeStreamCaptureMode(&mode);
		e = cudaSetDevice(ev->device);
		if (e == cudaSuccess)
			e = cudaEventQuery(ev->event);
		(void)cudaThreadExchangeStreamCaptureMode(&mode);
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
	if (dev->pinned)
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
