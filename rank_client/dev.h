/*
 * What copies between the ring and the memory that tensors are in: dev_host,
 * dev_cuda.
 */
#ifndef CFS_RANK_CLIENT_DEV_H
#define CFS_RANK_CLIENT_DEV_H

#include "store/util/base.h"

struct cfs_error;
struct cfs_dev;

/* A point in a stream of copies. */
struct cfs_dev_event {
	struct cfs_dev *dev;
};

struct cfs_dev_ops {
	/* Makes @len bytes at @ring (which outlive it) known to the device. */
	int (*open)(void *ring, size_t len, struct cfs_dev **dev_out,
		    struct cfs_error *err);
	/* Begin to copy: @ring is filled, or emptied, once an event that is
	 * marked afterwards on @stream is done. */
	int (*to_ring)(struct cfs_dev *dev, void *ring, const void *data,
		       size_t len, void *stream, struct cfs_error *err);
	int (*from_ring)(struct cfs_dev *dev, void *data, const void *ring,
			 size_t len, void *stream, struct cfs_error *err);
	/* *event_out NULL: all is done already.  @data: of the device that
	 * @stream belongs to. */
	int (*mark)(struct cfs_dev *dev, const void *data, void *stream,
		    struct cfs_dev_event **event_out, struct cfs_error *err);
	/* Waits for what was begun on @stream; where mark() may fail. */
	int (*sync)(struct cfs_dev *dev, const void *data, void *stream,
		    struct cfs_error *err);
	/* Any thread.  1; 0, not yet (never where @wait); or an error. */
	int (*done)(struct cfs_dev_event *event, int wait,
		    struct cfs_error *err);
	/* Any thread. */
	void (*drop)(struct cfs_dev_event *event);
	/* No event of it is left. */
	void (*close)(struct cfs_dev *dev);
};

struct cfs_dev {
	const struct cfs_dev_ops *ops;
};

extern const struct cfs_dev_ops cfs_dev_host;
#ifdef CFS_WITH_CUDA
extern const struct cfs_dev_ops cfs_dev_cuda;
#endif

#endif
