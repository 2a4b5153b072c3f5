/* Bytes of a save into slots, and word of them to the daemon. */
#include <errno.h>
#include <string.h>

#include "rank_client/frame.h"
#include "rank_client/save_internal.h"

#define BATCH 4 /* slots that wait for one event */

struct batch {
	struct cfs_buf frames;
	uint32_t slots[BATCH], lens[BATCH];
	unsigned n;
};

int cfs_outflow_flush(struct cfs_rank_file *file, struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;

	if (!file->has_slot)
		return 0;
	file->has_slot = false;
	if (file->save->settled) { /* nothing may follow what it said last */
		cfs_link_give(file->save->rank->link, &file->slot, 1, NULL);
		return 0;
	}
	cfs_frame_put_data(&frames, file->id, file->slot, file->fill);
	return cfs_link_send(file->save->rank->link, &frames, &file->slot,
			     &file->fill, 1, NULL, NULL, err);
}

int cfs_outflow_flush_all(struct cfs_rank_save *save, struct cfs_error *err)
{
	struct cfs_rank_file *file;
	int r = 0;

	for (file = save->files; !r && file; file = file->next)
		r = cfs_outflow_flush(file, err);
	return r;
}

int cfs_outflow_slot(struct cfs_rank_save *save, uint32_t *slot_out,
		     struct cfs_error *err)
{
	int r = cfs_link_take(save->rank->link, 0, slot_out, err);

	if (r)
		return r < 0 ? r : 0;
	r = cfs_outflow_flush_all(save, err);
	if (r < 0)
		return r;
	while (!(r = cfs_link_take(save->rank->link, CFS_TICK_MS, slot_out,
				   err)))
		cfs_save_tell(save, false);
	return r < 0 ? r : 0;
}

static int send_batch(struct cfs_rank_save *save, struct batch *b,
		      struct cfs_dev *dev, const void *data, void *stream,
		      struct cfs_error *err)
{
	struct cfs_dev_event *event = NULL;
	unsigned n = b->n;
	int r;

	b->n = 0;
	r = n ? cfs_rank_mark(save->rank, dev, data, stream, b->slots, n,
			      &event, err)
	      : 0;
	if (r < 0)
		return r;
	return cfs_link_send(save->rank->link, &b->frames, b->slots, b->lens, n,
			     event, NULL, err);
}

static int fill_slot(struct cfs_rank_save *save, struct batch *b, uint64_t id,
		     struct cfs_dev *dev, const void *data, uint32_t len,
		     void *stream, struct cfs_error *err)
{
	struct cfs_rank *rank = save->rank;
	uint32_t slot = 0;
	int r = cfs_outflow_slot(save, &slot, err);

	if (r < 0)
		return r;
	r = dev->ops->to_ring(dev, cfs_ring_slot(&rank->ring, slot), data, len,
			      stream, err);
	if (r < 0) {
		cfs_link_give(rank->link, &slot, 1, NULL);
		return r;
	}
	cfs_frame_put_data(&b->frames, id, slot, len);
	b->slots[b->n] = slot;
	b->lens[b->n++] = len;
	save->put_bytes += len;
	return 0;
}

static int write_all(struct cfs_rank_save *save, struct batch *b, uint64_t id,
		     struct cfs_dev *dev, const uint8_t *data, uint64_t len,
		     void *stream, struct cfs_error *err)
{
	const void *first = data;
	bool host = dev->ops == &cfs_dev_host;
	int r;

	while (len) {
		uint32_t n = (uint32_t)CFS_MIN(
			len, (uint64_t)save->rank->ring.slot_bytes);

		r = fill_slot(save, b, id, dev, data, n, stream, err);
		if (r < 0)
			return r;
		data += n;
		len -= n;
		/* a full ring empties only by what was told */
		if (host || b->n == BATCH || !len) {
			r = send_batch(save, b, dev, first, stream, err);
			if (r < 0)
				return r;
			cfs_save_tell(save, false);
		}
	}
	/* frames without bytes */
	return b->frames.len ? send_batch(save, b, dev, first, stream, err) : 0;
}

int cfs_outflow_write(struct cfs_rank_save *save, struct cfs_buf *head,
		      uint64_t id, const void *data, uint64_t len,
		      uint32_t memory, void *stream, struct cfs_error *err)
{
	struct batch b = {.frames = *head};
	struct cfs_dev *dev = NULL;
	int r;

	*head = (struct cfs_buf)CFS_BUF_INIT;
	r = cfs_rank_dev(save->rank, len ? memory : CFS_RANK_HOST, &dev, err);
	if (!r)
		r = write_all(save, &b, id, dev, data, len, stream, err);
	if (r < 0 && b.n && dev) {
		/* copies into these may be under way */
		struct cfs_dev_event *event = NULL;

		if (!cfs_rank_mark(save->rank, dev, data, stream, b.slots, b.n,
				   &event, NULL))
			cfs_link_give(save->rank->link, b.slots, b.n, event);
	}
	cfs_buf_free(&b.frames);
	return r;
}
