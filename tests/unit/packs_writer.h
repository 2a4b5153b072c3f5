/*
 * A small writer of groups over packs: it remembers what was written and what
 * was acknowledged, and looks whether a log holds that.
 */
#ifndef CFS_PACKS_WRITER_H
#define CFS_PACKS_WRITER_H

#include "store/pack/packs.h"

#include <errno.h>
#include <string.h>

#include "store/util/endian.h"
#include "store/util/error.h"
#include "tests/test.h"

#define MAX_ITEMS  4096
#define PACK_BYTES (64u << 10)

/* One record that was appended: its payload is made from its id alone. */
struct item {
	enum cfs_record_type type;
	uint32_t len;
	uint8_t *data;
	struct cfs_digest digest; /* zeros unless it is an object */
	bool acked, lost;
	struct cfs_place place;
};

struct writer {
	struct cfs_engine *engine;
	struct cfs_packs *packs;
	struct item items[MAX_ITEMS];
	uint32_t n;
	size_t acked_at[MAX_ITEMS]; /* events when it was acknowledged */
	uint64_t group;
};

static const struct cfs_packs_options small = {
	.uuid = {7, 1}, .pack_bytes = PACK_BYTES, .reserve_bytes = 16u << 10};

static inline uint32_t mix(uint32_t x)
{
	x ^= x >> 16;
	x *= 0x7feb352dU;
	x ^= x >> 15;
	return x * 0x846ca68bU;
}

/* id, group (SYNCED and GROUP: where the log looks for it), then noise */
static inline void fill(uint8_t *data, uint32_t len, uint32_t id)
{
	for (uint32_t i = 0; i < len; i++)
		data[i] = (uint8_t)mix(id * 7919 + i);
	if (len >= 48)
		memset(data + 40, 0, 8);
	cfs_put_le64(data, 0);
	cfs_put_le32(data + 8, id);
}

static inline int append(struct writer *w, uint32_t id)
{
	struct item *item = &w->items[id];
	uint32_t a = item->len / 3, b = item->len / 2;
	struct iovec iov[3] = {{item->data, a},
			       {item->data + a, b - a},
			       {item->data + b, item->len - b}};

	return cfs_packs_append(w->packs, item->type, 0, &item->digest,
				item->type == CFS_RECORD_CHUNK ? 2 * item->len
							       : 0,
				iov, 3, &item->place, NULL);
}

static inline uint32_t item_new(struct writer *w, enum cfs_record_type type,
				uint32_t len)
{
	struct item *item = &w->items[w->n];

	ck_assert_uint_lt(w->n, MAX_ITEMS);
	ck_assert_uint_ge(len, 12);
	*item = (struct item){.type = type, .len = len, .data = malloc(len)};
	ck_assert_ptr_nonnull(item->data);
	fill(item->data, len, w->n);
	if (type == CFS_RECORD_CHUNK || type == CFS_RECORD_MAP)
		cfs_digest_of(item->data, len, &item->digest);
	return w->n++;
}

static inline void moved(void *arg, const struct cfs_record *record,
			 struct cfs_place from, struct cfs_place to)
{
	struct writer *w = arg;

	for (uint32_t i = 0; i < w->n; i++) {
		struct item *item = &w->items[i];

		if (item->place.pack.number != from.pack.number ||
		    item->place.off != from.off)
			continue;
		ck_assert_int_eq(record->type, item->type);
		item->place = to;
		item->lost = to.pack.number == 0;
		return;
	}
	/* its append has failed, as far as the writer knows */
}

static inline struct writer *writer_new(struct cfs_engine *engine,
					struct cfs_position end)
{
	struct writer *w = calloc(1, sizeof(*w));
	struct cfs_error err = {.text = ""};

	ck_assert_ptr_nonnull(w);
	w->engine = engine;
	ck_assert_msg(cfs_packs_open(engine, &small, &w->packs, &err) == 0,
		      "%s", err.text);
	ck_assert_msg(cfs_packs_start(w->packs, end,
				      (struct cfs_position){0, 0}, &err) == 0,
		      "%s", err.text);
	cfs_packs_on_moved(w->packs, moved, w);
	w->n = 1; /* id 0 is none */
	return w;
}

static inline void writer_free(struct writer *w)
{
	cfs_packs_close(w->packs);
	for (uint32_t i = 1; i < w->n; i++)
		free(w->items[i].data);
	free(w);
}

static inline void ack(struct writer *w, uint32_t upto)
{
	for (uint32_t i = 1; i < upto; i++) {
		if (w->items[i].acked || !w->items[i].place.pack.number)
			continue;
		w->items[i].acked = true;
		w->acked_at[i] = cfs_engine_mem_events(w->engine);
	}
}

