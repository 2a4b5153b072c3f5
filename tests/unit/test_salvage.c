/*
 * A store that refuses because its log is damaged: salvage goes back to a state
 * that it had, the newest there are signs of, and removes nothing.
 */
#include "tests/unit/history_bed.h"

/* A byte changed for good: what comes later stands on it. */
static void flip(struct cfs_engine *e, uint32_t pack, size_t off, uint8_t bits)
{
	const struct cfs_pack_id id = {0, pack};
	struct iovec iov = {NULL, 1};
	uint8_t *bytes, byte;
	size_t len;

	bytes = cfs_engine_mem_bytes(e, id, &len);
	ck_assert(bytes && off < len);
	byte = bytes[off] ^ bits;
	iov.iov_base = &byte;
	ck_assert_int_eq(e->ops->write(e, id, &iov, 1, off), 0);
}

/* Takes both over. */
static int salvage(struct bed *b, struct cfs_engine *engine,
		   struct cfs_index *index, bool look,
		   struct cfs_salvaged *found, struct cfs_error *err)
{
	struct cfs_store_options o = bed_options;
	int r;

	o.salvage = true;
	o.read_only = look;
	b->engine = engine;
	b->index = index ? index : cfs_index_mem_new();
	b->store = NULL;
	r = cfs_store_open_engine(b->engine, b->index, &o, &b->store, err);
	if (r == 0) {
		cfs_store_salvaged(b->store, found);
		b->index = b->store->index;
	}
	return r;
}

/* Which state it is, from the end: 0 the last one. */
static unsigned age(struct bed *b, const struct history *h, const char *what)
{
	struct state is, empty;

	memset(&empty, 0, sizeof(empty));
	read_state(b, &is);
	for (unsigned i = 0; i <= h->n; i++)
		if (same(&is, i < h->n ? &h->states[h->n - 1 - i] : &empty))
			return i;
	ck_abort_msg("%s: a state it never had", what);
	return 0;
}

static unsigned findings;

static void finding(void *arg, const char *text)
{
	(void)arg;
	findings += strstr(text, "went back to group") != NULL;
}

/* Is it told that something is lost? */
static bool told(struct bed *b)
{
	const struct cfs_job_control control = {.finding = finding};
	struct cfs_scrub_result scrubbed;
	struct cfs_fsck_result checked;

	findings = 0;
	ck_assert_int_eq(cfs_store_scrub(b->store, &control, &scrubbed, NULL),
			 0);
	ck_assert_uint_eq(scrubbed.lost, findings);
	ck_assert_int_eq(cfs_store_fsck(b->store, &control, &checked, NULL), 0);
	ck_assert_uint_eq(2 * scrubbed.lost, findings);
	return findings;
}

/*
 * Salvages @engine, and opens what there is then without an index: the age of
 * what is there; -1: it did not refuse to open.
 */
static int out_of(struct cfs_engine *engine, struct cfs_index *index,
		  const struct history *h, const char *what)
{
	struct bed before = {.engine = engine}, b, again;
	struct cfs_salvaged looked = {0}, found = {0};
	struct cfs_error err = {""};
	size_t events;
	unsigned old;
	int r;

	r = bed_try_open(&b, bed_disk(&before),
			 index ? bed_index_copy(index) : NULL, &err);
	if (r == 0)
		(void)cfs_store_close(b.store);
	if (r == 0) {
		cfs_engine_close(engine);
		return -1;
	}
	ck_assert_msg(strstr(err.text, "--salvage"), "%s: %s", what, err.text);
	ck_assert_msg(strstr(err.text, "pack "), "%s: %s", what, err.text);
	/* looking writes nothing */
	r = salvage(&b, bed_disk(&before), index ? bed_index_copy(index) : NULL,
		    true, &looked, &err);
	ck_assert_msg(r == 0, "%s: %d %s", what, r, err.text);
	old = age(&b, h, what);
	events = cfs_engine_mem_events(b.engine);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	r = salvage(&b, engine, index ? bed_index_copy(index) : NULL, false,
		    &found, &err);
	ck_assert_msg(r == 0, "%s: %d %s", what, r, err.text);
	ck_assert_uint_gt(cfs_engine_mem_events(b.engine), events);
	ck_assert_mem_eq(&found, &looked, sizeof(found));
	ck_assert_uint_eq(age(&b, h, what), old);
	ck_assert(told(&b) == (found.known > found.group));
	if (index)
		ck_assert_uint_eq(found.known, found.group);
	bed_open(&again, bed_disk(&b), NULL);
	ck_assert_uint_eq(age(&again, h, what), old);
	check_life(&again, what);
	ck_assert(told(&again) == (found.known > found.group));
	ck_assert_int_eq(cfs_store_acknowledge(again.store), 0);
	ck_assert(!told(&again));
	ck_assert_int_eq(cfs_store_close(again.store), 0);
	check_life(&b, what);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	return (int)old;
}

