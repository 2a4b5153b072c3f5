/* The log: round trips, threads, refusals, room. */
#include "store/pack/packs.h"

#include <pthread.h>
#include <stdatomic.h>

#include "store/pack/layout.h"
#include "store/util/hash.h"
#include "tests/unit/packs_writer.h"

START_TEST(test_record)
{
	struct cfs_record in = {.type = CFS_RECORD_CHUNK,
				.flags = 3,
				.lane = 0x1234,
				.number = 0x123456789abcdef0u,
				.payload_len = CFS_RECORD_MAX,
				.raw_len = 77,
				.digest = {{1, 2, 3}},
				.payload_hash = 0xfedcba9876543210u};
	uint8_t raw[CFS_RECORD_HEAD_BYTES], again[CFS_RECORD_HEAD_BYTES];
	struct cfs_record out;

	cfs_record_encode(&in, 5, raw);
	ck_assert_int_eq(cfs_record_decode(raw, sizeof(raw), 5, &out), 0);
	cfs_record_encode(&out, 5, again);
	ck_assert_int_eq(memcmp(raw, again, sizeof(raw)), 0);
	ck_assert_uint_eq(out.number, in.number);
	ck_assert_int_eq(cfs_record_decode(raw, 71, 5, &out), -EBADMSG);
	/* of another store */
	ck_assert_int_eq(cfs_record_decode(raw, sizeof(raw), 6, &out),
			 -EBADMSG);
	for (size_t i = 0; i < sizeof(raw) * 8; i++) {
		raw[i / 8] ^= (uint8_t)(1u << i % 8);
		ck_assert_int_eq(cfs_record_decode(raw, sizeof(raw), 5, &out),
				 -EBADMSG);
		raw[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	in.payload_len++;
	cfs_record_encode(&in, 5, raw);
	ck_assert_int_eq(cfs_record_decode(raw, sizeof(raw), 5, &out),
			 -EBADMSG);
	in.payload_len = 1;
	in.type = (enum cfs_record_type)99;
	cfs_record_encode(&in, 5, raw);
	ck_assert_int_eq(cfs_record_decode(raw, sizeof(raw), 5, &out), 0);
	in.flags = CFS_RECORD_MUST_KNOW;
	cfs_record_encode(&in, 5, raw);
	ck_assert_int_eq(cfs_record_decode(raw, sizeof(raw), 5, &out),
			 -EPROTONOSUPPORT);
}
END_TEST

START_TEST(test_round_trip)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	static struct seen s;
	struct cfs_scan_end end;
	struct cfs_packs *packs;
	struct cfs_record record;

	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(commit(w, 8, 6000), 0);
	/* one record larger than a pack */
	ck_assert_int_eq(append(w, item_new(w, CFS_RECORD_CHUNK, 3 << 20)), 0);
	ck_assert_int_eq(commit(w, 1, 100), 0);
	ck_assert_uint_eq(cfs_packs_unsynced(w->packs), 0);
	for (uint32_t i = 1; i < w->n; i++) {
		uint8_t *data = malloc(w->items[i].len);
		uint8_t *want = malloc(w->items[i].len);

		ck_assert_int_eq(cfs_packs_read(w->packs, w->items[i].place, 5,
						data + 5, w->items[i].len - 5),
				 0);
		fill(want, w->items[i].len, i);
		ck_assert_int_eq(
			memcmp(data + 5, want + 5, w->items[i].len - 5), 0);
		ck_assert_int_eq(
			cfs_packs_record(w->packs, w->items[i].place, &record),
			0);
		ck_assert_int_eq(record.type, w->items[i].type);
		free(data);
		free(want);
	}
	cfs_packs_close(w->packs);
	w->packs = NULL;
	ck_assert_int_eq(scan(&s, engine, w, &packs, &end), 0);
	ck_assert_int_eq(end.why, CFS_SCAN_END);
	ck_assert_uint_eq(s.groups, 21);
	check_acked(w, s.there, SIZE_MAX);
	ck_assert_uint_gt(end.at.pack, 10);
	cfs_packs_close(packs);
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

/* The same objects from footers, and by reading where those were cut off. */
static int count_objects(void *arg, const struct cfs_record *record,
			 struct cfs_place place, struct cfs_position at)
{
	struct seen *s = arg;

	ck_assert(record->type == CFS_RECORD_CHUNK ||
		  record->type == CFS_RECORD_MAP);
	s->groups++; /* objects here */
	return look(arg, record, place, at);
}

static int cut_footer(void *arg, struct cfs_pack_id id, uint64_t size)
{
	struct cfs_engine *engine = arg;
	size_t len;
	const uint8_t *bytes = cfs_engine_mem_bytes(engine, id, &len);
	uint32_t at;

	ck_assert_uint_eq(size, len);
	ck_assert_int_eq(cfs_layout_trailer(bytes + len - 8, &at), 0);
	cfs_engine_mem_cut(engine, id, at);
	return 0;
}

START_TEST(test_footers)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	static struct seen by[2];
	struct cfs_scan_end end;
	struct cfs_packs *packs;

	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(commit(w, 8, 6000), 0);
	cfs_packs_close(w->packs);
	w->packs = NULL;
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(scan(&by[i], engine, w, &packs, &end), 0);
		by[i] = (struct seen){.w = w, .packs = packs};
		ck_assert_int_eq(cfs_packs_scan_objects(packs, end.at,
							count_objects, &by[i],
							NULL),
				 0);
		cfs_packs_close(packs);
		if (i == 0)
			ck_assert_int_eq(
				engine->ops->list(engine, cut_footer, engine),
				0);
	}
	ck_assert_uint_eq(by[0].groups, 160);
	ck_assert_uint_eq(by[1].groups, 160);
	ck_assert_int_eq(memcmp(by[0].there, by[1].there, sizeof(by[0].there)),
			 0);
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

/* Threads append while one syncs. */
struct racer {
	struct writer *w;
	uint32_t first, count;
	atomic_bool *go;
};

static void *race(void *arg)
{
	struct racer *racer = arg;

	for (uint32_t i = 0; i < racer->count; i++)
		ck_assert_int_eq(append(racer->w, racer->first + i), 0);
	return NULL;
}

START_TEST(test_threads)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	pthread_t threads[6];
	struct racer racers[6];
	static struct seen s;
	struct cfs_scan_end end;
	struct cfs_packs *packs;

	for (int t = 0; t < 6; t++) {
		racers[t] = (struct racer){w, w->n, 200, NULL};
		for (uint32_t i = 0; i < racers[t].count; i++)
			(void)item_new(w, CFS_RECORD_CHUNK,
				       12 + mix(i * 6 + (uint32_t)t) % 3000);
	}
	for (int t = 0; t < 6; t++)
		ck_assert_int_eq(
			pthread_create(&threads[t], NULL, race, &racers[t]), 0);
	for (int i = 0; i < 50; i++)
		ck_assert_int_eq(cfs_packs_sync(w->packs), 0);
	for (int t = 0; t < 6; t++)
		(void)pthread_join(threads[t], NULL);
	ck_assert_int_eq(cfs_packs_sync(w->packs), 0);
	ack(w, w->n);
	cfs_packs_close(w->packs);
	w->packs = NULL;
	ck_assert_int_eq(scan(&s, engine, w, &packs, &end), 0);
	ck_assert_int_eq(end.why, CFS_SCAN_END);
	check_acked(w, s.there, SIZE_MAX);
	cfs_packs_close(packs);
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

START_TEST(test_refusals)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	struct cfs_packs_options other = small;
	struct cfs_error err = {.text = ""};
	struct cfs_pack_id id = {0, 1};
	struct cfs_packs *packs;
	struct cfs_record record;
	uint8_t *bytes;
	size_t len;

	ck_assert_int_eq(commit(w, 1, 100), 0);
	cfs_packs_close(w->packs);
	w->packs = NULL;
	other.uuid[3] = 1;
	ck_assert_int_eq(cfs_packs_open(engine, &other, &packs, &err),
			 -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "another store"));
	/* a newer version, in a payload that may be longer then */
	bytes = cfs_engine_mem_bytes(engine, id, &len);
	ck_assert_int_eq(cfs_record_decode(bytes, len, 0, &record), 0);
	cfs_put_le32(bytes + CFS_RECORD_HEAD_BYTES, 2);
	record.payload_hash = cfs_hash64(bytes + CFS_RECORD_HEAD_BYTES, 44, 0);
	cfs_record_encode(&record, 0, bytes);
	ck_assert_int_eq(cfs_packs_open(engine, &small, &packs, &err),
			 -EPROTONOSUPPORT);
	ck_assert_ptr_nonnull(strstr(err.text, "newer"));
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

