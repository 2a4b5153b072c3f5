/*
 * What a store is after power cuts, failing calls, and with an index that is
 * missing, behind, ahead or damaged: always a state it had, never one before
 * what was acknowledged, every chunk it names whole.
 */
#include <errno.h>
#include <stdlib.h>

#include "store/core/store_internal.h"
#include "store/util/endian.h"
#include "store/util/log.h"
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

static void name_of(unsigned k, char *out, size_t size)
{
	(void)snprintf(out, size, "key%u", k);
}

static void history_fini(struct history *h)
{
	unsigned i;

	for (i = 0; i < h->n; i++)
		if (h->index[i])
			cfs_index_close(h->index[i]);
}

/* ---- making history ---- */

static void del(struct bed *b, const char *name)
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
static void change_chunk(struct bed *b, struct history *h, unsigned k,
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

static void change(struct bed *b, struct history *h, uint64_t *state)
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

static int commit(struct bed *b, struct history *h, bool keep_index)
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

static void make_history(struct bed *b, struct history *h, uint64_t seed,
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

static void read_state(struct bed *b, struct state *out)
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

static void check_chunks(struct bed *b, const struct state *s)
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

static bool same(const struct state *a, const struct state *b)
{
	unsigned k;

	for (k = 0; k < KEYS; k++)
		if (strcmp(a->value[k], b->value[k]) != 0)
			return false;
	return true;
}

/* One of the states from @least on (0: the empty one). */
static void check_state(struct bed *b, const struct history *h, unsigned least,
			const char *what)
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
static void check_life(struct bed *b, const char *what)
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
static unsigned acked_by(const struct history *h, size_t events)
{
	unsigned i, n = 0;

	for (i = 0; i < h->n; i++)
		if (h->acked[i] && h->acked_at[i] <= events)
			n = i + 1;
	return n;
}

static struct cfs_index *some_index(const struct history *h, unsigned acked,
				    uint64_t *state)
{
	unsigned i;

	if (!acked || bed_random(state) % 2)
		return NULL;
	i = (unsigned)(bed_random(state) % acked);
	return h->index[i] ? bed_index_copy(h->index[i]) : NULL;
}

static void cut_power(struct bed *b, const struct history *h, size_t events,
		      uint64_t seed, uint64_t *state)
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

START_TEST(power_cuts)
{
	uint64_t state = 99 + (uint64_t)_i, seed;
	struct history h = {0};
	struct bed b;
	size_t events, all;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 1000 + (uint64_t)_i, true);
	all = cfs_engine_mem_events(b.engine);
	for (events = 0; events <= all; events += BED_STEP)
		for (seed = 0; seed < 6; seed++)
			cut_power(&b, &h, events, seed ? seed + events * 10 : 0,
				  &state);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Power fails again while the store comes back, and again. */
START_TEST(power_cuts_on_power_cuts)
{
	uint64_t state = 7 + (uint64_t)_i;
	struct history h = {0};
	struct bed b, next;
	unsigned round, acked;

	bed_open(&b, NULL, NULL);
	for (round = 0; round < 25; round++) {
		size_t events;
		unsigned n = 1 + (unsigned)(bed_random(&state) % 3);

		memset(&h, 0, sizeof(h));
		read_state(&b, &h.now);
		/* what it is now is there, acknowledged or not, once anything
		 * is */
		h.states[h.n] = h.now;
		h.acked[h.n] = round > 0;
		h.acked_at[h.n++] = 0;
		while (n--) {
			change(&b, &h, &state);
			change(&b, &h, &state);
			(void)commit(&b, &h, false);
		}
		events = cfs_engine_mem_events(b.engine);
		events = bed_random(&state) % (events + 1);
		acked = acked_by(&h, events);
		bed_open(&next,
			 cfs_engine_mem_after_power_cut(b.engine, events,
							bed_random(&state) | 1),
			 NULL);
		check_state(&next, &h, acked, "again");
		ck_assert_int_eq(cfs_store_close(b.store), 0);
		b = next;
	}
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- failing calls ---- */

static void fail_call(enum cfs_engine_call call, unsigned nth, int error)
{
	struct history h = {0};
	struct bed b, after;
	uint64_t state = 5;
	char what[100];
	size_t events;
	int r, i;

	(void)snprintf(what, sizeof(what), "call %d, number %u, error %d",
		       (int)call, nth, error);
	bed_open(&b, NULL, NULL);
	cfs_engine_mem_fail(b.engine, call, nth, error);
	make_history(&b, &h, 4711, false);
	/* works again, without a restart */
	r = commit(&b, &h, false);
	for (i = 0; r < 0 && i < 2; i++)
		r = commit(&b, &h, false);
	ck_assert_msg(r == 0, "%s: still %d", what, r);
	check_state(&b, &h, h.n, what);
	events = cfs_engine_mem_events(b.engine);
	for (i = 0; i < 12; i++)
		cut_power(&b, &h,
			  i ? bed_random(&state) % (events + 1) : events,
			  (uint64_t)i, &state);
	bed_open(&after, bed_disk(&b), bed_index_copy(b.index));
	check_state(&after, &h, h.n, what);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	cfs_engine_mem_fail(b.engine, call, 0, 0); /* not met by now */
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}

START_TEST(every_call_fails_once)
{
	static const enum cfs_engine_call calls[] = {
		CFS_ENGINE_WRITE, CFS_ENGINE_SYNC, CFS_ENGINE_CREATE,
		CFS_ENGINE_SEAL, CFS_ENGINE_REMOVE};
	unsigned nth, max = _i ? 30 : 110;

	for (nth = 1; nth <= max; nth += BED_STEP) {
		fail_call(calls[_i], nth, -ENOSPC);
		fail_call(calls[_i], nth, -EIO);
	}
}
END_TEST

START_TEST(a_failed_commit_says_so)
{
	struct cfs_digest d;
	struct bed b, after;

	bed_open(&b, NULL, NULL);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_set(&b, "a", "2");
	bed_store_chunk(&b, 8, 10000, &d);
	cfs_engine_mem_fail(b.engine, CFS_ENGINE_SYNC, 1, -EIO);
	ck_assert_int_eq(cfs_store_commit(b.store), -EIO);
	ck_assert_str_eq(bed_get(&b, "a"), "2");
	ck_assert_uint_eq(cfs_store_group(b.store), 1);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_uint_eq(cfs_store_group(b.store), 2);
	bed_open(&after, bed_disk(&b), NULL);
	ck_assert_str_eq(bed_get(&after, "a"), "2");
	ck_assert_int_eq(bed_check_chunk(&after, 8, 10000, &d), 0);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* A full disk: the reservation says so, deleting still commits. */
START_TEST(a_full_disk)
{
	struct cfs_digest d;
	struct bed b, after;
	/* others hold room all the while: it must not be spent twice */
	const uint64_t held = _i ? 200000 : 0;
	uint64_t n = 0;
	int r;

	bed_open(&b, NULL, NULL);
	cfs_engine_mem_limit(b.engine, 4u << 20);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_reserve(b.store, held, false), 0);
	for (;;) {
		r = cfs_store_reserve(b.store, 100000, false);
		if (r < 0)
			break;
		ck_assert_uint_lt(n, 100);
		struct cfs_pending *p = cfs_store_ingest(
			b.store, bed_bytes(2 * n++, 100000), 100000, 0);

		ck_assert_int_eq(cfs_pending_wait(p, &d), 0);
		cfs_pending_unref(p);
	}
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_uint_gt(n, 20);
	cfs_store_unreserve(b.store, held);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	del(&b, "a");
	ck_assert_int_eq(cfs_store_reserve(b.store, 1000, true), 0);
	cfs_store_unreserve(b.store, 1000);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_open(&after, bed_disk(&b), NULL);
	ck_assert_str_eq(bed_get(&after, "a"), "");
	ck_assert_int_eq(bed_check_chunk(&after, 2 * (n - 1), 100000, &d), 0);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- the index ---- */

static void reopen_with(struct bed *b, const struct history *h,
			struct cfs_index *index, const char *what)
{
	struct bed after;

	bed_open(&after, bed_disk(b), index);
	check_state(&after, h, h->n, what);
	check_life(&after, what);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
}

static char told[500];

static void hear(enum cfs_log_level level, const char *line)
{
	(void)level;
	(void)snprintf(told, sizeof(told), "%s", line);
}

START_TEST(index_anyhow)
{
	struct cfs_batch batch = CFS_BATCH_INIT;
	struct cfs_applied a = {0};
	struct history h = {0};
	struct cfs_index *index;
	struct cfs_key key;
	struct bed b, other;
	unsigned i;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 31, true);
	reopen_with(&b, &h, NULL, "missing");
	for (i = 0; i < h.n; i++)
		reopen_with(&b, &h, bed_index_copy(h.index[i]), "behind");
	/* ahead: it claims a group that the log does not have */
	index = bed_index_copy(b.index);
	a.group = cfs_store_group(b.store) + 3;
	a.from = cfs_packs_end(b.store->packs);
	cfs_applied_put(&batch, &a);
	cfs_key_setting(&key, "key0");
	cfs_batch_put(&batch, cfs_key_slice(&key), (struct cfs_slice){"?", 1});
	ck_assert_int_eq(index->ops->commit(index, &batch), 0);
	told[0] = '\0';
	cfs_log_set_sink(hear, CFS_LOG_ERR);
	reopen_with(&b, &h, index, "ahead");
	cfs_log_set_sink(NULL, CFS_LOG_ERR);
	ck_assert_msg(strstr(told, "is not there"), "%s", told);
	/* the same number, but of another store's history */
	cfs_batch_fini(&batch);
	batch = (struct cfs_batch)CFS_BATCH_INIT;
	index = bed_index_copy(b.index);
	a.group = cfs_store_group(b.store);
	cfs_applied_put(&batch, &a);
	ck_assert_int_eq(index->ops->commit(index, &batch), 0);
	reopen_with(&b, &h, index, "of another log");
	/* a position in a pack that is not there */
	cfs_batch_fini(&batch);
	batch = (struct cfs_batch)CFS_BATCH_INIT;
	index = bed_index_copy(b.index);
	a.from.pack = 99999;
	cfs_applied_put(&batch, &a);
	ck_assert_int_eq(index->ops->commit(index, &batch), 0);
	reopen_with(&b, &h, index, "of a pack that is gone");
	cfs_batch_fini(&batch);
	/* nonsense */
	index = cfs_index_mem_new();
	cfs_key_applied(&key);
	cfs_batch_put(&batch, cfs_key_slice(&key), (struct cfs_slice){"?", 1});
	ck_assert_int_eq(index->ops->commit(index, &batch), 0);
	reopen_with(&b, &h, index, "nonsense");
	cfs_batch_fini(&batch);
	/* an index of an empty store */
	bed_open(&other, NULL, NULL);
	reopen_with(&b, &h, bed_index_copy(other.index), "empty");
	ck_assert_int_eq(cfs_store_close(other.store), 0);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- an index without room ---- */

struct flaky {
	struct cfs_index base;
	struct cfs_index *real;
	unsigned fail; /* so many commits fail */
};

static int flaky_get(struct cfs_index *index, struct cfs_slice key,
		     struct cfs_buf *val_out)
{
	struct flaky *f = container_of(index, struct flaky, base);

	return f->real->ops->get(f->real, key, val_out);
}

static int flaky_commit(struct cfs_index *index, const struct cfs_batch *batch)
{
	struct flaky *f = container_of(index, struct flaky, base);

	if (f->fail) {
		f->fail--;
		return -ENOSPC;
	}
	return f->real->ops->commit(f->real, batch);
}

static int flaky_iter(struct cfs_index *index, struct cfs_slice prefix,
		      struct cfs_slice from, struct cfs_index_iter **out)
{
	struct flaky *f = container_of(index, struct flaky, base);

	return f->real->ops->iter_new(f->real, prefix, from, out);
}

static void flaky_close(struct cfs_index *index)
{
	struct flaky *f = container_of(index, struct flaky, base);

	cfs_index_close(f->real);
	free(f);
}

static const struct cfs_index_ops flaky_ops = {
	.get = flaky_get,
	.commit = flaky_commit,
	.iter_new = flaky_iter,
	.close = flaky_close,
};

/* The log has the group, so it is acknowledged; the index gets it later. */
START_TEST(an_index_without_room)
{
	struct flaky *f = calloc(1, sizeof(*f));
	struct cfs_digest d;
	struct bed b, after;
	int i;

	ck_assert_ptr_nonnull(f);
	f->base.ops = &flaky_ops;
	f->real = cfs_index_mem_new();
	bed_open(&b, NULL, &f->base);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	f->fail = 2;
	bed_set(&b, "a", "2");
	bed_store_chunk(&b, 8, 10000, &d);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_set(&b, "b", "3");
	ck_assert_int_eq(cfs_store_commit(b.store), -ENOSPC);
	for (i = 0; i < 2; i++) {
		bed_open(&after, bed_disk(&b), bed_index_copy(f->real));
		ck_assert_str_eq(bed_get(&after, "a"), "2");
		ck_assert_str_eq(bed_get(&after, "b"), i ? "3" : "");
		ck_assert_int_eq(bed_check_chunk(&after, 8, 10000, &d), 0);
		ck_assert_int_eq(cfs_store_close(after.store), 0);
		ck_assert_str_eq(bed_get(&b, "a"), "2");
		ck_assert_str_eq(bed_get(&b, "b"), "3");
		ck_assert_int_eq(cfs_store_commit(b.store), 0);
	}
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* An index that is behind may name a pack that gc has removed since: such a
 * key is no reason to believe that a chunk is there. */
START_TEST(dedup_looks_at_the_record)
{
	struct cfs_object_value v = {
		.pack = 77, .off = 200, .stored_len = 100, .raw_len = 5000};
	struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_digest d;
	struct cfs_key key;
	uint8_t *data = bed_bytes(6, 5000);
	struct bed b, after;

	bed_open(&b, NULL, NULL);
	cfs_digest_of(data, 5000, &d);
	free(data);
	cfs_key_chunk(&key, &d);
	cfs_object_encode(&v, &buf);
	ck_assert_int_eq(cfs_levels_put(b.store->levels, cfs_key_slice(&key),
					(struct cfs_slice){buf.data, buf.len}),
			 0);
	cfs_buf_free(&buf);
	ck_assert_int_eq(cfs_store_touch_chunk(b.store, &d), -ENOENT);
	bed_store_chunk(&b, 6, 5000, &d);
	ck_assert_int_eq(bed_check_chunk(&b, 6, 5000, &d), 0);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_open(&after, bed_disk(&b), NULL);
	ck_assert_int_eq(bed_check_chunk(&after, 6, 5000, &d), 0);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- damage to the log ---- */

/* Any byte of the log before the last group: an error or all that was synced,
 * never an older state. */
START_TEST(damage_is_no_crash)
{
	uint64_t state = 17 + (uint64_t)_i;
	struct history h = {0};
	struct bed b, after;
	unsigned refused = 0, i;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 2000 + (uint64_t)_i, false);
	for (i = 0; i < 600 / BED_STEP; i++) {
		struct cfs_position end = cfs_packs_end(b.store->packs);
		struct cfs_engine *engine = bed_disk(&b);
		struct cfs_error err = {""};
		struct cfs_pack_id id = {0, 1};
		uint8_t *bytes;
		size_t len, off;
		int r;

		id.number += (uint32_t)(bed_random(&state) % end.pack);
		bytes = cfs_engine_mem_bytes(engine, id, &len);
		if (!bytes || !len) {
			cfs_engine_close(engine);
			continue;
		}
		if (id.number == end.pack)
			len = end.off;
		off = bed_random(&state) % len;
		bytes[off] ^= (uint8_t)(1u << (bed_random(&state) % 8));
		r = bed_try_open(&after, engine, NULL, &err);
		if (r < 0) {
			refused++;
			ck_assert_msg(r == -EBADMSG || r == -EPROTONOSUPPORT,
				      "%d %s", r, err.text);
			ck_assert_msg(strstr(err.text, "pack"), "%s", err.text);
			continue;
		}
		struct state is;

		read_state(&after, &is);
		ck_assert_msg(same(&is, &h.now),
			      "byte %zu of pack %u: an older state", off,
			      id.number);
		(void)cfs_store_close(after.store);
	}
	ck_assert_uint_gt(refused, 10 / BED_STEP);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- every byte ---- */

struct small {
	struct cfs_digest chunks[2], map;
	struct cfs_index *index;
	struct cfs_engine *disk;
};
static const size_t small_len[2] = {700, 2500};

/* Two packs, three groups, two chunks and a map; closed. */
static void small_make(struct small *s)
{
	struct cfs_content_map map = {.size = 700, .count = 1};
	struct cfs_extent e = {.len = 700, .chunk_len = 700};
	struct bed b;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 2, small_len[0], &s->chunks[0]);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_packs_roll(b.store->packs), 0);
	bed_store_chunk(&b, 3, small_len[1], &s->chunks[1]);
	e.digest = s->chunks[0];
	map.extents = &e;
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &s->map), 0);
	bed_set(&b, "a", "2");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_set(&b, "a", "3");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	s->index = bed_index_copy(b.index);
	s->disk = bed_disk(&b);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}

static struct cfs_engine *small_copy(const struct small *s)
{
	struct cfs_engine *e = cfs_engine_mem_after_power_cut(
		s->disk, cfs_engine_mem_events(s->disk), 0);

	ck_assert_ptr_nonnull(e);
	return e;
}

static void check_error(int r, const char *what)
{
	ck_assert_msg(r == 0 || r == -EBADMSG || r == -EIO || r == -ENOENT,
		      "%s: %d", what, r);
}

/* Right bytes, or an error; takes @engine.  1 if it was refused. */
static unsigned small_check(const struct small *s, struct cfs_engine *engine,
			    bool index, bool older, const char *what)
{
	struct cfs_content_map map = {0};
	struct cfs_error err = {""};
	struct bed b;
	int r = bed_try_open(&b, engine,
			     index ? bed_index_copy(s->index) : NULL, &err);

	if (r < 0) {
		ck_assert_msg(r == -EBADMSG || r == -EPROTONOSUPPORT,
			      "%s: %d %s", what, r, err.text);
		ck_assert_msg(strstr(err.text, "pack"), "%s: %s", what,
			      err.text);
		return 1;
	}
	if (!older)
		ck_assert_msg(!strcmp(bed_get(&b, "a"), "3"), "%s: %s", what,
			      bed_get(&b, "a"));
	for (unsigned i = 0; i < 2; i++)
		check_error(
			bed_check_chunk(&b, 2 + i, small_len[i], &s->chunks[i]),
			what);
	r = cfs_store_get_map(b.store, &s->map, &map);
	check_error(r, what);
	if (r == 0)
		ck_assert_int_eq(
			cfs_digest_cmp(&map.extents[0].digest, &s->chunks[0]),
			0);
	cfs_content_map_fini(&map);
	(void)cfs_store_close(b.store);
	return 0;
}

/* With the index, and without.  What is cut where a record ends looks like a
 * crash, so it may be an older state then. */
START_TEST(every_byte_flipped_or_cut)
{
	const bool index = _i & 1, cut = _i & 2;
	unsigned refused = 0, tried = 0;
	struct small s;

	small_make(&s);
	for (uint32_t n = 1; n <= 2; n++) {
		const struct cfs_pack_id id = {0, n};
		size_t len;

		ck_assert_ptr_nonnull(cfs_engine_mem_bytes(s.disk, id, &len));
		for (size_t at = 0; at < len; at += BED_STEP) {
			struct cfs_engine *e = small_copy(&s);
			char what[64];

			if (cut)
				cfs_engine_mem_cut(e, id, at);
			else
				cfs_engine_mem_bytes(e, id, &len)[at] ^=
					(uint8_t)(1u << at % 8);
			(void)snprintf(what, sizeof(what), "pack %u %s at %zu",
				       n, cut ? "cut" : "flipped", at);
			refused +=
				small_check(&s, e, index, cut && n == 2, what);
			tried++;
		}
	}
	ck_assert_uint_gt(tried, 2500 / BED_STEP);
	/* the index knows where all is */
	ck_assert(refused || (index && cut));
	cfs_index_close(s.index);
	cfs_engine_close(s.disk);
}
END_TEST

/* A GROUP record of a number that is there already replaces it. */
START_TEST(a_group_written_twice)
{
	static const struct cfs_digest none;
	struct cfs_batcher one, two;
	struct cfs_digest digest;
	struct cfs_key key;
	struct cfs_slice val = {"old", 3};
	struct bed b, after;
	int i;

	bed_open(&b, NULL, NULL);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	cfs_key_setting(&key, "a");
	ck_assert_int_eq(cfs_batcher_init(&one, b.store, 0), 0);
	ck_assert_int_eq(cfs_batcher_add(&one, cfs_key_slice(&key), &val), 0);
	ck_assert_int_eq(cfs_batcher_end(&one, &digest), 0);
	/* an attempt that ended before its GROUP record */
	ck_assert_int_eq(cfs_batcher_init(&two, b.store, 0), 0);
	two.batch = (struct cfs_batch)CFS_BATCH_INIT;
	{
		uint8_t lost[8 + 1 + 2 + 1] = {0};

		cfs_put_le64(lost, two.group.number);
		ck_assert_int_eq(cfs_append_record(b.store, CFS_RECORD_BATCH,
						   0x80, &none, 0, lost,
						   sizeof(lost), false, NULL,
						   NULL),
				 0);
	}
	val = (struct cfs_slice){"new", 3};
	ck_assert_int_eq(cfs_batcher_add(&two, cfs_key_slice(&key), &val), 0);
	ck_assert_int_eq(cfs_batcher_end(&two, &digest), 0);
	ck_assert_int_eq(cfs_packs_sync(b.store->packs), 0);
	for (i = 0; i < 2; i++) {
		bed_open(&after, bed_disk(&b),
			 i ? bed_index_copy(b.index) : NULL);
		ck_assert_str_eq(bed_get(&after, "a"), "new");
		ck_assert_uint_eq(cfs_store_group(after.store), 2);
		check_life(&after, "twice");
		ck_assert_int_eq(cfs_store_close(after.store), 0);
	}
	cfs_batcher_fini(&one);
	cfs_batcher_fini(&two);
	(void)cfs_store_close(b.store);
}
END_TEST

/* The index stopped at a snapshot's group, and is lost later on: the snapshot
 * that packs name since must be that one's, not what came before it. */
START_TEST(an_index_that_stopped_at_a_snapshot)
{
	struct cfs_position at, named;
	struct cfs_index *index;
	struct bed b, c, after;

	bed_open(&b, NULL, NULL);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_set(&b, "b", "2");
	ck_assert_int_eq(
		cfs_group_commit(b.store, CFS_WISH_GROUP | CFS_WISH_SNAPSHOT),
		0);
	at = b.store->snapshot_at;
	index = bed_index_copy(b.index);
	bed_open(&c, bed_disk(&b), index);
	named = c.store->recovered_snapshot;
	ck_assert_uint_eq(named.pack, at.pack);
	ck_assert_uint_eq(named.off, at.off);
	bed_set(&c, "c", "3");
	ck_assert_int_eq(cfs_store_commit(c.store), 0);
	bed_open(&after, bed_disk(&c), NULL);
	ck_assert_str_eq(bed_get(&after, "a"), "1");
	ck_assert_str_eq(bed_get(&after, "b"), "2");
	ck_assert_str_eq(bed_get(&after, "c"), "3");
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	ck_assert_int_eq(cfs_store_close(c.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* What the last commit could not sync is written again while closing. */
START_TEST(closing_after_a_failed_sync)
{
	struct cfs_engine *disk;
	struct cfs_digest d;
	struct bed b, after;

	bed_open(&b, NULL, NULL);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_store_chunk(&b, 4, 20000, &d);
	bed_set(&b, "a", "2");
	disk = bed_disk(&b);
	cfs_engine_mem_fail(b.engine, CFS_ENGINE_SYNC, 1, -EIO);
	ck_assert_int_eq(cfs_store_close(b.store), -EIO);
	bed_open(&after, disk, NULL);
	ck_assert_str_eq(bed_get(&after, "a"), "1");
	ck_assert_int_eq(cfs_store_close(after.store), 0);
}
END_TEST

/* A write-back error may take pages with it: a commit must not say that all is
 * well when bytes that were taken are nowhere. */
START_TEST(lost_bytes_are_told)
{
	struct cfs_chunk_facts f;
	struct cfs_digest d;
	struct bed b;
	uint8_t *bytes;
	size_t n;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 4, 20000, &d);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &f), 0);
	cfs_engine_mem_fail(b.engine, CFS_ENGINE_SYNC, 1, -EIO);
	/* the sync thread's: nobody hears of it */
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_group_commit(b.store, 0), -EIO);
	bytes = cfs_engine_mem_bytes(b.engine,
				     (struct cfs_pack_id){0, f.place.pack}, &n);
	ck_assert_ptr_nonnull(bytes);
	memset(bytes + f.place.off, 0, f.place.stored_len);
	ck_assert_int_eq(cfs_group_commit(b.store, 0), 0);
	ck_assert_int_eq(cfs_store_commit(b.store), -EIO);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	/* and nothing is taken for a copy of them */
	ck_assert_int_eq(bed_check_chunk(&b, 4, 20000, &d), -ENOENT);
	bed_store_chunk(&b, 4, 20000, &d);
	ck_assert_int_eq(bed_check_chunk(&b, 4, 20000, &d), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* gc copied it, and a failed sync took the copy: the old one is there. */
START_TEST(a_lost_copy_is_not_all)
{
	struct cfs_object_value from, now;
	struct cfs_record record;
	struct cfs_digest d;
	struct bed b, after;
	uint8_t *bytes;
	size_t n;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 4, 20000, &d);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	if (_i)
		ck_assert_int_eq(cfs_packs_roll(b.store->packs), 0);
	ck_assert_int_eq(cfs_object_locate(b.store, false, &d, &from), 0);
	ck_assert_int_eq(cfs_packs_record(b.store->packs,
					  cfs_object_place(&from), &record),
			 0);
	ck_assert_int_eq(cfs_gc_move(b.store, &record, &from), 1);
	ck_assert_int_eq(cfs_object_locate(b.store, false, &d, &now), 0);
	ck_assert(!cfs_object_value_eq(&now, &from));
	bytes = cfs_engine_mem_bytes(b.engine,
				     (struct cfs_pack_id){0, now.pack}, &n);
	memset(bytes + now.off, 0, now.stored_len);
	cfs_engine_mem_fail(b.engine, CFS_ENGINE_SYNC, 1, -EIO);
	ck_assert_int_eq(cfs_store_commit(b.store), -EIO);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(bed_check_chunk(&b, 4, 20000, &d), 0);
	ck_assert_int_eq(cfs_object_locate(b.store, false, &d, &now), 0);
	ck_assert(cfs_object_value_eq(&now, &from));
	bed_open(&after, bed_disk(&b), bed_index_copy(b.index));
	ck_assert_int_eq(bed_check_chunk(&after, 4, 20000, &d), 0);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static int count_chunk(void *arg, const struct cfs_record *record,
		       struct cfs_place place, struct cfs_position at)
{
	unsigned *n = arg;

	(void)place;
	(void)at;
	*n += record->type == CFS_RECORD_CHUNK;
	return 0;
}

/* Of a pack without a footer, one byte hides one record. */
START_TEST(behind_a_damaged_head)
{
	const struct cfs_pack_id id = {0, 1};
	struct cfs_chunk_facts f;
	struct cfs_error err = {""};
	struct cfs_digest d[6];
	struct cfs_packs_options options = {.pack_bytes = 256u << 10};
	struct cfs_packs *packs = NULL;
	struct cfs_engine *disk;
	unsigned seen = 0;
	struct bed b;
	size_t n;

	bed_open(&b, NULL, NULL);
	for (unsigned i = 0; i < 6; i++)
		bed_store_chunk(&b, 2 * i, 5000, &d[i]);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d[2], &f), 0);
	disk = bed_disk(&b);
	cfs_engine_mem_bytes(disk, id, &n)[f.place.off - 72 + _i] ^= 4;
	ck_assert_int_eq(cfs_packs_open(disk, &options, &packs, &err), 0);
	ck_assert_int_eq(cfs_packs_objects(packs, id, count_chunk, &seen, &err),
			 0);
	ck_assert_uint_eq(seen, 5);
	cfs_packs_close(packs);
	cfs_engine_close(disk);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("recovery");
	TCase *t = tcase_create("recovery");

	tcase_add_loop_test(t, power_cuts, 0, 4);
	tcase_add_loop_test(t, power_cuts_on_power_cuts, 0, 6);
	tcase_add_loop_test(t, every_call_fails_once, 0, 5);
	tcase_add_test(t, a_failed_commit_says_so);
	tcase_add_loop_test(t, a_full_disk, 0, 2);
	tcase_add_test(t, index_anyhow);
	tcase_add_test(t, an_index_without_room);
	tcase_add_test(t, dedup_looks_at_the_record);
	tcase_add_loop_test(t, damage_is_no_crash, 0, 3);
	tcase_add_loop_test(t, every_byte_flipped_or_cut, 0, 4);
	tcase_add_test(t, a_group_written_twice);
	tcase_add_test(t, an_index_that_stopped_at_a_snapshot);
	tcase_add_test(t, closing_after_a_failed_sync);
	tcase_add_test(t, lost_bytes_are_told);
	tcase_add_loop_test(t, behind_a_damaged_head, 0, 72);
	tcase_add_loop_test(t, a_lost_copy_is_not_all, 0, 2);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
