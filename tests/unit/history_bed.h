/*
 * A random history of commits, and whether what a store holds later on is a
 * state out of it: never one that it did not have, never one before what was
 * acknowledged, every chunk it names whole.
 */
#ifndef CFS_HISTORY_BED_H
#define CFS_HISTORY_BED_H

#include "store/core/store_internal.h"
#include "tests/unit/core_bed.h"

#define KEYS   10
#define STATES 64

struct state {
	char value[KEYS][100]; /* "": absent; of the last 4 keys: chunks */
};

struct history {
	struct state now;
	struct state states[STATES]; /* as of each commit begun */
	size_t acked_at[STATES];     /* events when it was acknowledged */
	bool acked[STATES];
	struct cfs_index *index[STATES]; /* as it was then; or NULL */
	unsigned n;
};

static inline void name_of(unsigned k, char *out, size_t size)
{
	(void)snprintf(out, size, "key%u", k);
}

static inline void history_fini(struct history *h)
{
	unsigned i;

	for (i = 0; i < h->n; i++)
		if (h->index[i])
			cfs_index_close(h->index[i]);
}

/* ---- making history ---- */

static inline void del(struct bed *b, const char *name)
{
	struct cfs_key key;

	cfs_key_setting(&key, name);
	cfs_store_enter(b->store);
	ck_assert_int_eq(
		cfs_levels_del(cfs_store_levels(b->store), cfs_key_slice(&key)),
		0);
	cfs_store_leave(b->store);
}

/* A key that names a chunk; not if the chunk cannot be stored now. */
static inline void change_chunk(struct bed *b, struct history *h, unsigned k,
				uint64_t seed)
{
	size_t len = 1 + seed * 7919 % 30000;
	char name[16], hex[CFS_DIGEST_HEX];
	struct cfs_pending *p;
	struct cfs_digest d;
	int i, r;

	if (cfs_store_reserve(b->store, len, false) < 0)
		return;
	p = cfs_store_ingest(b->store, bed_bytes(seed, len), len, 0);
	ck_assert_ptr_nonnull(p);
	r = cfs_pending_wait(p, &d);
	for (i = 0; r < 0 && i < 2; i++)
		r = cfs_pending_wait(p, &d);
	cfs_pending_unref(p);
	if (r < 0)
		return;
	name_of(k, name, sizeof(name));
	(void)snprintf(h->now.value[k], sizeof(h->now.value[k]), "%llu %zu %s",
		       (unsigned long long)seed, len, cfs_digest_hex(&d, hex));
	bed_set(b, name, h->now.value[k]);
}

static inline void change(struct bed *b, struct history *h, uint64_t *state)
{
	unsigned k = (unsigned)(bed_random(state) % KEYS);
	char name[16];

	name_of(k, name, sizeof(name));
	if (bed_random(state) % 5 == 0) {
		h->now.value[k][0] = '\0';
		del(b, name);
	} else if (k >= KEYS - 4) {
		change_chunk(b, h, k, bed_random(state) % 40);
	} else {
		(void)snprintf(h->now.value[k], sizeof(h->now.value[k]), "%llx",
			       (unsigned long long)bed_random(state));
		bed_set(b, name, h->now.value[k]);
	}
}

static inline int commit(struct bed *b, struct history *h, bool keep_index)
{
	struct cfs_position at;
	unsigned i = h->n++;
	int r;

	ck_assert_uint_lt(i, STATES);
	h->states[i] = h->now;
	h->index[i] = NULL;
	r = i % 7 == 5 ? cfs_gc_snapshot(b->store, &at)
		       : cfs_store_commit(b->store);
	h->acked[i] = r == 0;
	h->acked_at[i] = cfs_engine_mem_events(b->engine);
	if (r == 0 && keep_index)
		h->index[i] = bed_index_copy(b->index);
	return r;
}

static inline void make_history(struct bed *b, struct history *h, uint64_t seed,
				bool keep_index)
{
	uint64_t state = seed * 2654435761u + 1;
	unsigned i, n;

	for (i = 0; i < 20; i++) {
		n = (unsigned)(bed_random(&state) % 6);
		while (n--)
			change(b, h, &state);
		(void)commit(b, h, keep_index);
	}
}

