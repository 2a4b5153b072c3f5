/* store/map/source: one suite over both sources, then what each has alone. */
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>

#include "store/map/source.h"
#include "store/util/buf.h"

/* A place to put files into, seen through a source. */
struct bed {
	struct cfs_source *source;
	char root[64]; /* "" in memory */
};

static void bed_open(struct bed *bed, int in_memory)
{
	*bed = (struct bed){NULL, ""};
	if (in_memory) {
		bed->source = cfs_source_mem_new();
		ck_assert_ptr_nonnull(bed->source);
		return;
	}
	(void)snprintf(bed->root, sizeof(bed->root), "/tmp/cfs_source.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(bed->root));
	ck_assert_int_eq(cfs_source_dir_open(bed->root, &bed->source), 0);
}

static void bed_close(struct bed *bed)
{
	char cmd[128];

	cfs_source_free(bed->source);
	if (!bed->root[0])
		return;
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", bed->root);
	ck_assert_int_eq(system(cmd), 0);
}

static void full_path(const struct bed *bed, const char *path, char *out)
{
	(void)snprintf(out, 256, "%s/%s", bed->root, path);
}

static void write_at(const char *path, int flags, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(close(fd), 0);
}

/* A new inode at @path, with its parents. */
static void put(struct bed *bed, const char *path, const char *text)
{
	char full[256], cmd[600], tmp[300];

	if (!bed->root[0]) {
		ck_assert_int_eq(cfs_source_mem_put(bed->source, path, text,
						    strlen(text)),
				 0);
		return;
	}
	full_path(bed, path, full);
	(void)snprintf(cmd, sizeof(cmd), "mkdir -p \"$(dirname '%s')\"", full);
	ck_assert_int_eq(system(cmd), 0);
	(void)snprintf(tmp, sizeof(tmp), "%s.new", full);
	write_at(tmp, O_CREAT | O_EXCL, text);
	ck_assert_int_eq(rename(tmp, full), 0);
}

static void rewrite(struct bed *bed, const char *path, const char *text)
{
	char full[256];

	if (!bed->root[0]) {
		ck_assert_int_eq(cfs_source_mem_rewrite(bed->source, path, text,
							strlen(text)),
				 0);
		return;
	}
	full_path(bed, path, full);
	write_at(full, O_TRUNC, text);
}

static void remove_file(struct bed *bed, const char *path)
{
	char full[256];

	if (!bed->root[0]) {
		ck_assert_int_eq(cfs_source_mem_remove(bed->source, path), 0);
		return;
	}
	full_path(bed, path, full);
	ck_assert_int_eq(unlink(full), 0);
}

static int open_file(struct bed *bed, const char *path, struct cfs_file **out)
{
	return bed->source->ops->open(bed->source, path, out);
}

static void expect_text(struct cfs_file *file, const char *text)
{
	char got[64];
	ssize_t n = file->ops->pread(file, got, sizeof(got), 0);

	ck_assert_int_eq(n, (ssize_t)strlen(text));
	ck_assert_mem_eq(got, text, strlen(text));
}

START_TEST(reads)
{
	_cleanup_(cfs_file_closep) struct cfs_file *f = NULL;
	struct bed bed;
	char buf[8];

	bed_open(&bed, _i);
	put(&bed, "a/b/c", "hello");
	ck_assert_int_eq(open_file(&bed, "a/b/c", &f), 0);
	expect_text(f, "hello");
	ck_assert_int_eq(f->ops->pread(f, buf, 8, 3), 2);
	ck_assert_int_eq(f->ops->pread(f, buf, 8, 5), 0);
	ck_assert_int_eq(f->ops->pread(f, buf, 8, UINT64_MAX), 0);
	ck_assert_int_eq(cfs_file_pread_all(f, buf, 5, 0), 0);
	ck_assert_int_eq(cfs_file_pread_all(f, buf, 6, 0), -EIO);
	f->ops->advise(f, 0, 5);
	f->ops->advise(f, UINT64_MAX, 5);
	cfs_file_close(cfs_steal(f));
	ck_assert_int_eq(open_file(&bed, "a/b", &f), -EISDIR);
	ck_assert_int_eq(open_file(&bed, "", &f), -EISDIR);
	ck_assert_int_eq(open_file(&bed, "a/x", &f), -ENOENT);
	bed_close(&bed);
}
END_TEST

START_TEST(stats)
{
	struct statvfs fs;
	struct stat st;
	struct bed bed;

	bed_open(&bed, _i);
	put(&bed, "a/b", "12345");
	ck_assert_int_eq(bed.source->ops->stat(bed.source, "a/b", &st), 0);
	ck_assert(S_ISREG(st.st_mode));
	ck_assert_int_eq(st.st_size, 5);
	ck_assert_int_eq(cfs_source_stat_file(bed.source, "a/b", &st), 0);
	ck_assert_int_eq(st.st_size, 5);
	ck_assert_int_eq(bed.source->ops->stat(bed.source, "a", &st), 0);
	ck_assert(S_ISDIR(st.st_mode));
	ck_assert_int_eq(bed.source->ops->stat(bed.source, "", &st), 0);
	ck_assert(S_ISDIR(st.st_mode));
	ck_assert_int_eq(bed.source->ops->stat(bed.source, "x", &st), -ENOENT);
	ck_assert_int_eq(bed.source->ops->statfs(bed.source, &fs), 0);
	ck_assert_uint_gt(fs.f_bsize, 0);
	bed_close(&bed);
}
END_TEST

static int note_name(void *arg, const char *name, const struct stat *st)
{
	cfs_buf_printf(arg, "%s%s ", name, S_ISDIR(st->st_mode) ? "/" : "");
	return 0;
}

static int stop_at_once(void *arg, const char *name, const struct stat *st)
{
	(void)name;
	(void)st;
	++*(int *)arg;
	return -ECANCELED;
}

START_TEST(lists)
{
	_cleanup_(cfs_buf_free) struct cfs_buf names = CFS_BUF_INIT;
	const struct cfs_source_ops *ops;
	struct bed bed;
	int calls = 0;

	bed_open(&bed, _i);
	ops = bed.source->ops;
	put(&bed, "dir/x", "1");
	put(&bed, "dir/y/z", "1");
	put(&bed, "dir/y/w", "1");
	put(&bed, "dir-ectory", "1");
	ck_assert_int_eq(ops->readdir(bed.source, "", note_name, &names), 0);
	ck_assert_uint_eq(names.len, strlen("dir/ dir-ectory "));
	ck_assert_ptr_nonnull(strstr(cfs_buf_str(&names), "dir/ "));
	ck_assert_ptr_nonnull(strstr(cfs_buf_str(&names), "dir-ectory "));
	cfs_buf_reset(&names);
	ck_assert_int_eq(ops->readdir(bed.source, "dir", note_name, &names), 0);
	ck_assert_uint_eq(names.len, strlen("x y/ "));
	ck_assert_int_eq(ops->readdir(bed.source, "dir", stop_at_once, &calls),
			 -ECANCELED);
	ck_assert_int_eq(calls, 1);
	ck_assert_int_eq(ops->readdir(bed.source, "no", note_name, &names),
			 -ENOENT);
	ck_assert_int_eq(ops->readdir(bed.source, "dir/x", note_name, &names),
			 -ENOTDIR);
	bed_close(&bed);
}
END_TEST

START_TEST(handles_outlive_names)
{
	_cleanup_(cfs_file_closep) struct cfs_file *a = NULL, *b = NULL;
	struct cfs_version va, vb;
	struct bed bed;
	struct stat st;

	bed_open(&bed, _i);
	put(&bed, "f", "old");
	ck_assert_int_eq(open_file(&bed, "f", &a), 0);
	ck_assert_int_eq(cfs_file_settle(a, &va), 0);
	put(&bed, "f", "new");
	expect_text(a, "old");
	ck_assert_int_eq(open_file(&bed, "f", &b), 0);
	expect_text(b, "new");
	ck_assert_int_eq(cfs_file_settle(b, &vb), 0);
	ck_assert(!cfs_version_equal(&va, &vb));
	ck_assert_int_eq(a->ops->stat(a, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	remove_file(&bed, "f");
	expect_text(b, "new");
	ck_assert_int_eq(open_file(&bed, "f", &a), -ENOENT);
	cfs_file_close(cfs_steal(a));
	cfs_file_close(cfs_steal(b));
	bed_close(&bed);
}
END_TEST

/* As fast as it can be done: only a settled version tells them apart. */
START_TEST(settled_versions_tell_rewrites)
{
	_cleanup_(cfs_file_closep) struct cfs_file *f = NULL;
	struct cfs_version v, w;
	struct bed bed;

	bed_open(&bed, _i);
	put(&bed, "f", "0");
	ck_assert_int_eq(open_file(&bed, "f", &f), 0);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(cfs_file_settle(f, &v), 0);
		ck_assert_int_eq(cfs_file_check(f, &v), 0);
		rewrite(&bed, "f", i % 2 ? "0" : "1");
		ck_assert_int_eq(cfs_file_check(f, &v), -ESTALE);
		ck_assert_int_eq(cfs_file_settle(f, &w), 0);
		ck_assert(!cfs_version_equal(&v, &w));
	}
	cfs_file_close(cfs_steal(f));
	bed_close(&bed);
}
END_TEST

START_TEST(small_files)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	char big[10001];
	struct bed bed;

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	bed_open(&bed, _i);
	put(&bed, "latest", "global_step5");
	put(&bed, "big", big);
	ck_assert_int_eq(
		cfs_source_read_small(bed.source, "latest", 100, &text), 0);
	ck_assert_str_eq(cfs_buf_str(&text), "global_step5");
	ck_assert_int_eq(cfs_source_read_small(bed.source, "latest", 11, &text),
			 -EFBIG);
	ck_assert_int_eq(cfs_source_read_small(bed.source, "big", 10000, &text),
			 0);
	ck_assert_uint_eq(text.len, 10012);
	ck_assert_int_eq(cfs_source_read_small(bed.source, "big", 9999, &text),
			 -EFBIG);
	ck_assert_int_eq(cfs_source_read_small(bed.source, "no", 9, &text),
			 -ENOENT);
	bed_close(&bed);
}
END_TEST

START_TEST(paths)
{
	const char *bad[] = {"/a",   "a//b",  "a/",   ".",     "..",
			     "a/..", "a/./b", "../a", "a/../b"};
	struct cfs_file *f;
	struct stat st;
	struct bed bed;

	bed_open(&bed, 0);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(bad); i++) {
		ck_assert(!cfs_source_path_ok(bad[i]));
		ck_assert_int_eq(open_file(&bed, bad[i], &f), -EINVAL);
		ck_assert_int_eq(bed.source->ops->stat(bed.source, bad[i], &st),
				 -EINVAL);
	}
	ck_assert(cfs_source_path_ok(""));
	ck_assert(cfs_source_path_ok("...") && cfs_source_path_ok(".a/..b"));
	bed_close(&bed);
}
END_TEST

