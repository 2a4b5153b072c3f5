/* fsck: a whole namespace, and each thing that can be wrong with one, told. */
#include "store/map/dtype.h"
#include "tests/unit/fsck_bed.h"

static void del(const struct cfs_key *key)
{
	cfs_store_enter(bed.store);
	ck_assert_int_eq(
		cfs_levels_del(cfs_store_levels(bed.store), cfs_key_slice(key)),
		0);
	cfs_store_leave(bed.store);
}

START_TEST(test_whole)
{
	struct cfs_fsck_result result = fsck();

	ck_assert_str_eq(cfs_buf_str(&told), "");
	ck_assert_uint_eq(result.problems, 0);
	ck_assert_uint_eq(result.inodes, 7);
	ck_assert_uint_eq(result.dirents, 6);
	ck_assert_uint_eq(result.extents, 4);
	ck_assert_uint_eq(result.chunks, 2);
	ck_assert_uint_eq(result.maps, 2);
}
END_TEST

/* ---- objects that come after the cut ---- */

static int cut_late(void *arg, bool all, void **state_out)
{
	ck_assert(all);
	*state_out = *(bool *)arg ? arg : NULL;
	return 0;
}

/* As of a file that was being written: its chunk is appended by now, after the
 * levels were frozen. */
static int resolve_late(void *arg, void *state, struct cfs_levels *levels)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_extent e = {(uint64_t)3 * CHUNK, CHUNK, {{0}}, 0, CHUNK};
	struct cfs_key key;

	(void)arg;
	(void)state;
	bed_store_chunk(&bed, 3, CHUNK, &e.digest);
	cfs_key_extent(&key, 4, e.off);
	cfs_extent_encode(&e, &val);
	return cfs_levels_put_frozen(levels, cfs_key_slice(&key),
				     (struct cfs_slice){val.data, val.len});
}

static void done_late(void *arg, void *state, int r)
{
	(void)state;
	ck_assert_int_eq(r, 0);
	*(bool *)arg = false;
}

START_TEST(test_late)
{
	bool dirty = true;
	const struct cfs_participant late = {cut_late, resolve_late, done_late,
					     NULL, &dirty};
	struct cfs_fsck_result result;

	cfs_store_set_participant(bed.store, &late);
	result = fsck(); /* which commits first */
	ck_assert(!dirty);
	ck_assert_str_eq(cfs_buf_str(&told), "");
	ck_assert_uint_eq(result.extents, 5);
	ck_assert_uint_eq(result.chunks, 2); /* the index has it not */
	cfs_store_set_participant(bed.store, NULL);
}
END_TEST

/* ---- derived chunks ---- */

#define PART 40000 /* elements */

/* Weights in a file, their masters in none. */
static void put_derived(struct cfs_digest *master, struct cfs_digest *weights)
{
	struct cfs_chunk_part part = {.len = 4 * PART};
	struct cfs_extent e = {
		(uint64_t)5 * CHUNK, 2 * PART, {{0}}, 0, 2 * PART};
	uint8_t *raw = bed_bytes(4, 4 * PART);
	uint8_t *cast = malloc(2 * PART);
	struct cfs_pending *p[2];

	ck_assert_ptr_nonnull(cast);
	for (size_t i = 0; i < PART; i++)
		raw[4 * i + 3] &= 0x3f;
	cfs_dtype_cast(CFS_F32, raw, CFS_BF16, cast, PART);
	ck_assert_int_eq(cfs_store_reserve(bed.store, 6 * PART, false), 0);
	p[0] = cfs_store_ingest(bed.store, raw, 4 * PART, 4);
	p[1] = cfs_store_ingest(bed.store, cast, 2 * PART, 2);
	ck_assert_int_eq(cfs_pending_wait(p[0], master), 0);
	ck_assert_int_eq(cfs_pending_wait(p[1], weights), 0);
	cfs_pending_unref(p[0]);
	cfs_pending_unref(p[1]);
	e.digest = *weights;
	put_extent(4, &e);
	part.digest = *master;
	ck_assert_int_eq(cfs_store_derive(bed.store, weights, CFS_F32, CFS_BF16,
					  &part, 1),
			 0);
}

