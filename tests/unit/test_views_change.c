/*
 * Views over a directory that changes underneath (tests/fake_format.c).
 */
#include "tests/unit/views_fixture.h"

/* In place. */
static void rewrite(const char *path, const char *text)
{
	write_to(path, text, 0);
}

START_TEST(test_identity)
{
	uint64_t dir = ino_of("run/@dp3/step1");
	uint64_t file = ino_of("run/@dp3/step1/shard_0_of_3.bin");

	ck_assert_uint_ge(dir, UINT64_C(1) << 63);
	ck_assert_uint_ge(file, UINT64_C(1) << 63);
	ck_assert_uint_eq(ino_of("run/@dp3/step1"), dir);
	ck_assert_uint_ne(ino_of("run/@dp4/step1"), dir);
	ck_assert_uint_ne(ino_of("run/@dp=3/step1"), dir);
	ck_assert_uint_ne(ino_of("run/step1/@dp3"), dir);
	ck_assert_uint_eq(ino_of("run/step1/@dp3/shard_0_of_3.bin"), file);
	ck_assert_uint_ne(ino_of("run/@dp3/step2/shard_0_of_3.bin"), file);
	put_step("step1", "abcd", "efgh"); /* the same bytes, other files */
	ck_assert_uint_ne(ino_of("run/@dp3/step1"), dir);
	ck_assert_uint_ne(ino_of("run/@dp3/step1/shard_0_of_3.bin"), file);
}
END_TEST

START_TEST(test_pointer_incomplete)
{
	put("run/step3/shard_0_of_2.bin", "half");
	put("run/latest", "step3\n");
	expect_text("run/latest", "step3\n");
	expect_text("run/@dp3/latest", "step2");
	ck_assert_ptr_nonnull(strstr(logged, "step3"));
	ck_assert_ptr_nonnull(strstr(logged, "1 of 2 shards"));
	put("run/step3/shard_1_of_2.bin", "full");
	expect_text("run/@dp3/latest", "step3\n");
}
END_TEST

/* Not "no such file": a trainer would start anew. */
START_TEST(test_step_incomplete)
{
	struct cfs_error err = {.text = ""};

	put("run/step3/shard_0_of_2.bin", "half");
	ck_assert_int_eq(error_at("run/@dp3/step3", &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "is missing"));
	err.text[0] = '\0';
	ck_assert_int_eq(error_at("run/step3/@dp3", &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "is missing"));
	/* as saved it can be looked at, and it may become whole */
	ck_assert_int_eq(error_at("run/step3", NULL), 0);
	put("run/step3/shard_1_of_2.bin", "full");
	ck_assert_int_eq(error_at("run/@dp3/step3", NULL), 0);
	ck_assert_int_eq(error_at("run/step3/@dp3", NULL), 0);
}
END_TEST

START_TEST(test_pointer_odd)
{
	put("run/latest", "step7"); /* not there */
	expect_text("run/@dp3/latest", "step2");
	put("run/latest", "step0"); /* nothing before it */
	expect_text("run/@dp3/latest", "step0");
	put("run/latest", "best");
	expect_text("run/@dp3/latest", "best");
	put("run/latest", "../other");
	expect_text("run/@dp3/latest", "../other");
	put("run/latest", "");
	expect_text("run/@dp3/latest", "");
}
END_TEST

START_TEST(test_pointer_moves)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *old =
		at("run/@dp3/latest");
	uint64_t ino = ino_of("run/@dp3/latest");
	char buf[16];

	rewrite("run/latest", "step1");
	expect_text("run/@dp3/latest", "step1");
	ck_assert_uint_ne(ino_of("run/@dp3/latest"), ino);
	ck_assert_int_eq(read_node(old, buf, sizeof(buf)), 0);
	ck_assert_str_eq(buf, "step2");
}
END_TEST

START_TEST(test_new_step_appears)
{
	ck_assert_int_eq(error_at("run/@dp3/step9", NULL), -ENOENT);
	put_step("step9", "0123", "4567");
	expect_text("run/@dp3/step9/shard_2_of_3.bin", "67");
	expect_names("run/@dp3", "latest? log.txt step1? step2? step9?");
}
END_TEST