START_TEST(test_missing_pack)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	struct cfs_error err = {.text = ""};
	struct cfs_position newest;
	static struct seen s;
	struct cfs_scan_end end;
	struct cfs_packs *packs;

	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(commit(w, 8, 6000), 0);
	newest = cfs_packs_end(w->packs);
	ck_assert_int_eq(cfs_packs_remove(w->packs,
					  (struct cfs_pack_id){0, newest.pack}),
			 -EBUSY);
	ck_assert_int_eq(cfs_packs_remove(w->packs, (struct cfs_pack_id){0, 2}),
			 0);
	ck_assert_int_eq(cfs_packs_read(w->packs,
					(struct cfs_place){{0, 2}, 200, 8}, 0,
					&s, 8),
			 -ENOENT);
	cfs_packs_close(w->packs);
	w->packs = NULL;
	ck_assert_int_eq(cfs_packs_open(engine, &small, &packs, &err), 0);
	ck_assert_int_eq(cfs_packs_scan(packs, (struct cfs_position){0, 0},
					NULL, NULL, &end, &err),
			 -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "00000002"));
	ck_assert_int_eq(cfs_packs_scan(packs, (struct cfs_position){1, 0},
					NULL, NULL, &end, &err),
			 -EBADMSG);
	ck_assert_int_eq(cfs_packs_scan(packs, (struct cfs_position){3, 0},
					NULL, NULL, &end, &err),
			 0);
	ck_assert_uint_eq(end.at.pack, newest.pack);
	/* what is in pack 1 is there all the same */
	s = (struct seen){.w = w, .packs = packs};
	ck_assert_int_eq(cfs_packs_scan_objects(packs, end.at, look, &s, &err),
			 0);
	ck_assert(s.there[1]);
	cfs_packs_close(packs);
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