START_TEST(test_derived)
{
	struct cfs_digest master, weights;
	char hex[CFS_DIGEST_HEX];
	struct cfs_key key;

	put_derived(&master, &weights);
	ck_assert_uint_eq(fsck().problems, 0);
	ck_assert_str_eq(cfs_buf_str(&told), "");
	/* the weights' own record is there, but says nothing by itself */
	cfs_key_chunk(&key, &master);
	del(&key);
	ck_assert_uint_eq(fsck().problems, 1);
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), cfs_digest_hex(&master, hex)));
	ck_assert_ptr_nonnull(
		strstr(cfs_buf_str(&told), cfs_digest_hex(&weights, hex)));
}
END_TEST

START_TEST(test_empty)
{
	struct cfs_fsck_result result;

	teardown();
	bed_open(&bed, NULL, NULL);
	result = fsck();
	ck_assert_uint_eq(result.problems, 0);
	ck_assert_uint_eq(result.inodes, 0);
}
END_TEST

/* ---- one thing wrong at a time ---- */

static void no_inode(void)
{
	struct cfs_key key;

	cfs_key_inode(&key, 5);
	del(&key);
}

static void bad_inode(void)
{
	struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;

	cfs_key_inode(&key, 5);
	cfs_buf_put_str(&val, "\1 no inode");
	put(&key, &val);
}

static void no_name(void)
{
	struct cfs_key key;

	cfs_key_dirent(&key, 1, "small", 5);
	del(&key);
	cfs_key_cookie(&key, 1, 6);
	del(&key);
}

static void bad_links(void)
{
	put_file(3, 3, CFS_CONTENT_SEALED);
}

static void bad_dir_links(void)
{
	put_dir(1, 1, 2);
}

static void no_cookie(void)
{
	struct cfs_key key;

	cfs_key_cookie(&key, 2, 7);
	del(&key);
}

static void extra_cookie(void)
{
	put_cookie(2, 5, "ghost\n");
}

static void cookie_of_nobody(void)
{
	put_cookie(99, 5, "ghost");
}

static void other_cookie(void)
{
	put_cookie(1, 6, "smell");
}

static void bad_type(void)
{
	put_dirent(1, "small", 5, 6, DT_LNK);
}

static void bad_parent(void)
{
	put_dir(6, 1, 2);
}

static void two_names(void)
{
	put_name(1, "deep", 6, 7, DT_DIR);
}

static void below_itself(void)
{
	struct cfs_key key;

	/* sub hangs in deep, which hangs in sub */
	cfs_key_dirent(&key, 1, "sub", 3);
	del(&key);
	cfs_key_cookie(&key, 1, 3);
	del(&key);
	put_name(6, "sub", 2, 3, DT_DIR);
	put_dir(1, 1, 2);
	put_dir(2, 6, 3);
	put_dir(6, 2, 3);
}

static void in_a_file(void)
{
	put_name(5, "x", 4, 3, DT_REG);
}

static void no_root(void)
{
	struct cfs_key key;

	cfs_key_inode(&key, 1);
	del(&key);
}

static void overlap(void)
{
	struct cfs_extent e = whole(CHUNK - 1);

	put_extent(4, &e);
}

static void extents_of_other(void)
{
	struct cfs_extent e = whole(0);

	put_extent(5, &e);
}

static void bad_extent(void)
{
	struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;

	cfs_key_extent(&key, 4, 0);
	cfs_buf_put_str(&val, "no extent");
	put(&key, &val);
}

static void no_chunk(void)
{
	struct cfs_extent e = whole(0);

	e.digest.bytes[0] ^= 1;
	put_extent(4, &e);
}

static void bad_chunk_len(void)
{
	struct cfs_extent e = whole(0);

	e.chunk_len++;
	put_extent(4, &e);
}

static void chunk_of_map(void)
{
	struct cfs_key key;

	cfs_key_chunk(&key, &chunk2);
	del(&key);
}

static void no_map(void)
{
	struct cfs_key key;

	cfs_key_map(&key, &leaf);
	del(&key);
}

static void no_orphan(void)
{
	struct cfs_key key;

	cfs_key_orphan(&key, 7);
	del(&key);
}