/* A group of some chunks, two batches and a GROUP; 0 or why it failed.  Chunks
 * that could not be appended are tried once more, as core does. */
static inline int commit(struct writer *w, uint32_t chunks, uint32_t len)
{
	uint32_t first = w->n, ids[3];
	int r = 0;

	for (uint32_t i = 0; i < chunks; i++) {
		uint32_t id = item_new(
			w, i % 4 == 3 ? CFS_RECORD_MAP : CFS_RECORD_CHUNK,
			12 + mix(w->n) % len);

		if (append(w, id) < 0 && append(w, id) < 0)
			w->items[id].place.pack.number = 0;
	}
	for (int attempt = 0; attempt < 4; attempt++) {
		ids[0] = item_new(w, CFS_RECORD_BATCH, 40);
		ids[1] = item_new(w, CFS_RECORD_BATCH, 900);
		ids[2] = item_new(w, CFS_RECORD_GROUP, 93);
		r = 0;
		for (int i = 0; i < 3 && r == 0; i++)
			r = append(w, ids[i]);
		if (r == 0)
			r = cfs_packs_sync(w->packs);
		if (r == 0)
			break;
		for (int i = 0; i < 3; i++)
			w->items[ids[i]].place.pack.number = 0;
		/* chunks whose append failed meanwhile */
		for (uint32_t i = first; i < first + chunks; i++)
			if (!w->items[i].place.pack.number)
				(void)append(w, i);
	}
	if (r == 0) {
		w->group++;
		ack(w, w->n);
	}
	return r;
}

/* ---- looking ---- */

struct seen {
	struct cfs_packs *packs;
	const struct writer *w;
	bool there[MAX_ITEMS]; /* with the right bytes */
	uint32_t groups, last;
	struct cfs_position first_at;
};

/* Bytes that verify must be those of an item that was written. */
static inline int look(void *arg, const struct cfs_record *record,
		       struct cfs_place place, struct cfs_position at)
{
	struct seen *s = arg;
	uint8_t *data = malloc(place.len + 1u);
	const struct item *item;
	uint32_t id;
	int r;

	ck_assert_uint_eq(at.off + CFS_RECORD_HEAD_BYTES, place.off);
	r = cfs_packs_verify(s->packs, record, place);
	if (record->type == CFS_RECORD_BATCH ||
	    record->type == CFS_RECORD_GROUP)
		ck_assert_int_eq(r, 0);
	if (r < 0) {
		ck_assert(r == -EBADMSG || r == -EIO);
		free(data);
		return 0;
	}
	ck_assert_int_eq(cfs_packs_read(s->packs, place, 0, data, place.len),
			 0);
	ck_assert_uint_ge(place.len, 12);
	id = cfs_get_le32(data + 8);
	ck_assert_uint_lt(id, s->w->n);
	item = &s->w->items[id];
	ck_assert_int_eq(record->type, item->type);
	ck_assert_uint_eq(place.len, item->len);
	ck_assert_int_eq(memcmp(data, item->data, item->len), 0);
	ck_assert_int_eq(cfs_digest_cmp(&item->digest, &record->digest), 0);
	s->there[id] = true;
	if (record->type == CFS_RECORD_GROUP)
		s->groups++;
	s->last = id;
	free(data);
	return 0;
}

static inline int scan(struct seen *s, struct cfs_engine *engine,
		       const struct writer *w, struct cfs_packs **packs_out,
		       struct cfs_scan_end *end)
{
	struct cfs_error err = {.text = ""};
	int r;

	*s = (struct seen){.w = w};
	r = cfs_packs_open(engine, &small, packs_out, &err);
	if (r < 0)
		return r;
	s->packs = *packs_out;
	r = cfs_packs_scan(*packs_out, (struct cfs_position){0, 0}, look, s,
			   end, &err);
	if (r < 0)
		ck_assert_msg(err.text[0], "refusals have words");
	return r;
}

/* The item at the place where its writer believes it to be. */
static inline int verify(const struct writer *w, uint32_t id)
{
	const struct item *item = &w->items[id];
	struct cfs_record record = {
		.type = item->type,
		.raw_len = item->type == CFS_RECORD_CHUNK ? 2 * item->len : 0};

	record.digest = item->digest;
	return cfs_packs_verify(w->packs, &record, item->place);
}

static inline void check_acked(const struct writer *w, const bool *there,
			       size_t events)
{
	for (uint32_t i = 1; i < w->n; i++)
		if (w->items[i].acked && w->acked_at[i] <= events)
			ck_assert_msg(there[i], "item %u was acknowledged", i);
}

#endif
