/*
 * scrub: reads every object and checks its digest.  Keys are taken in portions
 * and each portion is read in the order of the packs.  Before that, the log's
 * own records: while the index is whole nobody else reads them.  After it, what
 * files refer to: an index that was made without a pack has no keys for it.
 */
#include "store/core/fsck_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/log.h"

#define PORTION 65536u

struct item {
	struct cfs_digest digest;
	struct cfs_object_value place;
};

struct scrub {
	struct cfs_store *store;
	const struct cfs_job_control *control;
	struct cfs_scrub_result result;
	bool is_map;
	uint64_t done, total; /* objects */
	struct item *items;
	size_t n;
	struct cfs_buf stored, raw;
	struct cfs_fsck_bad bad;
};

static int tell(struct scrub *s)
{
	const struct cfs_job_control *c = s->control;

	if (!c || !c->progress)
		return 0;
	return c->progress(c->arg, s->done, s->total,
			   s->is_map ? "maps" : "chunks")
		       ? 0
		       : -ECANCELED;
}

/* Where a pack was cut, what it held is not damaged but gone. */
static const char *why(struct scrub *s, const struct item *item, int r)
{
	struct cfs_engine *engine = cfs_packs_engine(s->store->packs);
	const struct cfs_object_value *v = &item->place;
	uint64_t size;

	if (r == -ENOENT)
		return "the pack is missing";
	if (engine->ops->size(engine, cfs_object_place(v).pack, &size) == 0 &&
	    size < (uint64_t)v->off + v->stored_len)
		return "the pack is cut short";
	return r == -EBADMSG ? "damaged" : strerror(-r);
}

static int found(struct scrub *s, const struct item *item, int r)
{
	const struct cfs_job_control *c = s->control;
	char hex[CFS_DIGEST_HEX], text[256];

	if (r == -ENOENT)
		s->result.missing++;
	else
		s->result.damaged++;
	if (r == -EBADMSG || r == -EIO)
		cfs_doubt_add(s->store, s->is_map, &item->digest);
	if (!c || !c->finding)
		return cfs_fsck_bad_add(&s->bad, s->is_map, &item->digest);
	(void)snprintf(text, sizeof(text), "%s %s in pack %04x/%08x at %u: %s",
		       s->is_map ? "map" : "chunk",
		       cfs_digest_hex(&item->digest, hex), item->place.lane,
		       item->place.pack, item->place.off, why(s, item, r));
	c->finding(c->arg, text);
	return cfs_fsck_bad_add(&s->bad, s->is_map, &item->digest);
}

/* ---- the log ---- */

static void found_in_log(void *arg, struct cfs_position at, int r)
{
	struct scrub *s = arg;
	const struct cfs_job_control *c = s->control;
	char text[160];

	s->result.damaged++;
	s->result.log_damaged++;
	if (!c || !c->finding)
		return;
	(void)snprintf(text, sizeof(text),
		       "record of the log in pack 0000/%08x at %u: %s", at.pack,
		       at.off,
		       r == -ENOENT    ? "the pack is missing"
		       : r == -EBADMSG ? "damaged"
				       : strerror(-r));
	c->finding(c->arg, text);
}

/* The index has what the log can no longer tell: once a snapshot of it is
 * written, the log is read from there. */
static int check_log(struct scrub *s)
{
	struct cfs_store *store = s->store;
	struct cfs_position at;
	int r;

	r = cfs_packs_check_log(store->packs, store->recovered_end,
				found_in_log, s);
	if (r < 0 || !s->result.log_damaged || cfs_store_read_only(store))
		return r;
	/* not into a pack whose head may be what is damaged */
	r = cfs_append_start(store);
	if (r == 0)
		r = cfs_packs_roll(store->packs);
	if (r == 0)
		r = cfs_gc_snapshot(store, &at);
	if (r == 0)
		cfs_log(CFS_LOG_WARN,
			"store %s: the log was damaged; a snapshot was written "
			"to pack %08x, and what lies before it is not needed "
			"to rebuild the index",
			store->path, at.pack);
	else
		(void)cfs_log_err(
			r,
			"store %s: the log is damaged and no snapshot "
			"can be written: keep index/, and scrub again",
			store->path);
	return 0;
}

/* ---- one object ---- */

/* All frames of the stored chunk in @s->stored into @s->raw. */
static int decode_frames(struct scrub *s, const struct cfs_chunk_head *head)
{
	uint8_t *out;
	int r = 0;

	cfs_buf_reset(&s->raw);
	out = cfs_buf_grow(&s->raw, head->raw_len);
	if (!out)
		return -ENOMEM;
	for (uint32_t i = 0; r == 0 && i < head->n_frames; i++) {
		r = cfs_frame_decode(head, i,
				     s->stored.data + head->frames[i].off, out);
		out += cfs_frame_raw_len(head, i);
	}
	return r;
}