/* ---- looking at it ---- */

static inline void read_state(struct bed *b, struct state *out)
{
	char name[16];
	unsigned k;

	for (k = 0; k < KEYS; k++) {
		name_of(k, name, sizeof(name));
		ck_assert_int_lt(snprintf(out->value[k], sizeof(out->value[k]),
					  "%s", bed_get(b, name)),
				 (int)sizeof(out->value[k]));
	}
}

static inline void check_chunks(struct bed *b, const struct state *s)
{
	char hex[CFS_DIGEST_HEX];
	unsigned long long seed;
	struct cfs_digest d;
	size_t len;
	unsigned k;

	for (k = KEYS - 4; k < KEYS; k++) {
		if (!s->value[k][0])
			continue;
		ck_assert_int_eq(
			sscanf(s->value[k], "%llu %zu %64s", &seed, &len, hex),
			3);
		ck_assert_int_eq(cfs_digest_parse(hex, &d), 0);
		ck_assert_int_eq(bed_check_chunk(b, seed, len, &d), 0);
	}
}

static inline bool same(const struct state *a, const struct state *b)
{
	unsigned k;

	for (k = 0; k < KEYS; k++)
		if (strcmp(a->value[k], b->value[k]) != 0)
			return false;
	return true;
}

/* One of the states from @least on (0: the empty one). */
static inline void check_state(struct bed *b, const struct history *h,
			       unsigned least, const char *what)
{
	struct state is, empty;
	unsigned i;

	memset(&empty, 0, sizeof(empty));
	read_state(b, &is);
	check_chunks(b, &is);
	for (i = least; i <= h->n; i++)
		if (same(&is, i ? &h->states[i - 1] : &empty))
			return;
	ck_abort_msg("%s: a state it never had, or one before %u", what, least);
}

/* It goes on working. */
static inline void check_life(struct bed *b, const char *what)
{
	struct cfs_digest d;
	struct bed again;

	bed_set(b, "life", what);
	bed_store_chunk(b, 1234567, 5000, &d);
	ck_assert_int_eq(cfs_store_commit(b->store), 0);
	bed_open(&again, bed_disk(b), NULL);
	ck_assert_str_eq(bed_get(&again, "life"), what);
	ck_assert_int_eq(bed_check_chunk(&again, 1234567, 5000, &d), 0);
	ck_assert_int_eq(cfs_store_close(again.store), 0);
}

/* The commits acknowledged by then, counted from 1. */
static inline unsigned acked_by(const struct history *h, size_t events)
{
	unsigned i, n = 0;

	for (i = 0; i < h->n; i++)
		if (h->acked[i] && h->acked_at[i] <= events)
			n = i + 1;
	return n;
}

static inline struct cfs_index *some_index(const struct history *h,
					   unsigned acked, uint64_t *state)
{
	unsigned i;

	if (!acked || bed_random(state) % 2)
		return NULL;
	i = (unsigned)(bed_random(state) % acked);
	return h->index[i] ? bed_index_copy(h->index[i]) : NULL;
}

static inline void cut_power(struct bed *b, const struct history *h,
			     size_t events, uint64_t seed, uint64_t *state)
{
	unsigned acked = acked_by(h, events);
	struct cfs_index *index = some_index(h, acked, state);
	struct cfs_error err = {""};
	struct bed after;
	char what[200];
	int r;

	(void)snprintf(what, sizeof(what),
		       "power cut after %zu events, seed %llu, %s index",
		       events, (unsigned long long)seed,
		       index ? "an old" : "no");
	r = bed_try_open(
		&after, cfs_engine_mem_after_power_cut(b->engine, events, seed),
		index, &err);
	ck_assert_msg(r == 0, "%s: %d %s", what, r, err.text);
	check_state(&after, h, acked, what);
	if (bed_random(state) % 8 == 0)
		check_life(&after, what);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
}

#endif
