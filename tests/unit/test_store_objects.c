/* Chunks and maps of an open store: read, kept once, damaged, derived. */
#include <pthread.h>

#include "store/core/store_internal.h"
#include "store/map/dtype.h"
#include "tests/unit/core_bed.h"

START_TEST(reads_any_part)
{
	static const size_t sizes[] = {1,	4096,	  131072,
				       131073,	1u << 20, (1u << 20) + 5,
				       3000000, 4u << 20};
	uint64_t state = 42;
	uint8_t *is = malloc(4u << 20);
	struct bed b;
	size_t i, n;

	bed_open(&b, NULL, NULL);
	for (i = 0; i < CFS_ARRAY_SIZE(sizes); i++) {
		uint8_t *want = bed_bytes(i, sizes[i]);
		struct cfs_digest d;

		bed_store_chunk(&b, i, sizes[i], &d);
		ck_assert_int_eq(bed_check_chunk(&b, i, sizes[i], &d), 0);
		for (n = 0; n < 60; n++) {
			size_t off = bed_random(&state) % sizes[i];
			size_t len = bed_random(&state) % (sizes[i] - off + 1);

			if (n & 1)
				len = CFS_MIN(len, (size_t)5000);
			ck_assert_int_eq(cfs_store_read_chunk(b.store, &d,
							      (uint32_t)off, is,
							      len),
					 0);
			ck_assert_mem_eq(is, want + off, len);
		}
		ck_assert_int_eq(
			cfs_store_read_chunk(b.store, &d, 1, is, sizes[i]),
			-EINVAL);
		free(want);
	}
	free(is);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

struct reader {
	struct bed *bed;
	const struct cfs_digest *digest;
	const uint8_t *want;
	uint64_t state;
};

static void *read_around(void *arg)
{
	struct reader *rd = arg;
	uint8_t *is = malloc(70000);
	int i;

	ck_assert_ptr_nonnull(is);
	for (i = 0; i < 300; i++) {
		uint32_t off = (uint32_t)(bed_random(&rd->state) % 2000000);
		size_t len = bed_random(&rd->state) % 70000;

		if (i % 50 == 7)
			len = 0;
		ck_assert_int_eq(cfs_store_read_chunk(rd->bed->store,
						      rd->digest, off, is, len),
				 0);
		ck_assert_mem_eq(is, rd->want + off, len);
	}
	free(is);
	return NULL;
}

/* Many at the same frames, in a cache that holds few of them. */
START_TEST(readers_meet)
{
	uint8_t *want = bed_bytes(77, 2100000);
	struct cfs_store_facts f;
	struct reader rd[6];
	struct cfs_digest d;
	pthread_t t[6];
	struct bed b;
	unsigned i;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 77, 2100000, &d);
	for (i = 0; i < 6; i++) {
		rd[i] = (struct reader){&b, &d, want, 5};
		ck_assert_int_eq(
			pthread_create(&t[i], NULL, read_around, &rd[i]), 0);
	}
	for (i = 0; i < 6; i++)
		pthread_join(t[i], NULL);
	ck_assert_int_eq(cfs_store_facts(b.store, &f), 0);
	ck_assert_uint_gt(f.cache_hits, 0);
	free(want);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

START_TEST(absent_objects)
{
	struct cfs_content_map map;
	struct cfs_digest d = {{7}};
	struct bed b;
	char c;

	bed_open(&b, NULL, NULL);
	ck_assert_int_eq(cfs_store_read_chunk(b.store, &d, 0, &c, 1), -ENOENT);
	ck_assert_int_eq(cfs_store_get_map(b.store, &d, &map), -ENOENT);
	ck_assert_int_eq(cfs_store_touch_map(b.store, &d), -ENOENT);
	ck_assert_int_eq(cfs_store_touch_chunk(b.store, &d), -ENOENT);
	cfs_store_advise_chunk(b.store, &d);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

START_TEST(maps_are_kept_once)
{
	struct cfs_extent e = {.len = 100, .chunk_len = 100};
	struct cfs_content_map map = {.size = 100, .count = 1, .extents = &e};
	struct cfs_content_map got = {0};
	struct cfs_store_facts one, two;
	struct cfs_digest d, again;
	struct bed b;

	bed_open(&b, NULL, NULL);
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &d), 0);
	ck_assert_int_eq(cfs_store_facts(b.store, &one), 0);
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &again), 0);
	ck_assert_int_eq(cfs_store_facts(b.store, &two), 0);
	ck_assert_mem_eq(&d, &again, sizeof(d));
	ck_assert_uint_eq(one.appended_bytes, two.appended_bytes);
	ck_assert_int_eq(cfs_store_get_map(b.store, &d, &got), 0);
	ck_assert_uint_eq(got.count, 1);
	ck_assert_uint_eq(got.extents[0].len, 100);
	cfs_content_map_fini(&got);
	ck_assert_int_eq(cfs_store_touch_map(b.store, &d), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- damage ---- */

/* Every byte of a record: the right bytes or -EBADMSG, never others. */
START_TEST(damage_is_never_served)
{
	const size_t len = 3000;
	struct cfs_chunk_facts f;
	struct cfs_digest d;
	uint8_t *bytes, *want = bed_bytes(3, len), is[3000];
	struct bed b;
	size_t i, n, served = 0;
	int r;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 3, len, &d);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &f), 0);
	bytes = cfs_engine_mem_bytes(b.engine,
				     (struct cfs_pack_id){0, f.place.pack}, &n);
	ck_assert_ptr_nonnull(bytes);
	for (i = f.place.off - 72; i < f.place.off + f.place.stored_len; i++) {
		struct bed other;
		struct cfs_index *index = bed_index_copy(b.index);

		bytes[i] ^= 1;
		/* a store that has nothing of it cached */
		bed_open(&other, bed_disk(&b), index);
		bytes[i] ^= 1;
		uint8_t *copy = cfs_engine_mem_bytes(
			other.engine, (struct cfs_pack_id){0, f.place.pack},
			&n);

		copy[i] ^= 1;
		r = cfs_store_read_chunk(other.store, &d, 0, is, len);
		if (r == 0) {
			ck_assert_mem_eq(is, want, len);
			served++;
		} else {
			ck_assert_int_eq(r, -EBADMSG);
		}
		(void)cfs_store_close(other.store);
	}
	/* bytes that nothing is decided by: not those of the frames */
	ck_assert_uint_lt(served, 80);
	free(want);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* What was found damaged is stored anew when the same bytes come again. */