START_TEST(dir_links_pipes_attributes)
{
	_cleanup_(cfs_buf_free) struct cfs_buf target = CFS_BUF_INIT;
	_cleanup_(cfs_file_closep) struct cfs_file *f = NULL;
	const struct cfs_source_ops *ops;
	char full[256], value[16];
	struct stat st;
	struct bed bed;

	bed_open(&bed, 0);
	ops = bed.source->ops;
	put(&bed, "d/file", "text");
	full_path(&bed, "link", full);
	ck_assert_int_eq(symlink("d/file", full), 0);
	ck_assert_int_eq(ops->stat(bed.source, "link", &st), 0);
	ck_assert(S_ISLNK(st.st_mode));
	ck_assert_int_eq(ops->readlink(bed.source, "link", &target), 0);
	ck_assert_str_eq(cfs_buf_str(&target), "d/file");
	ck_assert_int_eq(ops->readlink(bed.source, "d/file", &target), -EINVAL);
	ck_assert_int_eq(open_file(&bed, "link", &f), 0);
	expect_text(f, "text");
	cfs_file_close(cfs_steal(f));

	full_path(&bed, "pipe", full);
	ck_assert_int_eq(mkfifo(full, 0600), 0);
	ck_assert_int_eq(open_file(&bed, "pipe", &f), -EINVAL);

	ck_assert_int_eq(
		ops->getxattr(bed.source, "d/file", "user.no", value, 16),
		-ENODATA);
	full_path(&bed, "d/file", full);
	if (setxattr(full, "user.cfs", "v", 1, 0) == 0) {
		ck_assert_int_eq(ops->getxattr(bed.source, "d/file", "user.cfs",
					       value, sizeof(value)),
				 1);
		ck_assert_int_eq(value[0], 'v');
		ck_assert_int_gt(ops->listxattr(bed.source, "d/file", NULL, 0),
				 0);
	}
	ck_assert_int_ge(ops->listxattr(bed.source, "", NULL, 0), 0);
	bed_close(&bed);
}
END_TEST

