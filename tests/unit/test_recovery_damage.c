/* A damaged log: an error or what was synced, never an older state. */
#include "tests/unit/history_bed.h"

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
	for (i = 0; i < 600 / CFS_MIN(TEST_STEP, 3); i++) {
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
	ck_assert_uint_gt(refused, 10 / CFS_MIN(TEST_STEP, 3));
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
		for (size_t at = 0; at < len; at += TEST_STEP) {
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
	ck_assert_uint_gt(tried, 2500 / TEST_STEP);
	/* the index knows where all is */
	ck_assert(refused || (index && cut));
	cfs_index_close(s.index);
	cfs_engine_close(s.disk);
}
END_TEST

/* ---- a record in the middle ---- */

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
	Suite *s = suite_create("recovery_damage");
	TCase *t = tcase_create("recovery_damage");

	tcase_add_loop_test(t, damage_is_no_crash, 0, 3);
	tcase_add_loop_test(t, every_byte_flipped_or_cut, 0, 4);
	tcase_add_loop_test(t, behind_a_damaged_head, 0, 72);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
