/* scrub: every byte of an object counts, and every byte of the log. */
#include "store/core/store_internal.h"
#include "store/pack/packs.h"
#include "store/util/endian.h"
#include "tests/unit/fsck_bed.h"

static struct cfs_scrub_result scrub(void)
{
	unsigned n = 0;
	const struct cfs_job_control control = {NULL, finding, &n};
	struct cfs_scrub_result result;
	struct cfs_error err = {""};
	int r;

	cfs_buf_free(&told);
	r = cfs_store_scrub(bed.store, &control, &result, &err);
	ck_assert_msg(r == 0, "%s", err.text);
	ck_assert_uint_eq(n, result.damaged + result.missing);
	return result;
}

static struct cfs_object_value place_of(const struct cfs_digest *digest,
					bool is_map)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_object_value v;
	struct cfs_key key;

	if (is_map)
		cfs_key_map(&key, digest);
	else
		cfs_key_chunk(&key, digest);
	ck_assert_int_eq(cfs_levels_get(cfs_store_levels(bed.store),
					cfs_key_slice(&key), &val),
			 0);
	ck_assert_int_eq(cfs_object_decode(val.data, val.len, &v), 0);
	return v;
}

START_TEST(test_scrub_whole)
{
	struct cfs_scrub_result result = scrub();

	ck_assert_str_eq(cfs_buf_str(&told), "");
	ck_assert_uint_eq(result.chunks, 2);
	ck_assert_uint_eq(result.maps, 2);
	ck_assert_uint_gt(result.bytes, 2 * CHUNK);
}
END_TEST

/* Bytes all over the record of an object, its head included. */
static void flip_all_over(const struct cfs_digest *digest, bool is_map,
			  uint64_t files, const char *file)
{
	struct cfs_object_value v = place_of(digest, is_map);
	struct cfs_pack_id id = {v.lane, v.pack};
	uint32_t from = v.off - 72, to = v.off + v.stored_len;
	uint32_t step = CFS_MAX(v.stored_len / 50, 1u);
	char hex[CFS_DIGEST_HEX];

	for (uint32_t at = from; at < to; at += at < v.off + 60 ? 1 : step) {
		struct cfs_scrub_result result;
		size_t size;
		uint8_t *bytes = cfs_engine_mem_bytes(bed.engine, id, &size);

		ck_assert_uint_lt(at, size);
		bytes[at] ^= 4;
		result = scrub();
		bytes[at] ^= 4;
		ck_assert_uint_eq(result.damaged - result.log_damaged, 1);
		/* a head is the log's, too, until a snapshot lies behind */
		ck_assert_uint_le(result.log_damaged, at < v.off);
		ck_assert_uint_eq(result.missing, 0);
		ck_assert_ptr_nonnull(strstr(cfs_buf_str(&told),
					     cfs_digest_hex(digest, hex)));
		ck_assert_ptr_nonnull(strstr(cfs_buf_str(&told), "pack 0000/"));
		ck_assert_uint_eq(result.files, files);
		ck_assert_ptr_nonnull(strstr(cfs_buf_str(&told), file));
	}
	ck_assert_uint_eq(scrub().damaged, 0);
}

START_TEST(test_scrub_damage)
{
	ck_assert_int_eq(cfs_store_commit(bed.store), 0);
	flip_all_over(&chunk, false, 3, "file extents is affected\n");
	flip_all_over(&chunk2, false, 2, "file other is affected\n");
	flip_all_over(&leaf, true, 2, "file sub/sealed is affected\n");
	cfs_buf_free(&told);
}
END_TEST

/* Another process finds the store without its index and that pack. */
static void reopen_without(uint32_t pack)
{
	struct cfs_engine *disk = bed_disk(&bed);

	ck_assert_int_eq(disk->ops->remove(disk, (struct cfs_pack_id){0, pack}),
			 0);
	ck_assert_int_eq(cfs_store_close(bed.store), 0);
	bed_open(&bed, disk, NULL);
}