START_TEST(test_reserve)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w;
	struct statvfs before, after;
	uint64_t promised = 0;
	uint32_t n = 0;

	cfs_engine_mem_limit(engine, 1u << 20);
	w = writer_new(engine, (struct cfs_position){0, 0});
	ck_assert_int_eq(cfs_packs_statfs(w->packs, &before), 0);
	while (cfs_packs_reserve(w->packs, 10000, false) == 0)
		promised += 10000;
	ck_assert_uint_gt(promised, (1u << 20) * 3 / 4);
	ck_assert_int_eq(cfs_packs_reserve(w->packs, 10000, false), -ENOSPC);
	ck_assert_int_eq(cfs_packs_statfs(w->packs, &after), 0);
	ck_assert_uint_le(after.f_bavail, 2);
	ck_assert_uint_gt(before.f_bavail, 200);
	/* what is kept is there for deletions */
	ck_assert_int_eq(cfs_packs_reserve(w->packs, 8000, true), 0);
	/* and every promise holds */
	for (uint64_t left = promised; left; left -= 10000) {
		ck_assert_int_eq(append(w, item_new(w, CFS_RECORD_CHUNK, 5000)),
				 0);
		ck_assert_int_eq(append(w, item_new(w, CFS_RECORD_CHUNK, 5000)),
				 0);
		cfs_packs_unreserve(w->packs, 10000);
		n += 2;
	}
	ck_assert_int_eq(append(w, item_new(w, CFS_RECORD_BATCH, 8000)), 0);
	ck_assert_int_eq(cfs_packs_sync(w->packs), 0);
	ck_assert_uint_eq(n, 2 * promised / 10000);
	/* room comes back when packs go */
	ck_assert_int_eq(cfs_packs_reserve(w->packs, 100000, false), -ENOSPC);
	ck_assert_int_eq(cfs_packs_remove(w->packs, (struct cfs_pack_id){0, 2}),
			 0);
	ck_assert_int_eq(cfs_packs_remove(w->packs, (struct cfs_pack_id){0, 3}),
			 0);
	ck_assert_int_eq(cfs_packs_reserve(w->packs, 50000, false), 0);
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

