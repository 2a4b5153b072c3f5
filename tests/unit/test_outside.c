/* Paths of templates, and the source that finds them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fs/view/internal.h"
#include "store/util/buf.h"
#include "tests/test.h"

static void expect(const char *path, const char *named, const char *real,
		   const char *want)
{
	_cleanup_(cfs_freep) char *got = NULL;

	ck_assert_int_eq(cfs_outside_path(path, named, real, &got), 0);
	ck_assert_str_eq(got, want);
}

START_TEST(paths)
{
	/* below what is looked at, perhaps a store: its own */
	expect("/s/dummy/step1", "/s", NULL, "dummy/step1");
	expect("/s/run", "/s/run", "/s/run", "");
	expect("/s/run/step1", "/s/run/", NULL, "step1");
	/* elsewhere on the machine */
	expect("/s2/step1", "/s", NULL, "/s2/step1");
	expect("/a/step1", NULL, NULL, "/a/step1");
	expect("/a/dummy", "/a/run", "/a/run", "/a/dummy");
	/* beside it in a store that is mounted */
	expect("/s/dummy/step1", "/s/run", "/mnt/run", "/mnt/dummy/step1");
	expect("/s/dummy/step1", "/s/a/run", "/mnt/a/run", "/mnt/dummy/step1");
	expect("/t/dummy", "/s/run", "/mnt/run", "/t/dummy");
}
END_TEST

static void expect_text(struct cfs_source *source, const char *path,
			const char *want)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;

	ck_assert_int_eq(cfs_source_read_small(source, path, 64, &text), 0);
	ck_assert_str_eq(cfs_buf_str(&text), want);
}

START_TEST(source)
{
	char dir[] = "/tmp/cfs-outside-XXXXXX", path[64];
	struct cfs_source *inner = cfs_source_mem_new();
	struct cfs_source *both = cfs_outside_new(inner);
	struct stat st;
	FILE *f;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	fputs("outside", f);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(cfs_source_mem_put(inner, "a/file", "inside", 6), 0);
	expect_text(both, "a/file", "inside");
	expect_text(both, path, "outside");
	ck_assert_int_eq(both->ops->stat(both, "a", &st), 0);
	ck_assert(S_ISDIR(st.st_mode));
	ck_assert_int_eq(both->ops->stat(both, dir, &st), 0);
	ck_assert(S_ISDIR(st.st_mode));
	ck_assert_int_eq(both->ops->stat(both, "/none/there", &st), -ENOENT);
	ck_assert_int_eq(both->ops->stat(both, path + 1, &st), -ENOENT);
	cfs_source_free(both);
	cfs_source_free(inner);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("outside");
	TCase *tc = tcase_create("outside");

	tcase_add_test(tc, paths);
	tcase_add_test(tc, source);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