static void orphan_with_name(void)
{
	struct cfs_key key;

	cfs_key_orphan(&key, 5);
	put_empty(&key);
}

static void orphan_of_nothing(void)
{
	struct cfs_key key;

	cfs_key_orphan(&key, 50);
	put_empty(&key);
}

static void xattr_of_nothing(void)
{
	struct cfs_key key;

	cfs_key_xattr(&key, 50, "user.b", 6);
	put_empty(&key);
}

static void low_ino(void)
{
	put_u64("next_ino", 7);
}

static void low_cookie(void)
{
	put_u64("next_cookie", 8);
}

static void odd_mode(void)
{
	put_inode(
		&(struct cfs_inode_record){.ino = 5, .mode = 0644, .nlink = 1});
}

static const struct wrong {
	void (*make)(void);
	const char *text;
} wrongs[] = {
	{no_inode, "small leads to inode 5, which is missing"},
	{bad_inode, "inode 5: Bad message"},
	{no_name, "inode 5 has no name"},
	{bad_links, "inode 3: 3 links instead of 2"},
	{bad_dir_links, "inode 1: 2 links instead of 3"},
	{no_cookie, "directory 2: the name of cookie 7 is not listed"},
	{extra_cookie, "directory 2: cookie 5 lists ghost?, which is not"},
	{cookie_of_nobody, "directory 99: cookie 5 lists ghost"},
	{other_cookie, "directory 1: cookie 6 lists smell"},
	{bad_type, "small has another type than inode 5"},
	{bad_parent, "directory 6 is deep in 2, but says it is in 1"},
	{two_names, "directory 6 has 2 names"},
	{below_itself, "is below itself"},
	{in_a_file, "x is in 5, which is no directory"},
	{no_root, "there is no root directory"},
	{overlap, "inode 4: extents overlap at"},
	{extents_of_other, "inode 5 has other content, but has an extent at 0"},
	{bad_extent, "inode 4: extent at 0 is damaged"},
	{no_chunk, "inode 4 at 0: chunk "},
	{bad_chunk_len, "has 300000 bytes instead of 300001"},
	{chunk_of_map, "inode 3 at 300000: chunk "},
	{no_map, "missing"},
	{no_orphan, "inode 7 has no name"},
	{orphan_with_name, "inode 5: an orphan with names"},
	{orphan_of_nothing, "orphan 50: no such inode"},
	{xattr_of_nothing, "attribute user.b of inode 50: no such inode"},
	{low_ino, "setting next_ino is not above 7"},
	{low_cookie, "setting next_cookie is not above 8"},
	{odd_mode, "inode 5: mode 644 with content 0"},
};

START_TEST(test_wrong)
{
	struct cfs_fsck_result result;

	wrongs[_i].make();
	result = fsck();
	ck_assert_uint_ge(result.problems, 1);
	ck_assert_msg(strstr(cfs_buf_str(&told), wrongs[_i].text) != NULL,
		      "not told: %s\nbut: %s", wrongs[_i].text,
		      cfs_buf_str(&told));
	cfs_buf_free(&told);
}
END_TEST

static bool stop_at_once(void *arg, uint64_t done, uint64_t total,
			 const char *what)
{
	(void)arg;
	(void)done;
	(void)total;
	ck_assert_ptr_nonnull(what);
	return false;
}

START_TEST(test_cancel)
{
	const struct cfs_job_control control = {stop_at_once, NULL, NULL};
	struct cfs_fsck_result result;
	struct cfs_scrub_result scrubbed;

	ck_assert_int_eq(cfs_store_fsck(bed.store, &control, &result, NULL),
			 -ECANCELED);
	ck_assert_int_eq(cfs_store_scrub(bed.store, &control, &scrubbed, NULL),
			 -ECANCELED);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("fsck");
	TCase *t = tcase_create("fsck");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_whole);
	tcase_add_test(t, test_empty);
	tcase_add_loop_test(t, test_wrong, 0, (int)CFS_ARRAY_SIZE(wrongs));
	tcase_add_test(t, test_late);
	tcase_add_test(t, test_derived);
	tcase_add_test(t, test_cancel);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
