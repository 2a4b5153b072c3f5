/* Host memory: a copy is done when it returns. */
#include <string.h>

#include "rank_client/dev.h"

static int host_open(void *ring, size_t len, struct cfs_dev **dev_out,
		     struct cfs_error *err)
{
	static struct cfs_dev host = {&cfs_dev_host};

	(void)ring, (void)len, (void)err;
	*dev_out = &host;
	return 0;
}

static int host_to_ring(struct cfs_dev *dev, void *ring, const void *data,
			size_t len, void *stream, struct cfs_error *err)
{
	(void)dev, (void)stream, (void)err;
	memcpy(ring, data, len);
	return 0;
}

static int host_from_ring(struct cfs_dev *dev, void *data, const void *ring,
			  size_t len, void *stream, struct cfs_error *err)
{
	(void)dev, (void)stream, (void)err;
	memcpy(data, ring, len);
	return 0;
}

static int host_mark(struct cfs_dev *dev, const void *data, void *stream,
		     struct cfs_dev_event **event_out, struct cfs_error *err)
{
	(void)dev, (void)data, (void)stream, (void)err;
	*event_out = NULL;
	return 0;
}

static void host_close(struct cfs_dev *dev)
{
	(void)dev;
}

const struct cfs_dev_ops cfs_dev_host = {
	.open = host_open,
	.to_ring = host_to_ring,
	.from_ring = host_from_ring,
	.mark = host_mark,
	.close = host_close,
};
