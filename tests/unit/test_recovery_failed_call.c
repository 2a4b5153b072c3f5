/*
 * What a store is after calls that failed, a full disk among them: it says so,
 * goes on, and has lost nothing that was acknowledged.
 */
#include "tests/unit/history_bed.h"

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

	for (nth = 1; nth <= max; nth += TEST_STEP) {
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

static Suite *suite(void)
{
	Suite *s = suite_create("recovery_failed_call");
	TCase *t = tcase_create("recovery_failed_call");

	tcase_add_loop_test(t, every_call_fails_once, 0, 5);
	tcase_add_test(t, a_failed_commit_says_so);
	tcase_add_loop_test(t, a_full_disk, 0, 2);
	tcase_add_test(t, closing_after_a_failed_sync);
	tcase_add_test(t, lost_bytes_are_told);
	tcase_add_loop_test(t, a_lost_copy_is_not_all, 0, 2);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