START_TEST(test_scrub_missing_pack)
{
	struct cfs_object_value v = place_of(&chunk, false);
	struct cfs_scrub_result result;

	ck_assert_int_eq(cfs_store_commit(bed.store), 0);
	/* chunks enough to leave that pack behind */
	for (uint64_t seed = 100; seed < 106; seed++) {
		struct cfs_digest d;

		bed_store_chunk(&bed, seed, CHUNK, &d);
	}
	ck_assert_int_eq(cfs_store_commit(bed.store), 0);
	ck_assert_int_eq(
		bed.engine->ops->remove(bed.engine,
					(struct cfs_pack_id){v.lane, v.pack}),
		0);
	result = scrub();
	ck_assert_uint_ge(result.missing, 1);
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), "the pack is missing"));
	ck_assert_uint_eq(result.files, 3);
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), "file sub/sealed is affected\n"));
	ck_assert_uint_eq(fsck().files, 3);
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), "file extents is affected\n"));
	cfs_buf_free(&told);
}
END_TEST

/* Cut within a chunk that the index leads to: it need not be read for that. */
START_TEST(test_fsck_cut_pack)
{
	struct cfs_object_value v = place_of(&chunk, false);

	ck_assert_int_eq(cfs_store_commit(bed.store), 0);
	ck_assert_uint_eq(fsck().problems, 0);
	cfs_engine_mem_cut(bed.engine, (struct cfs_pack_id){v.lane, v.pack},
			   v.off + v.stored_len - 1);
	(void)fsck();
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), "is not in the pack it should be"));
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), "file extents is affected\n"));
	cfs_buf_free(&told);
}
END_TEST

/* The index was made anew since, and so knows of no object that was there. */
START_TEST(test_scrub_nothing_known)
{
	struct cfs_object_value v = place_of(&chunk, false);
	struct cfs_scrub_result result;
	struct cfs_position at;

	ck_assert_int_eq(cfs_store_commit(bed.store), 0);
	ck_assert_int_eq(cfs_packs_roll(bed.store->packs), 0);
	ck_assert_int_eq(cfs_gc_snapshot(bed.store, &at), 0);
	reopen_without(v.pack);
	result = scrub();
	ck_assert_uint_lt(result.chunks + result.maps, 4);
	ck_assert_uint_eq(result.damaged, 0);
	ck_assert_uint_ge(result.missing, 1);
	ck_assert_uint_eq(result.files, 3);
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), "file extents is affected\n"));
	ck_assert_uint_eq(fsck().files, 3);
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), "file sub/sealed is affected\n"));
	cfs_buf_free(&told);
}
END_TEST

/* A pack that was cut is no pack with damage. */
START_TEST(test_scrub_cut_pack)
{
	struct cfs_object_value v = place_of(&chunk2, false);
	struct cfs_pack_id id = {v.lane, v.pack};
	struct cfs_position at;

	ck_assert_int_eq(cfs_store_commit(bed.store), 0);
	ck_assert_int_eq(cfs_packs_roll(bed.store->packs), 0);
	ck_assert_int_eq(cfs_gc_snapshot(bed.store, &at), 0);
	cfs_engine_mem_cut(bed.engine, id, v.off + 10);
	(void)scrub();
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), "the pack is cut short"));
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), "file other is affected\n"));
	ck_assert_ptr_null(
		strstr(cfs_buf_str(&told), "file extents is affected\n"));
	cfs_buf_free(&told);
}
END_TEST

static uint8_t *log_byte(uint32_t pack, size_t at)
{
	size_t size;
	uint8_t *bytes = cfs_engine_mem_bytes(
		bed.engine, (struct cfs_pack_id){0, pack}, &size);

	ck_assert(bytes && at < size);
	return bytes + at;
}

/*
 * The log of an open store is damaged: scrub says where, makes the store free
 * of it, and a store without index has all of it.
 */