/* Every byte of the head of the newest pack: nothing is lost at all. */
START_TEST(newest_head)
{
	struct history h = {0};
	unsigned refused = 0;
	uint32_t pack;
	struct bed b;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 300, false);
	pack = cfs_packs_end(b.store->packs).pack;
	ck_assert_uint_gt(pack, 2);
	for (size_t off = 0; off < 116; off += TEST_STEP) {
		struct cfs_engine *e = bed_disk(&b);
		char what[40];
		int r;

		(void)snprintf(what, sizeof(what), "byte %zu of the head", off);
		flip(e, pack, off, (uint8_t)(1u << off % 8));
		r = out_of(e, _i ? b.index : NULL, &h, what);
		ck_assert_msg(r <= 0, "%s: %d", what, r);
		refused += r == 0;
	}
	ck_assert_uint_ge(refused, 116 / TEST_STEP);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Any byte of the log: a state that it had, and with an index the last one. */
START_TEST(any_byte)
{
	uint64_t state = 29 + (uint64_t)_i;
	unsigned refused = 0, older = 0;
	struct history h = {0};
	struct bed b;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 500 + (uint64_t)_i, false);
	for (unsigned i = 0; i < 400 / CFS_MIN(TEST_STEP, 3); i++) {
		struct cfs_position end = cfs_packs_end(b.store->packs);
		struct cfs_engine *e = bed_disk(&b);
		struct cfs_pack_id id = {0, 1};
		char what[60];
		size_t len, off;
		int r;

		id.number += (uint32_t)(bed_random(&state) % end.pack);
		if (!cfs_engine_mem_bytes(e, id, &len) || !len) {
			cfs_engine_close(e);
			continue;
		}
		if (id.number == end.pack)
			len = end.off;
		off = bed_random(&state) % len;
		(void)snprintf(what, sizeof(what), "byte %zu of pack %u", off,
			       id.number);
		flip(e, id.number, off,
		     (uint8_t)(1u << (bed_random(&state) % 8)));
		r = out_of(e, i % 2 ? b.index : NULL, &h, what);
		ck_assert_msg(!(i % 2) || r <= 0, "%s: %d", what, r);
		refused += r >= 0;
		older += r > 0;
	}
	ck_assert_uint_gt(refused, 10 / CFS_MIN(TEST_STEP, 3));
	ck_assert_uint_lt(older, refused);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Each pack gone as a whole. */
START_TEST(a_pack_is_gone)
{
	struct history h = {0};
	unsigned refused = 0;
	uint32_t newest;
	struct bed b;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 900, false);
	newest = cfs_packs_end(b.store->packs).pack;
	for (uint32_t n = 1; n < newest; n++) {
		struct cfs_engine *e = bed_disk(&b);
		char what[40];

		if (e->ops->remove(e, (struct cfs_pack_id){0, n}) < 0) {
			cfs_engine_close(e);
			continue;
		}
		(void)snprintf(what, sizeof(what), "pack %u gone", n);
		refused += out_of(e, _i ? b.index : NULL, &h, what) >= 0;
	}
	ck_assert(refused || _i);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Somebody only looks: that makes the index anew, too. */
static void look(struct cfs_engine **disk, struct cfs_index **index)
{
	struct cfs_store_options o = bed_options;
	struct cfs_error err = {""};
	struct bed b = {.engine = *disk, .index = *index};

	o.read_only = true;
	ck_assert_int_eq(
		cfs_store_open_engine(b.engine, b.index, &o, &b.store, &err),
		0);
	*disk = bed_disk(&b);
	*index = bed_index_copy(b.store->index);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}

/* The newest pack gone or cut: the log has an end, but not its own.  That is
 * told at every look, where the index or a clean end knew better. */