/* The directory is held, not its name. */
START_TEST(dir_is_held)
{
	_cleanup_(cfs_file_closep) struct cfs_file *f = NULL;
	char moved[80];
	struct bed bed;

	bed_open(&bed, 0);
	put(&bed, "f", "here");
	(void)snprintf(moved, sizeof(moved), "%s.moved", bed.root);
	ck_assert_int_eq(rename(bed.root, moved), 0);
	ck_assert_int_eq(open_file(&bed, "f", &f), 0);
	expect_text(f, "here");
	ck_assert_int_eq(rename(moved, bed.root), 0);
	cfs_file_close(cfs_steal(f));
	bed_close(&bed);
}
END_TEST

START_TEST(mem_breaks)
{
	_cleanup_(cfs_file_closep) struct cfs_file *f = NULL;
	struct bed bed;
	char buf[8];

	bed_open(&bed, 1);
	put(&bed, "f", "01234567");
	ck_assert_int_eq(open_file(&bed, "f", &f), 0);
	ck_assert_int_eq(cfs_source_mem_break(bed.source, "f", 4, -EIO), 0);
	ck_assert_int_eq(f->ops->pread(f, buf, 4, 0), 4);
	ck_assert_int_eq(f->ops->pread(f, buf, 5, 0), -EIO);
	ck_assert_int_eq(f->ops->pread(f, buf, 1, 6), -EIO);
	ck_assert_int_eq(cfs_source_mem_break(bed.source, "f", 0, 0), 0);
	ck_assert_int_eq(f->ops->pread(f, buf, 8, 0), 8);
	ck_assert_int_eq(cfs_source_mem_break(bed.source, "g", 0, -EIO),
			 -ENOENT);
	cfs_file_close(cfs_steal(f));
	bed_close(&bed);
}
END_TEST