START_TEST(test_deleted_while_open)
{
	_cleanup_(cfs_vhandle_closep) struct cfs_vhandle *handle = NULL;
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		at("run/@dp1/step1/shard_0_of_1.bin");
	char buf[16];

	ck_assert_int_eq(cfs_vnode_open(node, &handle, NULL), 0);
	take_away("run/step1/shard_0_of_2.bin");
	take_away("run/step1/shard_1_of_2.bin");
	ck_assert_int_eq((int)cfs_vhandle_pread(handle, buf, 16, 0), 8);
	ck_assert_mem_eq(buf, "abcdefgh", 8);
	ck_assert_int_lt(error_at("run/@dp1/step1/shard_0_of_1.bin", NULL), 0);
}
END_TEST

/* Rewritten in place: what was open refuses, what is opened anew is new. */
START_TEST(test_rewritten_in_place)
{
	_cleanup_(cfs_vhandle_closep) struct cfs_vhandle *handle = NULL;
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		at("run/@dp1/step1/shard_0_of_1.bin");
	char buf[16];

	ck_assert_int_eq(cfs_vnode_open(node, &handle, NULL), 0);
	rewrite("run/step1/shard_1_of_2.bin", "EFGH");
	ck_assert_int_eq((int)cfs_vhandle_pread(handle, buf, 16, 0), -ESTALE);
	/* The stale node refuses, and makes the next look-up look. */
	ck_assert_int_eq(read_node(node, buf, sizeof(buf)), -ESTALE);
	expect_text("run/@dp1/step1/shard_0_of_1.bin", "abcdEFGH");
}
END_TEST

START_TEST(test_source_file_changes)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = at("run/log.txt");
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *again = NULL;
	char buf[32];

	rewrite("run/log.txt", "epoch 2");
	ck_assert_int_eq(read_node(node, buf, sizeof(buf)), -ESTALE);
	again = at("run/log.txt");
	ck_assert_uint_ne(cfs_vnode_key(again), cfs_vnode_key(node));
	ck_assert_int_eq(read_node(again, buf, sizeof(buf)), 0);
	ck_assert_str_eq(buf, "epoch 2");
}
END_TEST

/* A shard more in a directory whose other shards are the same. */
START_TEST(test_step_grows)
{
	unsigned reads;

	cfs_vnode_unref(at("run/@dp3/step1"));
	reads = atomic_load(&cfs_fake_reads);

	put("run/step1/notes.txt", "not the format's");
	expect_text("run/@dp3/step1/shard_2_of_3.bin", "gh");
	ck_assert_uint_eq(atomic_load(&cfs_fake_reads), reads);
	put("run/step1/shard_7_of_9.bin", "more");
	(void)error_at("run/@dp3/step1", NULL);
	ck_assert_uint_gt(atomic_load(&cfs_fake_reads), reads);
}
END_TEST

/* A step as the mount's root follows the step. */
START_TEST(test_root_step_view)
{
	close_views();
	put("shard_0_of_1.bin", "xyz");
	open_views("dp3");
	expect_text("shard_1_of_3.bin", "y");
	expect_text("latest", ".");
	put("shard_0_of_1.bin", "123");
	expect_text("shard_1_of_3.bin", "2");
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("views_change");
	TCase *t = tcase_create("change");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_test(t, test_identity);
	tcase_add_test(t, test_pointer_incomplete);
	tcase_add_test(t, test_step_incomplete);
	tcase_add_test(t, test_pointer_odd);
	tcase_add_test(t, test_pointer_moves);
	tcase_add_test(t, test_new_step_appears);
	tcase_add_test(t, test_deleted_while_open);
	tcase_add_test(t, test_rewritten_in_place);
	tcase_add_test(t, test_source_file_changes);
	tcase_add_test(t, test_step_grows);
	tcase_add_test(t, test_root_step_view);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
