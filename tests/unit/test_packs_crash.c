/* The log after power cuts and failed calls, and with any byte flipped. */
#include "store/pack/packs.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "tests/unit/packs_writer.h"

/* After a power cut: only what was written, all that was acknowledged; and the
 * log goes on from there. */
static void check_cut(struct writer *w, size_t events, uint64_t seed)
{
	struct cfs_engine *cut =
		cfs_engine_mem_after_power_cut(w->engine, events, seed);
	static struct seen s, again;
	struct cfs_scan_end end;
	struct cfs_packs *packs;
	struct cfs_position at = {0, 0};
	struct cfs_error err = {.text = ""};
	uint8_t byte = 9;
	struct iovec iov = {&byte, 1};

	ck_assert_ptr_nonnull(cut);
	ck_assert_int_eq(scan(&s, cut, w, &packs, &end), 0);
	check_acked(w, s.there, events);
	ck_assert_msg(cfs_packs_start(packs, end.at, at, &err) == 0, "%s",
		      err.text);
	ck_assert_int_eq(cfs_packs_append(packs, CFS_RECORD_SYNCED, 0, NULL, 0,
					  &iov, 1, NULL, NULL),
			 0);
	ck_assert_int_eq(cfs_packs_sync(packs), 0);
	cfs_packs_close(packs);
	/* and once more: what was cut off stays cut off */
	again = (struct seen){.w = w};
	ck_assert_int_eq(cfs_packs_open(cut, &small, &packs, &err), 0);
	again.packs = packs;
	ck_assert_int_eq(
		cfs_packs_scan_objects(packs, end.at, look, &again, &err), 0);
	for (uint32_t i = 1; i < w->n; i++)
		if (again.there[i])
			ck_assert(w->items[i].type == CFS_RECORD_CHUNK ||
				  w->items[i].type == CFS_RECORD_MAP);
	for (uint32_t i = 1; i < w->n; i++)
		if (w->items[i].acked && w->acked_at[i] <= events &&
		    (w->items[i].type == CFS_RECORD_CHUNK ||
		     w->items[i].type == CFS_RECORD_MAP))
			ck_assert(again.there[i]);
	cfs_packs_close(packs);
	cfs_engine_close(cut);
}

START_TEST(test_power_cuts)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	uint64_t seed = (uint64_t)time(NULL);

	(void)printf("seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(commit(w, 7, 12000), 0);
	for (size_t e = 0; e <= cfs_engine_mem_events(engine); e++)
		for (uint64_t k = 0; k < 5; k++)
			check_cut(w, e, k ? seed + 31 * e + k : 0);
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

#define CUT_STEP (TEST_STEP > 1 ? TEST_STEP : 3)

/* Each call of each kind fails once: the writer gets through, nothing that was
 * acknowledged is lost, nothing that was given up is seen. */
static void fail_one(enum cfs_engine_call call, unsigned nth, int error,
		     uint64_t seed)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	static struct seen s;
	struct cfs_scan_end end;
	struct cfs_packs *packs;

	cfs_engine_mem_fail(engine, call, nth, error);
	for (int i = 0; i < 6; i++)
		ck_assert_int_eq(commit(w, 7, 9000), 0);
	for (uint32_t i = 1; i < w->n; i++)
		if (w->items[i].place.pack.number)
			ck_assert_int_eq(verify(w, i), 0);
	ck_assert_int_eq(scan(&s, engine, w, &packs, &end), 0);
	ck_assert_int_eq(end.why, CFS_SCAN_END);
	check_acked(w, s.there, SIZE_MAX);
	ck_assert_uint_eq(s.groups, 6);
	for (uint32_t i = 1; i < w->n; i++)
		if (w->items[i].type == CFS_RECORD_BATCH ||
		    w->items[i].type == CFS_RECORD_GROUP)
			ck_assert_int_eq(s.there[i], w->items[i].acked);
	cfs_packs_close(packs);
	/* begun elsewhere each time, so that all are met in the end */
	for (size_t e = nth % CUT_STEP; e <= cfs_engine_mem_events(engine);
	     e += CUT_STEP)
		check_cut(w, e, seed + e);
	writer_free(w);
	cfs_engine_close(engine);
}

START_TEST(test_failures)
{
	static const struct {
		enum cfs_engine_call call;
		unsigned upto;
		int error;
	} plan[] = {
		{CFS_ENGINE_WRITE, 75, -EIO}, {CFS_ENGINE_WRITE, 75, -ENOSPC},
		{CFS_ENGINE_SYNC, 12, -EIO},  {CFS_ENGINE_CREATE, 6, -ENOSPC},
		{CFS_ENGINE_CREATE, 6, -EIO}, {CFS_ENGINE_SEAL, 6, -EIO},
		{CFS_ENGINE_REMOVE, 2, -EIO}};
	uint64_t seed = (uint64_t)time(NULL);

	(void)printf("seed %llu\n", (unsigned long long)seed);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(plan); i++)
		for (unsigned nth = 1; nth <= plan[i].upto; nth++)
			fail_one(plan[i].call, nth, plan[i].error, seed + nth);
}
END_TEST

/* Threads append while writes and syncs fail: whoever is told of places in the
 * order they are told has every record in the end. */
struct crowd {
	struct writer *w;
	pthread_mutex_t lock; /* guards the items' places */
};

