/* Bytes of a step through the ring, asked ahead: two requests are under way,
 * so that the daemon fills one while the other is copied out. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rank_client/frame.h"
#include "rank_client/load_internal.h"
#include "rank_client/save_internal.h"

#define AHEAD	  2
#define SLOTS_MAX 8 /* of a request */

struct request {
	struct cfs_link_call *call;
	uint32_t slots[SLOTS_MAX];
	unsigned n;
	uint64_t len;
};

struct reading {
	struct cfs_rank_load *load;
	struct cfs_dev *dev;
	const struct cfs_inflow *to;
	uint64_t handle;
	uint64_t off, len; /* not asked for yet */
	uint8_t *at;	   /* where what is asked for first goes */
	struct request ahead[AHEAD];
	unsigned first, n;
};

/* As many slots as are free, but one at least where nothing is under way. */
static int take_slots(struct reading *in, struct request *q,
		      struct cfs_error *err)
{
	struct cfs_rank *rank = in->load->rank;
	const struct cfs_ring *ring = &rank->ring;
	uint64_t want = (in->len + ring->slot_bytes - 1) / ring->slot_bytes;
	unsigned max = CFS_MIN((unsigned)SLOTS_MAX, ring->slots / 4);
	int r = 1;

	want = CFS_MIN(want, (uint64_t)CFS_MAX(max, 1u));
	q->n = 0;
	while (q->n < want) {
		bool must = !in->n && !q->n;

		r = cfs_link_take(rank->link, 0, &q->slots[q->n], err);
		if (!r && must && rank->save) /* it may have all of them */
			r = cfs_outflow_flush_all(rank->save, err);
		if (!r && must)
			r = cfs_link_take(rank->link, CFS_TICK_MS,
					  &q->slots[q->n], err);
		if (r < 0)
			break;
		if (r)
			q->n++;
		else if (!must)
			break;
	}
	if (r >= 0)
		return q->n;
	cfs_link_give(rank->link, q->slots, q->n, NULL);
	return r;
}

static cJSON *read_frame(const struct reading *in, const struct request *q)
{
	cJSON *json = cfs_frame_op("read");
	uint64_t slots[SLOTS_MAX];
	unsigned i;

	for (i = 0; i < q->n; i++)
		slots[i] = q->slots[i];
	cJSON_AddNumberToObject(json, "handle", (double)in->handle);
	cJSON_AddNumberToObject(json, "off", (double)in->off);
	cJSON_AddNumberToObject(json, "len", (double)q->len);
	cfs_frame_add_u64s(json, "slots", slots, q->n);
	return json;
}

/* 1: one more is under way; 0: there is no room for one. */
static int ask(struct reading *in, struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;
	struct request *q = &in->ahead[(in->first + in->n) % AHEAD];
	int r = take_slots(in, q, err);

	if (r <= 0)
		return r;
	q->len = CFS_MIN(in->len,
			 (uint64_t)q->n * in->load->rank->ring.slot_bytes);
	cfs_frame_put(&frames, read_frame(in, q));
	r = cfs_link_send(in->load->rank->link, &frames, q->slots, NULL, q->n,
			  NULL, &q->call, err);
	if (r < 0)
		return r;
	in->off += q->len;
	in->len -= q->len;
	in->n++;
	return 1;
}

static int copy_out(struct reading *in, struct request *q,
		    struct cfs_error *err)
{
	const struct cfs_dev_ops *ops = in->dev->ops;
	const struct cfs_ring *ring = &in->load->rank->ring;
	struct cfs_dev_event *event = NULL;
	uint64_t left = q->len;
	unsigned i;
	int r = 0, marked;

	for (i = 0; !r && left; i++) {
		size_t n = (size_t)CFS_MIN(left, (uint64_t)ring->slot_bytes);

		r = ops->from_ring(in->dev, in->at,
				   cfs_ring_slot(ring, q->slots[i]), n,
				   in->to->stream, err);
		in->at += n;
		left -= n;
	}
	marked = cfs_rank_mark(in->load->rank, in->dev, in->to->data,
			       in->to->stream, q->slots, q->n, &event,
			       r ? NULL : err);
	if (marked < 0)
		return r ? r : marked;
	cfs_link_give(in->load->rank->link, q->slots, q->n, event);
	return r;
}

static void tell(const struct reading *in, bool last)
{
	cfs_rank_tell(in->load->rank, "load", in->load->got_bytes,
		      in->load->asked_bytes, last);
}

/* The oldest that is under way; with @bad its bytes are not wanted any more. */
static int finish(struct reading *in, bool bad, struct cfs_error *err)
{
	struct request *q = &in->ahead[in->first];
	struct cfs_link *link = in->load->rank->link;
	int r;

	in->first = (in->first + 1) % AHEAD;
	in->n--;
	while (!cfs_link_wait(link, q->call, CFS_TICK_MS))
		tell(in, false);
	r = cfs_link_end(link, cfs_steal(q->call), NULL, err);
	if (r < 0 || bad) {
		cfs_link_give(link, q->slots, q->n, NULL);
		return r;
	}
	r = copy_out(in, q, err);
	in->load->got_bytes += q->len;
	tell(in, false);
	return r;
}

int cfs_inflow_read(struct cfs_rank_load *load, uint64_t handle, uint64_t off,
		    uint64_t len, const struct cfs_inflow *to,
		    struct cfs_error *err)
{
	struct reading in = {.load = load,
			     .to = to,
			     .handle = handle,
			     .off = off,
			     .len = len,
			     .at = to->data};
	struct cfs_error quiet;
	int r;

	if (!len)
		return 0;
	if (!to->data)
		return cfs_fail(err, -EINVAL, "no room is given");
	r = cfs_rank_dev(load->rank, to->memory, &in.dev, err);
	load->asked_bytes += len;
	while (r >= 0 && (in.len || in.n)) {
		r = 1;
		while (r > 0 && in.len && in.n < AHEAD)
			r = ask(&in, err);
		if (r >= 0)
			r = finish(&in, false, err);
	}
	while (in.n)
		(void)!finish(&in, true, &quiet);
	if (!r)
		tell(&in, true);
	return r;
}