START_TEST(saving_again_heals)
{
	const size_t len = 300000;
	struct cfs_scrub_result found;
	struct cfs_chunk_facts f, now;
	struct cfs_content_map map = {.size = 7000, .count = 1}, out = {0};
	struct cfs_extent e = {.len = 7000, .chunk_len = 7000};
	struct cfs_object_value v;
	struct cfs_error err = {""};
	struct cfs_digest d, m, again;
	struct bed b, after;
	uint8_t *bytes;
	size_t n;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 4, len, &d);
	map.extents = &e;
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &m), 0);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &f), 0);
	bytes = cfs_engine_mem_bytes(b.engine,
				     (struct cfs_pack_id){0, f.place.pack}, &n);
	ck_assert_ptr_nonnull(bytes);
	bytes[f.place.off + f.place.stored_len - 1] ^= 1;
	ck_assert_int_eq(cfs_object_locate(b.store, true, &m, &v), 0);
	bytes = cfs_engine_mem_bytes(b.engine, (struct cfs_pack_id){0, v.pack},
				     &n);
	bytes[v.off + 20] ^= 1;
	if (_i) {
		ck_assert_int_eq(cfs_store_scrub(b.store, NULL, &found, &err),
				 0);
		ck_assert_uint_eq(found.damaged, 2);
	} else {
		ck_assert_int_eq(bed_check_chunk(&b, 4, len, &d), -EBADMSG);
		ck_assert_int_eq(cfs_store_get_map(b.store, &m, &out),
				 -EBADMSG);
	}
	bed_store_chunk(&b, 4, len, &again);
	ck_assert_int_eq(cfs_digest_cmp(&d, &again), 0);
	ck_assert_int_eq(bed_check_chunk(&b, 4, len, &d), 0);
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &again), 0);
	ck_assert_int_eq(cfs_store_get_map(b.store, &m, &out), 0);
	cfs_content_map_fini(&out);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &f), 0);
	/* once is enough */
	bed_store_chunk(&b, 4, len, &again);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &now), 0);
	ck_assert_uint_eq(now.place.off, f.place.off);
	ck_assert_int_eq(cfs_store_scrub(b.store, NULL, &found, &err), 0);
	ck_assert_uint_eq(found.damaged, 0);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	/* the younger record counts without the index, too */
	bed_open(&after, bed_disk(&b), NULL);
	ck_assert_int_eq(bed_check_chunk(&after, 4, len, &d), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(after.store, &d, &now), 0);
	ck_assert_uint_eq(now.place.off, f.place.off);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* A map that the disk does not give is no reason not to commit. */