static void crowd_appended(void *arg, const struct cfs_record *record,
			   struct cfs_place place)
{
	struct crowd *crowd = arg;
	uint8_t raw[12];

	(void)record;
	ck_assert_int_eq(
		cfs_packs_read(crowd->w->packs, place, 0, raw, sizeof(raw)), 0);
	pthread_mutex_lock(&crowd->lock);
	crowd->w->items[cfs_get_le32(raw + 8)].place = place;
	pthread_mutex_unlock(&crowd->lock);
}

static void crowd_moved(void *arg, const struct cfs_record *record,
			struct cfs_place from, struct cfs_place to)
{
	struct crowd *crowd = arg;

	pthread_mutex_lock(&crowd->lock);
	moved(crowd->w, record, from, to);
	pthread_mutex_unlock(&crowd->lock);
}

struct member {
	struct crowd *crowd;
	uint32_t first, count;
};

static void *work(void *arg)
{
	const struct member *m = arg;
	struct writer *w = m->crowd->w;

	for (uint32_t i = m->first; i < m->first + m->count; i++) {
		const struct item *item = &w->items[i];
		struct iovec iov = {item->data, item->len};
		int r;

		do
			r = cfs_packs_append(w->packs, CFS_RECORD_CHUNK, 0,
					     &item->digest, 2 * item->len, &iov,
					     1, NULL, NULL);
		while (r < 0);
	}
	return NULL;
}

START_TEST(test_threads_failing)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	struct crowd crowd = {w, PTHREAD_MUTEX_INITIALIZER};
	struct member members[4];
	pthread_t threads[4];
	int failed = 0;

	cfs_packs_on_appended(w->packs, crowd_appended, &crowd);
	cfs_packs_on_moved(w->packs, crowd_moved, &crowd);
	for (uint32_t t = 0; t < 4; t++) {
		members[t] = (struct member){&crowd, w->n, 250};
		for (uint32_t i = 0; i < members[t].count; i++)
			(void)item_new(w, CFS_RECORD_CHUNK,
				       12 + mix(i * 4 + t) % 4000);
	}
	for (int t = 0; t < 4; t++)
		ck_assert_int_eq(
			pthread_create(&threads[t], NULL, work, &members[t]),
			0);
	for (unsigned i = 0; i < 60; i++) {
		cfs_engine_mem_fail(engine,
				    i % 3 ? CFS_ENGINE_WRITE : CFS_ENGINE_SYNC,
				    1 + i % 7, -EIO);
		failed += cfs_packs_sync(w->packs) < 0;
	}
	ck_assert_int_gt(failed, 0);
	for (int t = 0; t < 4; t++)
		(void)pthread_join(threads[t], NULL);
	cfs_engine_mem_fail(engine, CFS_ENGINE_WRITE, 0, 0);
	cfs_engine_mem_fail(engine, CFS_ENGINE_SYNC, 0, 0);
	ck_assert_int_eq(cfs_packs_sync(w->packs), 0);
	for (uint32_t i = 1; i < w->n; i++)
		ck_assert_int_eq(verify(w, i), 0);
	ack(w, w->n);
	for (uint64_t seed = 1; seed < 5; seed++)
		check_cut(w, cfs_engine_mem_events(engine), seed);
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

/* Every byte of a small log, one at a time: what verifies is right, and what
 * was lost from the end is known to be damage by the SYNCED record. */
START_TEST(test_flips)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	static struct seen s;
	struct cfs_scan_end end;
	struct cfs_packs *packs;
	uint8_t synced[8], *bytes;
	struct iovec iov = {synced, 8};
	struct cfs_pack_id id = {0, 1};
	size_t len, damaged = 0, last;
	int r;

	ck_assert_int_eq(commit(w, 3, 200), 0);
	cfs_put_le64(synced, 1);
	last = cfs_packs_end(w->packs).off;
	ck_assert_int_eq(cfs_packs_append(w->packs, CFS_RECORD_SYNCED, 0, NULL,
					  0, &iov, 1, NULL, NULL),
			 0);
	cfs_packs_close(w->packs);
	w->packs = NULL;
	bytes = cfs_engine_mem_bytes(engine, id, &len);
	for (size_t i = 0; i < len; i++) {
		bytes[i] ^= 0x10;
		packs = NULL;
		*(&s) = (struct seen){.w = w};
		r = cfs_packs_open(engine, &small, &packs, NULL);
		if (r == 0) {
			s.packs = packs;
			r = cfs_packs_scan(packs, (struct cfs_position){0, 0},
					   /* its SYNCED is no item */
					   NULL, NULL, &end, NULL);
			ck_assert_int_eq(r, 0);
			r = cfs_packs_scan_objects(packs, end.at, look, &s,
						   NULL);
			ck_assert_int_eq(r, 0);
			if (i < last && end.at.off < last) {
				ck_assert_uint_eq(end.synced, 1);
				ck_assert_uint_eq(end.synced_pack, 1);
				damaged++;
			}
		}
		cfs_packs_close(packs);
		bytes[i] ^= 0x10;
	}
	ck_assert_uint_gt(damaged, 1000);
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("packs_crash");
	TCase *t = tcase_create("packs_crash");

	tcase_add_test(t, test_power_cuts);
	tcase_add_test(t, test_failures);
	tcase_add_test(t, test_threads_failing);
	tcase_add_test(t, test_flips);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