START_TEST(newest_pack_gone)
{
	struct history h = {0};
	struct cfs_index *index = NULL;
	struct cfs_engine *disk;
	struct bed b, after;
	uint32_t pack;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 901, false);
	ck_assert_int_eq(cfs_packs_roll(b.store->packs), 0);
	(void)snprintf(h.now.value[0], sizeof(h.now.value[0]), "newest");
	bed_set(&b, "key0", "newest");
	ck_assert_int_eq(commit(&b, &h, false), 0);
	pack = cfs_packs_end(b.store->packs).pack;
	if (_i) {
		index = bed_index_copy(b.index);
		disk = bed_disk(&b);
	} else { /* closed, then opened without anything done */
		ck_assert_int_eq(cfs_group_commit(b.store, CFS_WISH_CLEAN), 0);
		cfs_loss_end_set(b.store);
		disk = bed_disk(&b);
	}
	ck_assert_int_eq(disk->ops->remove(disk, (struct cfs_pack_id){0, pack}),
			 0);
	if (_i == 2)
		look(&disk, &index);
	bed_open(&after, disk, index);
	ck_assert_uint_gt(age(&after, &h, "newest gone"), 0);
	ck_assert(told(&after));
	disk = bed_disk(&after);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	bed_open(&after, disk, NULL);
	ck_assert(told(&after));
	ck_assert_int_eq(cfs_store_acknowledge(after.store), 0);
	ck_assert(!told(&after));
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Acknowledged, used and killed: the same loss is not found once more. */
START_TEST(told_once)
{
	struct history h = {0};
	struct cfs_engine *disk;
	struct bed b, after;
	uint32_t pack;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 906, false);
	ck_assert_int_eq(cfs_packs_roll(b.store->packs), 0);
	for (int i = 0; i < 5; i++) {
		bed_set(&b, "key0", i % 2 ? "odd" : "even");
		ck_assert_int_eq(cfs_store_commit(b.store), 0);
	}
	pack = cfs_packs_end(b.store->packs).pack;
	ck_assert_int_eq(cfs_group_commit(b.store, CFS_WISH_CLEAN), 0);
	cfs_loss_end_set(b.store);
	disk = bed_disk(&b);
	ck_assert_int_eq(disk->ops->remove(disk, (struct cfs_pack_id){0, pack}),
			 0);
	bed_open(&after, disk, NULL);
	ck_assert(told(&after));
	for (int i = 0; i < 3; i++) {
		bed_set(&after, "key0", i % 2 ? "one" : "other");
		ck_assert_int_eq(cfs_store_commit(after.store), 0);
		disk = bed_disk(&after); /* killed there */
		ck_assert_int_eq(cfs_store_close(after.store), 0);
		bed_open(&after, disk, NULL);
		ck_assert_uint_eq(told(&after), i == 0);
		ck_assert_int_eq(cfs_store_acknowledge(after.store), 0);
	}
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Power fails while it salvages: it can be done again, or is done. */
START_TEST(power_cut_while_salvaging)
{
	struct bed b, disk, during, after;
	struct cfs_salvaged found = {0};
	struct cfs_error err = {""};
	struct history h = {0};
	struct cfs_engine *e;
	size_t from, to;
	uint32_t pack;
	int r;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 902, false);
	pack = cfs_packs_end(b.store->packs).pack;
	e = bed_disk(&b);
	flip(e, pack, 20, 1);
	disk.engine = e;
	from = cfs_engine_mem_events(e);
	ck_assert_int_eq(salvage(&during, e, NULL, false, &found, &err), 0);
	ck_assert_int_eq(cfs_store_commit(during.store), 0);
	to = cfs_engine_mem_events(during.engine);
	for (size_t at = from; at <= to; at++) {
		struct cfs_engine *cut = cfs_engine_mem_after_power_cut(
			during.engine, at, at % 3);

		disk.engine = cut;
		r = bed_try_open(&after, bed_disk(&disk), NULL, &err);
		if (r < 0)
			r = salvage(&after, cut, NULL, false, &found, &err);
		else
			cfs_engine_close(cut);
		ck_assert_msg(r == 0, "at %zu: %s", at, err.text);
		ck_assert_uint_eq(age(&after, &h, "cut"), 0);
		check_life(&after, "cut");
		ck_assert_int_eq(cfs_store_close(after.store), 0);
	}
	ck_assert_int_eq(cfs_store_close(during.store), 0);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* A read that fails, whichever: a state that it had, or that is said. */
START_TEST(reads_fail)
{
	struct history h = {0};
	unsigned failed = 0, done = 0;
	struct bed b;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 905, false);
	for (unsigned nth = 1; nth < 300; nth += TEST_STEP) {
		struct cfs_engine *e = bed_disk(&b);
		struct cfs_error err = {""};
		struct cfs_salvaged found = {0};
		struct bed after, again;
		int r;

		flip(e, cfs_packs_end(b.store->packs).pack, 40, 2);
		cfs_engine_mem_fail(e, CFS_ENGINE_READ, nth, -EIO);
		r = salvage(&after, e, NULL, false, &found, &err);
		if (r < 0) {
			ck_assert_msg(r == -EIO || r == -EBADMSG, "%u: %d %s",
				      nth, r, err.text);
			failed++;
			continue;
		}
		cfs_engine_mem_fail(e, CFS_ENGINE_READ, 0, 0);
		done++;
		(void)age(&after, &h, "a read failed");
		ck_assert(told(&after) == (found.known > found.group));
		bed_open(&again, bed_disk(&after), NULL);
		(void)age(&again, &h, "a read had failed");
		ck_assert_int_eq(cfs_store_close(again.store), 0);
		ck_assert_int_eq(cfs_store_close(after.store), 0);
	}
	ck_assert_uint_gt(done, failed);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