START_TEST(a_map_that_cannot_be_read)
{
	struct cfs_content_map map = {.size = 7000, .count = 1}, out = {0};
	struct cfs_extent e = {.len = 7000, .chunk_len = 7000};
	struct cfs_object_value before, after;
	struct cfs_digest m, again;
	struct bed b;

	bed_open(&b, NULL, NULL);
	map.extents = &e;
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &m), 0);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_object_locate(b.store, true, &m, &before), 0);
	cfs_engine_mem_fail(b.engine, CFS_ENGINE_READ, 1, -EIO);
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &again), 0);
	ck_assert_int_eq(cfs_digest_cmp(&m, &again), 0);
	ck_assert_int_eq(cfs_object_locate(b.store, true, &m, &after), 0);
	ck_assert(!cfs_object_value_eq(&before, &after));
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_get_map(b.store, &m, &out), 0);
	cfs_content_map_fini(&out);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- derived chunks ---- */

START_TEST(derived_chunks)
{
	const size_t n = 100000;
	struct cfs_chunk_part part = {.len = 400000};
	struct cfs_chunk_facts f;
	struct cfs_pending *p;
	struct cfs_digest d;
	uint8_t *raw = bed_bytes(12, 4 * n), *cast = malloc(2 * n);
	uint8_t *copy = malloc(2 * n), *is = malloc(2 * n);
	struct bed b;
	int i;

	/* numbers, no NaN */
	for (i = 0; i < (int)n; i++)
		raw[4 * i + 3] &= 0x3f;
	cfs_dtype_cast(CFS_F32, raw, CFS_BF16, cast, n);
	memcpy(copy, cast, 2 * n);
	bed_open(&b, NULL, NULL);
	ck_assert_int_eq(cfs_store_reserve(b.store, 6 * n, false), 0);
	p = cfs_store_ingest(b.store, raw, 4 * n, 4);
	ck_assert_int_eq(cfs_pending_wait(p, &part.digest), 0);
	cfs_pending_unref(p);
	p = cfs_store_ingest(b.store, copy, 2 * n, 2);
	ck_assert_int_eq(cfs_pending_wait(p, &d), 0);
	cfs_pending_unref(p);
	part.off = 4;
	part.len -= 4;
	ck_assert_int_eq(
		cfs_store_derive(b.store, &d, CFS_F32, CFS_BF16, &part, 1),
		-EINVAL);
	part.off = 0;
	part.len += 4;
	ck_assert_int_eq(
		cfs_store_derive(b.store, &d, CFS_F32, CFS_F16, &part, 1),
		-EILSEQ);
	ck_assert_int_eq(
		cfs_store_derive(b.store, &d, CFS_F32, CFS_BF16, &part, 1), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &f), 0);
	ck_assert_uint_eq(f.codec, CFS_CODEC_DERIVED);
	ck_assert_uint_lt(f.stored_len, 1000);
	for (i = 0; i < 50; i++) {
		uint32_t off = (uint32_t)(i * 3777);
		size_t len = CFS_MIN((size_t)(i * 4001), 2 * n - off);

		ck_assert_int_eq(
			cfs_store_read_chunk(b.store, &d, off, is, len), 0);
		ck_assert_mem_eq(is, cast + off, len);
	}
	free(cast);
	free(is);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("store_objects");
	TCase *t = tcase_create("store_objects");

	tcase_add_test(t, reads_any_part);
	tcase_add_test(t, readers_meet);
	tcase_add_test(t, absent_objects);
	tcase_add_test(t, maps_are_kept_once);
	tcase_add_test(t, damage_is_never_served);
	tcase_add_loop_test(t, saving_again_heals, 0, 2);
	tcase_add_test(t, a_map_that_cannot_be_read);
	tcase_add_test(t, derived_chunks);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