/* A store on a full disk starts, and goes on when there is room again. */
START_TEST(test_full_disk)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct cfs_scan_end end;
	struct cfs_packs *packs;
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	static struct seen s;

	ck_assert_int_eq(commit(w, 8, 6000), 0);
	cfs_packs_close(w->packs);
	w->packs = NULL;
	ck_assert_int_eq(scan(&s, engine, w, &packs, &end), 0);
	cfs_engine_mem_limit(engine, 1);
	ck_assert_int_eq(cfs_packs_start(packs, end.at,
					 (struct cfs_position){0, 0}, NULL),
			 0);
	ck_assert_int_eq(cfs_packs_reserve(packs, 1, true), -ENOSPC);
	ck_assert_uint_eq(cfs_packs_unsynced(packs), 0);
	w->packs = packs;
	ck_assert_int_eq(append(w, item_new(w, CFS_RECORD_CHUNK, 20)), -ENOSPC);
	cfs_engine_mem_limit(engine, 0);
	ck_assert_int_eq(cfs_packs_reserve(packs, 1, true), 0);
	ck_assert_int_eq(commit(w, 3, 100), 0);
	cfs_packs_close(w->packs);
	w->packs = NULL;
	ck_assert_int_eq(scan(&s, engine, w, &packs, &end), 0);
	ck_assert_uint_eq(s.groups, 2);
	cfs_packs_close(packs);
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

/* A fresh pack at once, durable with the next sync, naming the snapshot. */
START_TEST(test_roll)
{
	struct cfs_engine *engine = cfs_engine_mem_new();
	struct writer *w = writer_new(engine, (struct cfs_position){0, 0});
	struct cfs_position snapshot, before;
	struct cfs_packs *packs;

	ck_assert_int_eq(commit(w, 3, 100), 0);
	snapshot = cfs_packs_end(w->packs);
	ck_assert_int_eq(commit(w, 3, 100), 0);
	before = cfs_packs_end(w->packs);
	cfs_packs_set_snapshot(w->packs, snapshot);
	ck_assert_int_eq(cfs_packs_roll(w->packs), 0);
	ck_assert_uint_gt(cfs_packs_end(w->packs).pack, before.pack);
	ck_assert_uint_gt(cfs_packs_unsynced(w->packs), 0);
	ck_assert_int_eq(cfs_packs_sync(w->packs), 0);
	engine = cfs_engine_mem_after_power_cut(
		w->engine, cfs_engine_mem_events(w->engine), 5);
	ck_assert_int_eq(cfs_packs_open(engine, &small, &packs, NULL), 0);
	ck_assert_uint_eq(cfs_packs_snapshot(packs).pack, snapshot.pack);
	ck_assert_uint_eq(cfs_packs_snapshot(packs).off, snapshot.off);
	cfs_packs_close(packs);
	cfs_engine_close(engine);
	engine = w->engine;
	writer_free(w);
	cfs_engine_close(engine);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("packs");
	TCase *t = tcase_create("packs");

	tcase_add_test(t, test_record);
	tcase_add_test(t, test_round_trip);
	tcase_add_test(t, test_footers);
	tcase_add_test(t, test_threads);
	tcase_add_test(t, test_refusals);
	tcase_add_test(t, test_missing_pack);
	tcase_add_test(t, test_reserve);
	tcase_add_test(t, test_full_disk);
	tcase_add_test(t, test_roll);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
