/* A store over the engine and index in memory, for the tests of store/core. */
#ifndef CFS_CORE_BED_H
#define CFS_CORE_BED_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "store/chunk/chunk.h"
#include "store/core/store.h"
#include "store/pack/engine.h"
#include "store/util/error.h"
#include "tests/test.h"

struct bed {
	struct cfs_engine *engine; /* the store's */
	struct cfs_index *index;   /* the store's */
	struct cfs_store *store;
};

static inline uint64_t bed_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static const struct cfs_store_options bed_options = {
	.cache_bytes = 4u << 20,
	.in_flight_bytes = 8u << 20,
	.workers = 2,
	.no_sync_thread = true,
	.pack_bytes = 256u << 10,
};

/* Takes both over; NULL: new ones. */
static inline int bed_try_open(struct bed *b, struct cfs_engine *engine,
			       struct cfs_index *index, struct cfs_error *err)
{
	b->engine = engine ? engine : cfs_engine_mem_new();
	b->index = index ? index : cfs_index_mem_new();
	ck_assert(b->engine && b->index);
	b->store = NULL;
	return cfs_store_open_engine(b->engine, b->index, &bed_options,
				     &b->store, err);
}

static inline void bed_open(struct bed *b, struct cfs_engine *engine,
			    struct cfs_index *index)
{
	struct cfs_error err = {""};
	int r = bed_try_open(b, engine, index, &err);

	ck_assert_msg(r == 0, "open: %d %s", r, err.text);
}

/* What the disk holds now, as a new engine. */
static inline struct cfs_engine *bed_disk(const struct bed *b)
{
	struct cfs_engine *e = cfs_engine_mem_after_power_cut(
		b->engine, cfs_engine_mem_events(b->engine), 0);

	ck_assert_ptr_nonnull(e);
	return e;
}

static inline struct cfs_index *bed_index_copy(struct cfs_index *from)
{
	static const struct cfs_slice all = {"", 0};
	struct cfs_index *to = cfs_index_mem_new();
	struct cfs_batch batch = CFS_BATCH_INIT;
	struct cfs_index_iter *it = NULL;
	struct cfs_slice key, val;

	ck_assert_ptr_nonnull(to);
	ck_assert_int_eq(from->ops->iter_new(from, all, all, &it), 0);
	while (it->ops->next(it, &key, &val) > 0)
		cfs_batch_put(&batch, key, val);
	cfs_index_iter_freep(&it);
	ck_assert_int_eq(to->ops->commit(to, &batch), 0);
	cfs_batch_fini(&batch);
	return to;
}

/* Bytes that a seed names; compressible or not. */
static inline void *bed_bytes(uint64_t seed, size_t len)
{
	uint8_t *p = malloc(len ? len : 1);
	uint64_t state = seed * 0x9e3779b97f4a7c15u + 88172645463325252u;
	size_t i;

	ck_assert_ptr_nonnull(p);
	for (i = 0; i < len; i++) {
		if (!(i & 7) || !(seed & 1))
			(void)bed_random(&state);
		p[i] = (uint8_t)(state >> 24);
		if (seed & 1)
			p[i] &= 15;
	}
	return p;
}

static inline struct cfs_pending *bed_ingest(struct bed *b, uint64_t seed,
					     size_t len)
{
	struct cfs_pending *p;

	ck_assert_int_eq(cfs_store_reserve(b->store, len, false), 0);
	p = cfs_store_ingest(b->store, bed_bytes(seed, len), len, 0);
	ck_assert_ptr_nonnull(p);
	return p;
}

static inline void bed_store_chunk(struct bed *b, uint64_t seed, size_t len,
				   struct cfs_digest *digest)
{
	struct cfs_pending *p = bed_ingest(b, seed, len);

	ck_assert_int_eq(cfs_pending_wait(p, digest), 0);
	cfs_pending_unref(p);
}

static inline int bed_check_chunk(struct bed *b, uint64_t seed, size_t len,
				  const struct cfs_digest *digest)
{
	uint8_t *want = bed_bytes(seed, len), *is = malloc(len);
	int r;

	ck_assert_ptr_nonnull(is);
	r = cfs_store_read_chunk(b->store, digest, 0, is, len);
	if (r == 0)
		ck_assert_mem_eq(want, is, len);
	free(want);
	free(is);
	return r;
}

static inline void bed_set(struct bed *b, const char *name, const char *value)
{
	struct cfs_key key;

	cfs_key_setting(&key, name);
	cfs_store_enter(b->store);
	ck_assert_int_eq(
		cfs_levels_put(cfs_store_levels(b->store), cfs_key_slice(&key),
			       (struct cfs_slice){value, strlen(value)}),
		0);
	cfs_store_leave(b->store);
}

/* The value, "" when there is none; good until the next call. */
static inline const char *bed_get(struct bed *b, const char *name)
{
	static char text[256];
	struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_key key;
	int r;

	cfs_key_setting(&key, name);
	r = cfs_levels_get(cfs_store_levels(b->store), cfs_key_slice(&key),
			   &buf);
	ck_assert(r == 0 || r == -ENOENT);
	(void)snprintf(text, sizeof(text), "%.*s", (int)buf.len,
		       r == 0 ? cfs_buf_str(&buf) : "");
	cfs_buf_free(&buf);
	return text;
}

#endif