#define SECTOR	512u
#define CHUNKS	6u
#define A_CHUNK 30000u

/* Which of the chunks cannot be read; nothing else is wrong with any. */
static unsigned unread(struct bed *b, const struct cfs_digest *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < CHUNKS; i++) {
		int r = bed_check_chunk(b, 40 + 2 * i, A_CHUNK, &d[i]);

		ck_assert(r == 0 || r == -EIO || r == -ENOENT);
		n += r < 0;
	}
	return n;
}

/* Sectors of a pack that cannot be read, its footer's among them: what lies
 * behind them is there, and each opening without an index finds it again. */
START_TEST(bad_sectors)
{
	struct cfs_digest d[CHUNKS];
	struct cfs_position at;
	struct bed b;
	size_t size;

	bed_open(&b, NULL, NULL);
	for (unsigned i = 0; i < CHUNKS; i++)
		bed_store_chunk(&b, 40 + 2 * i, A_CHUNK, &d[i]);
	bed_set(&b, "key0", "kept");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_packs_roll(b.store->packs), 0);
	ck_assert_int_eq(cfs_gc_snapshot(b.store, &at), 0);
	ck_assert_uint_gt(at.pack, 1);
	ck_assert_ptr_nonnull(cfs_engine_mem_bytes(
		b.engine, (struct cfs_pack_id){0, 1}, &size));
	ck_assert_uint_gt(size, CHUNKS * A_CHUNK);
	for (uint32_t off = 0; off < size; off += (uint32_t)size / 20) {
		struct cfs_engine *e = bed_disk(&b);
		struct cfs_salvaged found = {0};
		struct cfs_error err = {""};
		struct bed after;

		for (int salvaged = 0; salvaged < 2; salvaged++) {
			cfs_engine_mem_bad(e, (struct cfs_pack_id){0, 1}, off,
					   SECTOR);
			cfs_engine_mem_bad(e, (struct cfs_pack_id){0, 1},
					   (uint32_t)size - SECTOR, SECTOR);
			bed_open(&after, e, NULL);
			ck_assert_str_eq(bed_get(&after, "key0"), "kept");
			ck_assert_uint_le(unread(&after, d), 2);
			e = bed_disk(&after);
			ck_assert_int_eq(cfs_store_close(after.store), 0);
			if (salvaged)
				break;
			flip(e, cfs_packs_end(b.store->packs).pack, 40, 2);
			cfs_engine_mem_bad(e, (struct cfs_pack_id){0, 1}, off,
					   SECTOR);
			cfs_engine_mem_bad(e, (struct cfs_pack_id){0, 1},
					   (uint32_t)size - SECTOR, SECTOR);
			ck_assert_msg(salvage(&after, e, NULL, false, &found,
					      &err) == 0,
				      "at %u: %s", off, err.text);
			ck_assert_uint_le(unread(&after, d), 2);
			e = bed_disk(&after);
			ck_assert_int_eq(cfs_store_close(after.store), 0);
		}
		cfs_engine_close(e);
	}
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Salvaged, used, damaged once more. */
START_TEST(twice)
{
	struct history h = {0}, more = {0};
	struct cfs_salvaged found = {0};
	struct cfs_error err = {""};
	struct bed b, once;
	struct cfs_engine *e;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 903, false);
	e = bed_disk(&b);
	flip(e, cfs_packs_end(b.store->packs).pack, 30, 4);
	ck_assert_int_eq(salvage(&once, e, NULL, false, &found, &err), 0);
	more.now = h.now;
	make_history(&once, &more, 904, false);
	e = bed_disk(&once);
	flip(e, cfs_packs_end(once.store->packs).pack, 30, 4);
	ck_assert_int_eq(out_of(e, NULL, &more, "twice"), 0);
	ck_assert_int_eq(cfs_store_close(once.store), 0);
	history_fini(&h);
	history_fini(&more);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("salvage");
	TCase *t = tcase_create("salvage");

	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_loop_test(t, newest_head, 0, 2);
	tcase_add_loop_test(t, any_byte, 0, 2);
	tcase_add_loop_test(t, a_pack_is_gone, 0, 2);
	tcase_add_loop_test(t, newest_pack_gone, 0, 3);
	tcase_add_test(t, told_once);
	tcase_add_test(t, power_cut_while_salvaging);
	tcase_add_test(t, reads_fail);
	tcase_add_test(t, bad_sectors);
	tcase_add_test(t, twice);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