static int decode_chunk(struct scrub *s, const struct item *item)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	int r = cfs_chunk_head_parse(s->stored.data, s->stored.len,
				     s->stored.len, &head);

	if (r < 0)
		return r;
	if (head->codec == CFS_CODEC_DERIVED)
		return cfs_object_chunk_bytes(s->store, &item->digest, &s->raw);
	return decode_frames(s, head);
}

static int check_map(const struct cfs_buf *stored)
{
	_cleanup_(cfs_content_map_fini) struct cfs_content_map map = {0};

	return cfs_content_map_decode(stored->data, stored->len, &map);
}

static int check_object(struct scrub *s, const struct item *item)
{
	const struct cfs_buf *bytes = s->is_map ? &s->stored : &s->raw;
	struct cfs_digest is;
	int r = cfs_object_load(s->store, s->is_map, &item->digest, &s->stored,
				NULL);

	if (r == 0)
		r = s->is_map ? check_map(&s->stored) : decode_chunk(s, item);
	if (r < 0)
		return r;
	cfs_digest_of(bytes->data, bytes->len, &is);
	s->result.bytes += bytes->len;
	return cfs_digest_cmp(&is, &item->digest) == 0 ? 0 : -EBADMSG;
}

static int check_item(struct scrub *s, struct item *item)
{
	int r = check_object(s, item), now;

	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		now = cfs_object_locate(s->store, s->is_map, &item->digest,
					&item->place);
		if (now == -ENOENT)
			return 0; /* gc took it away meanwhile */
		r = found(s, item, r);
		if (r < 0)
			return r;
	}
	if (s->is_map)
		s->result.maps++;
	else
		s->result.chunks++;
	return 0;
}

/* ---- all of them ---- */

static int by_place(const void *a, const void *b)
{
	const struct cfs_object_value *x = &((const struct item *)a)->place;
	const struct cfs_object_value *y = &((const struct item *)b)->place;

	if (x->lane != y->lane)
		return x->lane < y->lane ? -1 : 1;
	if (x->pack != y->pack)
		return x->pack < y->pack ? -1 : 1;
	return (x->off > y->off) - (x->off < y->off);
}

static int check_portion(struct scrub *s)
{
	qsort(s->items, s->n, sizeof(*s->items), by_place);
	for (size_t i = 0; i < s->n; i++) {
		int r = tell(s);

		if (r == 0)
			r = check_item(s, &s->items[i]);
		if (r < 0)
			return r;
		s->done++;
	}
	s->n = 0;
	return 0;
}

static int open_keys(struct scrub *s, struct cfs_index_iter **out)
{
	struct cfs_key prefix;

	cfs_key_prefix(&prefix, s->is_map ? 'm' : 'c', 0);
	return cfs_levels_iter(s->store->levels, cfs_key_slice(&prefix),
			       (struct cfs_slice){NULL, 0}, out);
}

static int count_keys(struct scrub *s)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_slice key, val;
	int r = open_keys(s, &iter);

	if (r < 0)
		return r;
	while ((r = iter->ops->next(iter, &key, &val)) > 0)
		s->total++;
	return r;
}

static int check_class(struct scrub *s)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_slice key, val;
	int r = open_keys(s, &iter);

	if (r < 0)
		return r;
	while ((r = iter->ops->next(iter, &key, &val)) > 0) {
		struct item *item = &s->items[s->n];

		r = cfs_key_parse_digest(key, &item->digest);
		if (r == 0)
			r = cfs_object_decode(val.data, val.len, &item->place);
		if (r == 0 && ++s->n == PORTION)
			r = check_portion(s);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : check_portion(s);
}

static int scrub(struct scrub *s)
{
	int r = tell(s);

	if (r == 0)
		r = check_log(s);
	for (int i = 0; r == 0 && i < 2; i++) {
		s->is_map = i;
		r = count_keys(s);
	}
	for (int i = 0; r == 0 && i < 2; i++) {
		s->is_map = i;
		r = check_class(s);
	}
	return r == 0 ? tell(s) : r;
}

static int check_files(struct scrub *s)
{
	uint64_t missing = 0;
	int r = cfs_fsck_content(s->store, s->control, &s->bad, &missing,
				 &s->result.files);

	s->result.missing += missing;
	return r;
}

int cfs_store_scrub(struct cfs_store *store,
		    const struct cfs_job_control *control,
		    struct cfs_scrub_result *result_out, struct cfs_error *err)
{
	struct scrub s = {.store = store, .control = control};
	int r = -ENOMEM;

	s.result.lost = cfs_loss_tell(store, control);
	s.items = malloc(PORTION * sizeof(*s.items));
	if (s.items)
		r = scrub(&s);
	if (r == 0)
		r = check_files(&s);
	free(s.items);
	cfs_fsck_bad_fini(&s.bad);
	cfs_buf_free(&s.stored);
	cfs_buf_free(&s.raw);
	if (r == -ECANCELED)
		return r;
	if (r < 0)
		return cfs_fail(err, r, "scrub: %s", strerror(-r));
	*result_out = s.result;
	return 0;
}