static void damage_log(uint32_t pack, size_t at)
{
	struct cfs_scrub_result result;
	struct cfs_engine *disk;
	char where[80];
	struct bed again;

	*log_byte(pack, at) ^= 4;
	result = scrub();
	ck_assert_msg(result.log_damaged == 1 && result.damaged == 1,
		      "pack %u, %zu: %s", pack, at, cfs_buf_str(&told));
	(void)snprintf(where, sizeof(where), "pack 0000/%08x at ", pack);
	ck_assert_ptr_nonnull(strstr(cfs_buf_str(&told), where));
	ck_assert_ptr_nonnull(strstr(cfs_buf_str(&told), "log"));
	ck_assert_uint_eq(scrub().damaged, 0);
	disk = bed_disk(&bed);
	again = bed;
	bed_open(&bed, disk, NULL);
	ck_assert_uint_eq(fsck().problems, 0);
	ck_assert_uint_eq(fsck().dirents, 6);
	ck_assert_int_eq(cfs_store_close(bed.store), 0);
	bed = again;
}

struct log_record {
	uint32_t pack;
	size_t off;
};

/* Where the records lie that are no objects; a SYNCED one comes behind the
 * sync, and may get lost. */
static size_t log_records(struct log_record out[], size_t max)
{
	size_t n = 0, size;
	const uint8_t *p;

	for (uint32_t pack = 1; pack < 9; pack++) {
		struct cfs_pack_id id = {0, pack};

		p = cfs_engine_mem_bytes(bed.engine, id, &size);
		for (size_t off = 0;
		     p && off + 72 <= size && !memcmp(p + off, "CFSr", 4);
		     off += 72 + (size_t)cfs_get_le32(p + off + 16))
			if (p[off + 4] != CFS_RECORD_CHUNK &&
			    p[off + 4] != CFS_RECORD_MAP &&
			    p[off + 4] != CFS_RECORD_SYNCED &&
			    p[off + 4] != CFS_RECORD_FOOTER && n < max)
				out[n++] = (struct log_record){pack, off};
	}
	ck_assert_uint_ge(n, 3); /* PACK, BATCH, GROUP */
	return n;
}

START_TEST(test_scrub_log)
{
	static const size_t inside[] = {0, 8, 20, 60, 70, 72, 79};
	struct log_record at[32];
	size_t n;

	ck_assert_int_eq(cfs_store_commit(bed.store), 0);
	n = log_records(at, CFS_ARRAY_SIZE(at));
	if ((size_t)_i < n * CFS_ARRAY_SIZE(inside))
		damage_log(at[(size_t)_i % n].pack,
			   at[(size_t)_i % n].off + inside[(size_t)_i / n]);
	cfs_buf_free(&told);
}
END_TEST

/* The same after it was opened anew, when nothing was appended yet. */
START_TEST(test_scrub_log_reopened)
{
	struct cfs_engine *disk;
	struct cfs_index *index;
	struct log_record at[32];
	size_t n;

	ck_assert_int_eq(cfs_store_commit(bed.store), 0);
	disk = bed_disk(&bed);
	index = bed_index_copy(bed.index);
	ck_assert_int_eq(cfs_store_close(bed.store), 0);
	bed_open(&bed, disk, index);
	ck_assert_uint_eq(scrub().damaged, 0);
	n = log_records(at, CFS_ARRAY_SIZE(at));
	damage_log(at[n - 2].pack, at[n - 2].off + 75);
	cfs_buf_free(&told);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("scrub");
	TCase *t = tcase_create("scrub");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_scrub_whole);
	tcase_add_test(t, test_scrub_damage);
	tcase_add_test(t, test_scrub_missing_pack);
	tcase_add_test(t, test_fsck_cut_pack);
	tcase_add_test(t, test_scrub_nothing_known);
	tcase_add_test(t, test_scrub_cut_pack);
	tcase_add_loop_test(t, test_scrub_log, 0, 42);
	tcase_add_test(t, test_scrub_log_reopened);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
