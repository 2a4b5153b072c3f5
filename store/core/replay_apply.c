/* Replay's lists of what it saw, and groups on their way into the index. */
#include "store/core/replay_internal.h"

#include <errno.h>

/* ---- what was seen since the last GROUP ---- */

static int push(struct cfs_seen **items, size_t *n, size_t *cap,
		const struct cfs_record *record, struct cfs_place place)
{
	if (*n == *cap) {
		size_t more = *cap ? *cap * 2 : 64;
		struct cfs_seen *p = realloc(*items, more * sizeof(*p));

		if (!p)
			return -ENOMEM;
		*items = p;
		*cap = more;
	}
	(*items)[(*n)++] = (struct cfs_seen){*record, place};
	return 0;
}

int cfs_seen_push(struct cfs_seen_list *l, const struct cfs_record *record,
		  struct cfs_place place)
{
	return push(&l->items, &l->n, &l->cap, record, place);
}

void cfs_seen_free(struct cfs_seen_list *l)
{
	free(l->items);
	*l = (struct cfs_seen_list){NULL, 0, 0};
}

/* All of @from behind what @to has. */
int cfs_seen_append(struct cfs_seen_list *to, struct cfs_seen_list *from)
{
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < from->n; i++)
		r = cfs_seen_push(to, &from->items[i].record,
				  from->items[i].place);
	from->n = 0;
	return r;
}

/* ---- applying ---- */

int cfs_replay_payload(struct replay *rp, struct cfs_place place,
		       struct cfs_buf *out)
{
	uint8_t *p;

	cfs_buf_reset(out);
	p = cfs_buf_grow(out, place.len);
	if (!p)
		return -ENOMEM;
	return cfs_packs_read(rp->store->packs, place, 0, p, place.len);
}

static int add_change(void *arg, struct cfs_slice key,
		      const struct cfs_slice *val)
{
	struct cfs_batch *batch = arg;

	/* Derived keys are made from records, whoever writes them. */
	if (!cfs_key_is_logged(key))
		return -EBADMSG;
	if (val)
		cfs_batch_put(batch, key, *val);
	else
		cfs_batch_del(batch, key);
	return 0;
}

int cfs_replay_commit(struct replay *rp, const struct cfs_batch *batch)
{
	struct cfs_index *index = rp->store->index;

	if (batch->bytes.failed)
		return -ENOMEM;
	return batch->count ? index->ops->commit(index, batch) : 0;
}

/* A rebuild has no `t` until its end, so it may apply a group in pieces. */
static int apply_batches(struct replay *rp, struct cfs_batch *batch)
{
	_cleanup_(cfs_buf_free) struct cfs_buf payload = CFS_BUF_INIT;
	size_t i;
	int r;

	/* A snapshot on the way is the state there is already. */
	if (rp->tip.flags & CFS_GROUP_SNAPSHOT && rp->any_applied)
		return 0;
	for (i = 0; i < rp->tip_batches.n; i++) {
		r = cfs_replay_payload(rp, rp->tip_batches.items[i].place,
				       &payload);
		if (r == 0)
			r = cfs_batch_each(payload.data + 8, payload.len - 8,
					   add_change, batch);
		if (r == 0 && rp->rebuild) {
			r = cfs_replay_commit(rp, batch);
			cfs_batch_fini(batch);
			*batch = (struct cfs_batch)CFS_BATCH_INIT;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int cfs_replay_apply(struct replay *rp)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch batch = CFS_BATCH_INIT;
	struct cfs_applied a = {rp->tip.number, cfs_tip_from(&rp->tip),
				rp->tip.digest};
	size_t i;
	int r;

	if (rp->tip_applied)
		return 0;
	if (rp->tip.afresh) {
		r = cfs_openindex_empty(rp->store->index);
		if (r < 0)
			return r;
		rp->any_applied = false;
	}
	r = apply_batches(rp, &batch);
	if (r < 0)
		return r;
	if (!rp->rebuild) {
		for (i = 0; i < rp->tip_objects.n; i++)
			cfs_rebuild_put(&batch,
					&rp->tip_objects.items[i].record,
					rp->tip_objects.items[i].place);
		cfs_applied_put(&batch, &a);
	}
	r = cfs_replay_commit(rp, &batch);
	if (r < 0)
		return r;
	rp->tip_applied = rp->any_applied = true;
	rp->tip_objects.n = 0;
	rp->tip_batches.n = 0;
	if (rp->store->options.progress)
		rp->store->options.progress(rp->store->options.progress_arg,
					    rp->tip.number, 0,
					    "replaying up to group");
	return 0;
}
