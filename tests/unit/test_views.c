/*
 * Views over a directory and a format that is easy to check by eye
 * (tests/fake_format.c).
 */
#include "tests/unit/views_fixture.h"

START_TEST(test_source_as_it_is)
{
	expect_text("run/log.txt", "epoch 1");
	expect_text("run/latest", "step2");
	expect_text("run/step1/shard_1_of_2.bin", "efgh");
	expect_names("run/step1", "shard_0_of_2.bin shard_1_of_2.bin");
	ck_assert_int_eq(error_at("run/nothing", NULL), -ENOENT);
	ck_assert_int_eq(error_at("run/log.txt/x", NULL), -ENOTDIR);
	ck_assert_int_eq(error_at("run/../run", NULL), -EINVAL);
	ck_assert_uint_lt(ino_of("run/log.txt"), UINT64_C(1) << 63);
	ck_assert_uint_eq(atomic_load(&cfs_fake_reads), 0);
}
END_TEST

START_TEST(test_run_view)
{
	expect_names("run/@dp3", "latest? log.txt step1? step2?");
	ck_assert_uint_eq(atomic_load(&cfs_fake_reads), 0);
	expect_text("run/@dp3/step1/shard_0_of_3.bin", "abc");
	expect_text("run/@dp3/step1/shard_1_of_3.bin", "def");
	expect_text("run/@dp3/step1/shard_2_of_3.bin", "gh");
	expect_text("run/@dp3/latest", "step2");
	expect_text("run/@dp3/log.txt", "epoch 1");
	expect_names("run/@dp3/step2", "shard_0_of_3.bin shard_1_of_3.bin "
				       "shard_2_of_3.bin zero_to_fp32.py");
	expect_text("run/@dp3/step2/zero_to_fp32.py", "print()");
	ck_assert_int_eq(error_at("run/@dp3/step2/shard_0_of_2.bin", NULL),
			 -ENOENT);
	ck_assert_uint_eq(atomic_load(&cfs_fake_reads), 2);
	ck_assert_uint_eq(atomic_load(&cfs_fake_writes), 2);
}
END_TEST

START_TEST(test_step_view)
{
	expect_names("run/step1/@dp1", "latest? shard_0_of_1.bin");
	expect_text("run/step1/@dp1/shard_0_of_1.bin", "abcdefgh");
	expect_text("run/step1/@dp1/latest", ".");
	ck_assert_int_eq(error_at("run/@dp1/step1/latest", NULL), -ENOENT);
}
END_TEST

/* A step that is as asked already passes through, in both places. */
START_TEST(test_as_saved)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *in_run =
		at("run/@dp2/step1");
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *step =
		at("run/step1/@dp2");

	ck_assert_int_eq(cfs_vnode_kind(in_run), CFS_VNODE_SOURCE);
	expect_text("run/@dp2/step1/shard_0_of_2.bin", "abcd");
	ck_assert_uint_eq(ino_of("run/@dp2/step1/shard_0_of_2.bin"),
			  ino_of("run/step1/shard_0_of_2.bin"));
	ck_assert_uint_ne(ino_of("run/@dp2/step1"), ino_of("run/step1"));
	ck_assert_int_eq(cfs_vnode_kind(step), CFS_VNODE_STEP_VIEW);
	expect_names("run/step1/@dp2",
		     "latest? shard_0_of_2.bin shard_1_of_2.bin");
	expect_text("run/step1/@dp2/shard_1_of_2.bin", "efgh");
	expect_text("run/step1/@dp2/latest", ".");
	ck_assert_uint_eq(atomic_load(&cfs_fake_writes), 0);
}
END_TEST

START_TEST(test_where_views_are)
{
	ck_assert_int_eq(error_at("@dp3", NULL), -ENOENT);
	ck_assert_int_eq(error_at("plain/@dp3", NULL), -ENOENT);
	put("run/@dp3", "a real file");
	expect_text("run/@dp3", "a real file");
	put("run/step1/@dp3/real", "r");
	expect_names("run/step1/@dp3", "real");
}
END_TEST

