/* What saving and loading share: the device, progress, asking. */
#include <errno.h>
#include <string.h>

#include "rank_client/frame.h"
#include "rank_client/rank_internal.h"

void cfs_rank_json_freep(cJSON **json)
{
	cJSON_Delete(*json);
}

int cfs_rank_check(const struct cfs_rank *rank, struct cfs_error *err)
{
	if (!rank)
		return cfs_fail(err, -EINVAL, "no handle is given");
	if (rank->forked)
		return cfs_fail(err, -EPERM,
				"a process that was forked has no part in its "
				"parent's session; it may open its own");
	return cfs_link_check(rank->link, err);
}

int cfs_rank_dev(struct cfs_rank *rank, uint32_t memory, struct cfs_dev **out,
		 struct cfs_error *err)
{
	static const struct cfs_dev_ops *const ops[] = {
		[CFS_RANK_HOST] = &cfs_dev_host,
#ifdef CFS_WITH_CUDA
		[CFS_RANK_CUDA] = &cfs_dev_cuda,
#else
		[CFS_RANK_CUDA] = NULL,
#endif
	};
	int r;

	if (memory >= CFS_ARRAY_SIZE(ops))
		return cfs_fail(err, -EINVAL, "%u is no kind of memory",
				memory);
	if (!rank->dev[memory]) {
		if (!ops[memory])
			return cfs_fail(err, -ENODEV,
					"this library was built without CUDA");
		r = ops[memory]->open(rank->ring.data,
				      cfs_ring_bytes(&rank->ring),
				      &rank->dev[memory], err);
		if (r < 0)
			return r;
	}
	*out = rank->dev[memory];
	return 0;
}

int cfs_rank_mark(struct cfs_rank *rank, struct cfs_dev *dev, const void *data,
		  void *stream, const uint32_t *slots, unsigned n,
		  struct cfs_dev_event **event_out, struct cfs_error *err)
{
	int r = dev->ops->mark(dev, data, stream, event_out, err);

	if (!r)
		return 0;
	if (dev->ops->sync(dev, data, stream, NULL) < 0)
		cfs_link_kill(rank->link, r,
			      "slots that a device may still use are lost");
	else
		cfs_link_give(rank->link, slots, n, NULL);
	return r;
}

void cfs_rank_tell(struct cfs_rank *rank, const char *what, uint64_t done,
		   uint64_t total, bool last)
{
	struct cfs_rank_progress p = {sizeof(p), what, done, total};
	struct timespec now;

	if (!rank->progress)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!last &&
	    (now.tv_sec - rank->told.tv_sec) * 1000 +
			    (now.tv_nsec - rank->told.tv_nsec) / 1000000 <
		    CFS_TICK_MS)
		return;
	rank->told = now;
	rank->progress(rank->progress_arg, &p);
}

int cfs_rank_ask(struct cfs_rank *rank, cJSON *json, cJSON **answer_out,
		 struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;
	struct cfs_link_call *call;
	int r;

	cfs_frame_put(&frames, json);
	r = cfs_link_send(rank->link, &frames, NULL, NULL, 0, NULL, &call, err);
	return r < 0 ? r : cfs_link_end(rank->link, call, answer_out, err);
}