/* A file with times set by the test. */
struct fake {
	struct cfs_file base;
	int64_t ctime_ns, step_ns; /* added at each stat */
	unsigned stats;
};

static int fake_stat(struct cfs_file *file, struct stat *st_out)
{
	struct fake *f = container_of(file, struct fake, base);

	f->stats++;
	*st_out = (struct stat){.st_mode = S_IFREG};
	st_out->st_ctim.tv_sec = f->ctime_ns / 1000000000;
	st_out->st_ctim.tv_nsec = f->ctime_ns % 1000000000;
	f->ctime_ns += f->step_ns;
	return 0;
}

static const struct cfs_file_ops fake_ops = {.stat = fake_stat};

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

START_TEST(settling)
{
	const int64_t hour = 3600LL * 1000000000;
	struct fake f = {.base.ops = &fake_ops};
	struct cfs_version v;

	f.ctime_ns = now_ns() - hour; /* old: at once */
	ck_assert_int_eq(cfs_file_settle(&f.base, &v), 0);
	ck_assert_uint_eq(f.stats, 1);

	f.stats = 0; /* another clock's future: seen twice the same */
	f.ctime_ns = (now_ns() + hour) | 1;
	ck_assert_int_eq(cfs_file_settle(&f.base, &v), 0);
	ck_assert_uint_eq(f.stats, 2);
	ck_assert_int_eq(v.ctime_ns, f.ctime_ns);

	f.step_ns = 1000; /* and never twice the same */
	ck_assert_int_eq(cfs_file_settle(&f.base, &v), -EBUSY);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("source");
	TCase *t = tcase_create("all");

	/* 0: a directory, 1: memory */
	tcase_add_loop_test(t, reads, 0, 2);
	tcase_add_loop_test(t, stats, 0, 2);
	tcase_add_loop_test(t, lists, 0, 2);
	tcase_add_loop_test(t, handles_outlive_names, 0, 2);
	tcase_add_loop_test(t, settled_versions_tell_rewrites, 0, 2);
	tcase_add_loop_test(t, small_files, 0, 2);
	tcase_add_test(t, paths);
	tcase_add_test(t, dir_links_pipes_attributes);
	tcase_add_test(t, dir_is_held);
	tcase_add_test(t, mem_breaks);
	tcase_add_test(t, settling);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