START_TEST(test_refusals)
{
	struct cfs_error err = {.text = ""};

	ck_assert_int_eq(error_at("run/@turbo", &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "turbo"));
	ck_assert_int_eq(error_at("run/@zero2/step1", &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "no other stage"));
	ck_assert_int_eq(error_at("run/@dp9/step1", &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "fewer bytes"));
	ck_assert_int_eq(error_at("run/@dp3/@dp2", &err), -EINVAL);
	ck_assert_int_eq(error_at("run/@dp3/step1/@dp2", &err), -EINVAL);
	ck_assert_int_eq(error_at("run/@dp2/step1/@dp3", &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "view of a view"));
	/* Said once each, not at every look-up. */
	ck_assert_uint_eq(n_logged, 6);
	ck_assert_int_eq(error_at("run/@zero2/step1", &err), -ENOTSUP);
	ck_assert_uint_eq(n_logged, 6);
	ck_assert_uint_eq(atomic_load(&cfs_fake_writes), 1); /* dp3 */
}
END_TEST

static int collect(void *arg, const char *name, const struct stat *st)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", (const char *)arg, name);
	if (st->st_ino)
		ck_assert_msg(ino_of(path) == st->st_ino, "%s", path);
	return 0;
}

/* What a listing says of a name is what looking it up says. */
START_TEST(test_listed_numbers)
{
	static const char *const dirs[] = {"run", "run/@dp3", "run/@dp3/step2",
					   "run/step1/@dp3", "run/@dp2/step1"};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(dirs); i++) {
		_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *dir = at(dirs[i]);
		char name[64];

		strcpy(name, dirs[i]);
		ck_assert_int_eq(cfs_vnode_readdir(dir, collect, name), 0);
	}
}
END_TEST

static void *look_up(void *arg)
{
	struct cfs_vnode *node = NULL;
	struct cfs_error err;
	char buf[64];
	int r = cfs_vnode_walk(root, arg, &node, &err);

	if (!r)
		r = read_node(node, buf, sizeof(buf));
	cfs_vnode_unref(node);
	return r ? arg : NULL;
}

START_TEST(test_single_flight)
{
	enum {
		N = 16
	};
	char path[] = "run/@dp3-sub50/step1/shard_0_of_3.bin";
	pthread_t threads[N];
	void *bad;

	for (int i = 0; i < N; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, look_up, path), 0);
	for (int i = 0; i < N; i++) {
		ck_assert_int_eq(pthread_join(threads[i], &bad), 0);
		ck_assert_ptr_null(bad);
	}
	ck_assert_uint_eq(atomic_load(&cfs_fake_reads), 1);
	ck_assert_uint_eq(atomic_load(&cfs_fake_writes), 1);
	ck_assert_uint_eq(atomic_load(&cfs_fake_builds), 1);
}
END_TEST

/* More steps and more views than are kept: still right, only slower. */
START_TEST(test_bounded)
{
	char path[96], text[16];

	for (int i = 10; i < 50; i++) {
		snprintf(path, sizeof(path), "step%d", i);
		snprintf(text, sizeof(text), "%04d", i);
		put_step(path, text, "wxyz");
	}
	for (int round = 0; round < 2; round++)
		for (int i = 10; i < 50; i++) {
			snprintf(path, sizeof(path),
				 "run/@dp4/step%d/shard_1_of_4.bin", i);
			snprintf(text, sizeof(text), "%02d", i);
			expect_text(path, text);
		}
	for (int dp = 3; dp < 9; dp++)
		for (int sub = 1; sub < 5; sub++) {
			snprintf(path, sizeof(path),
				 "run/@dp%d-sub%d/step1/shard_0_of_%d.bin", dp,
				 sub, dp);
			cfs_vnode_unref(at(path));
		}
}
END_TEST

START_TEST(test_root_view)
{
	close_views();
	take_away("run/latest");
	put("latest", "a");
	put("a/shard_0_of_1.bin", "xyz");
	open_views("@dp3");
	expect_text("a/shard_1_of_3.bin", "y");
	expect_text("latest", "a");
	expect_text("plain/file", "x");
	ck_assert_int_eq(error_at("@dp2", NULL), -EINVAL);
	put("b/shard_0_of_1.bin", "uvw");
	expect_text("b/shard_2_of_3.bin", "w");
}
END_TEST

START_TEST(test_root_view_refused)
{
	struct cfs_views_options options = {.view = "dpx"};
	struct cfs_views *none;
	struct cfs_error err = {.text = ""};

	ck_assert_int_eq(cfs_views_open(source, &options, &none, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "dpx"));
	/* The source here is a directory of runs. */
	err.text[0] = '\0';
	options.view = "dp2";
	ck_assert_int_eq(cfs_views_open(source, &options, &none, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "not a run"));
	ck_assert_int_eq(error_at("@dp2", &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "is not a run"));
}
END_TEST

START_TEST(test_xattrs)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		at("run/@dp3/step1/shard_1_of_3.bin");
	char buf[512], names[512];
	ssize_t n, len;

	n = cfs_vnode_getxattr(node, "user.ckptfs.segments", buf, sizeof(buf));
	ck_assert_int_gt(n, 0);
	ck_assert_str_eq((buf[n] = '\0', buf), "range: 2 (3 bytes)");
	n = cfs_vnode_getxattr(node, "user.ckptfs.files", buf, sizeof(buf));
	ck_assert_int_gt(n, 0);
	ck_assert_str_eq((buf[n] = '\0', buf), "run/step1/shard_0_of_2.bin\n"
					       "run/step1/shard_1_of_2.bin");
	n = cfs_vnode_getxattr(node, "user.ckptfs.view", buf, sizeof(buf));
	ck_assert_str_eq((buf[n] = '\0', buf), "@dp3");
	n = cfs_vnode_getxattr(node, "user.ckptfs.source", buf, sizeof(buf));
	ck_assert_str_eq((buf[n] = '\0', buf), "run/step1");
	ck_assert_int_eq(cfs_vnode_getxattr(node, "user.other", buf, 9),
			 -ENODATA);
	ck_assert_int_eq(cfs_vnode_getxattr(node, "user.ckptfs.view", buf, 2),
			 -ERANGE);
	ck_assert_int_eq(cfs_vnode_getxattr(node, "user.ckptfs.view", NULL, 0),
			 4);
	len = cfs_vnode_listxattr(node, names, sizeof(names));
	ck_assert_int_gt(len, 0);
	for (char *p = names; p < names + len; p += strlen(p) + 1)
		ck_assert_int_gt(cfs_vnode_getxattr(node, p, buf, sizeof(buf)),
				 0);
}
END_TEST

START_TEST(test_verbs)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *run = at("run");
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *step = at("run/step1");
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *plain = at("plain");
	_cleanup_(cfs_step_unrefp) struct cfs_step *read = NULL;
	struct cfs_step *none;

	ck_assert_int_eq(cfs_vnode_is_run(run), 1);
	ck_assert_int_eq(cfs_vnode_is_step(run), 0);
	ck_assert_int_eq(cfs_vnode_is_step(step), 1);
	ck_assert_int_eq(cfs_vnode_is_run(plain), 0);
	ck_assert_int_eq(cfs_vnode_step(step, &read, NULL), 0);
	ck_assert_uint_eq(read->topology.dp, 2);
	ck_assert_int_eq(cfs_vnode_step(plain, &none, NULL), -EINVAL);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("views");
	TCase *t = tcase_create("views");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, test_source_as_it_is);
	tcase_add_test(t, test_run_view);
	tcase_add_test(t, test_step_view);
	tcase_add_test(t, test_as_saved);
	tcase_add_test(t, test_where_views_are);
	tcase_add_test(t, test_refusals);
	tcase_add_test(t, test_listed_numbers);
	tcase_add_test(t, test_single_flight);
	tcase_add_test(t, test_bounded);
	tcase_add_test(t, test_root_view);
	tcase_add_test(t, test_root_view_refused);
	tcase_add_test(t, test_xattrs);
	tcase_add_test(t, test_verbs);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
