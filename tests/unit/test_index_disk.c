/* The index on disk: kills, damage to its files, a full disk, no place. */
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/unit/index_bed.h"

/* A child commits and dies; what it left is what some commit left. */
START_TEST(test_kill)
{
	uint64_t done = 0, n;
	int fds[2], status;
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		if (open_index() < 0)
			_exit(1);
		for (n = 1; n <= 400; n++) {
			commit_together(n, 100000);
			if (write(fds[1], &n, sizeof(n)) != sizeof(n))
				_exit(1);
		}
		(void)kill(getpid(), SIGKILL);
	}
	(void)close(fds[1]);
	while (read(fds[0], &n, sizeof(n)) == sizeof(n))
		done = n;
	(void)close(fds[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(open_index(), 0);
	n = expect_together();
	ck_assert_uint_eq(done, 400);
	ck_assert_uint_gt(n, 0); /* 40 MB: some of it was flushed */
	ck_assert_uint_le(n, done);
	for (uint64_t i = 1; i <= done; i++) {
		_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
		char key[24];
		int r;

		(void)snprintf(key, sizeof(key), "n%08d", (int)i);
		r = idx->ops->get(idx, str(key), &buf);
		ck_assert_int_eq(r, i <= n ? 0 : -ENOENT);
	}
}
END_TEST

START_TEST(test_close_keeps_all)
{
	ck_assert_int_eq(open_index(), 0);
	for (uint64_t n = 1; n <= 10; n++)
		commit_together(n, 10);
	reopen();
	ck_assert_uint_eq(expect_together(), 10);
}
END_TEST

/* ---- damage ---- */

#define SMALL 3000

static void fill_small(void)
{
	struct cfs_batch batch = CFS_BATCH_INIT;

	for (int i = 0; i < SMALL; i++) {
		char key[16], val[16];

		(void)snprintf(key, sizeof(key), "k%05d", i);
		(void)snprintf(val, sizeof(val), "v%d", i * 7);
		cfs_batch_put(&batch, str(key), str(val));
	}
	commit(&batch);
}

/* Right, absent or an error; never something else.  Errors seen. */
static int count_errors(void)
{
	int errors = 0;

	for (int i = 0; i < SMALL; i++) {
		_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
		char key[16], val[16];
		int r;

		(void)snprintf(key, sizeof(key), "k%05d", i);
		(void)snprintf(val, sizeof(val), "v%d", i * 7);
		r = idx->ops->get(idx, str(key), &buf);
		ck_assert(r == 0 || r == -ENOENT || r == -EBADMSG);
		if (r == 0)
			ck_assert_str_eq(cfs_buf_str(&buf), val);
		errors += r == -EBADMSG;
	}
	return errors;
}

enum harm {
	HARM_DELETE,
	HARM_CUT,
	HARM_FLIP
};

static bool harm_file(const char *name, enum harm harm, long seed)
{
	_cleanup_(cfs_closep) int fd = -1;
	_cleanup_(cfs_closep) int dfd = open(path, O_PATH | O_DIRECTORY);
	struct stat st;
	uint8_t byte;
	off_t at;

	fd = openat(dfd, name, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	if (harm == HARM_DELETE)
		return unlinkat(dfd, name, 0) == 0;
	if (!st.st_size)
		return false;
	at = seed % st.st_size;
	if (harm == HARM_CUT)
		return ftruncate(fd, at) == 0;
	ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
	byte ^= (uint8_t)(1 + seed % 255);
	return pwrite(fd, &byte, 1, at) == 1;
}

/* The @nth regular file of the index, or false. */
static bool nth_file(int nth, char *name, size_t size)
{
	struct dirent **list;
	bool found = false;
	int n = scandir(path, &list, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.' && nth-- == 0) {
			found = snprintf(name, size, "%s", list[i]->d_name) <
				(int)size;
		}
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return found;
}

static void try_harm(const char *name, enum harm harm, long seed)
{
	int r, errors;

	(void)printf("%s harm %d seed %ld\n", name, harm, seed);
	if (!harm_file(name, harm, seed))
		return;
	r = open_index();
	ck_assert(r == 0 || r == -EBADMSG || r == -EIO);
	if (r)
		return;
	errors = count_errors();
	cfs_index_close(idx);
	idx = NULL;
	if (errors) /* the next one knows */
		ck_assert_int_eq(open_index(), -EBADMSG);
}

START_TEST(test_damage)
{
	char name[80];
	long seed = (long)time(NULL);

	srandom((unsigned)seed);
	for (int nth = 0; nth < 12; nth++) {
		for (int i = 0; i < 14; i++) {
			remove_index();
			ck_assert_int_eq(open_index(), 0);
			fill_small();
			cfs_index_close(idx);
			idx = NULL;
			if (!nth_file(nth, name, sizeof(name)))
				return;
			try_harm(name, i < 2 ? (enum harm)i : HARM_FLIP,
				 random());
		}
	}
}
END_TEST

/* Damage that only a reader meets (too much to be read when opened). */
START_TEST(test_damage_found_late)
{
	char name[80] = "";

	ck_assert_int_eq(open_index(), 0);
	fill_small();
	reopen(); /* open, and its files are read when they are asked for */
	for (int nth = 0; nth_file(nth, name, sizeof(name)); nth++)
		if (strstr(name, ".sst"))
			break;
	for (long at = 0; at < 40000; at += 1000)
		(void)harm_file(name, HARM_FLIP, at);
	ck_assert_int_gt(count_errors(), 0);
	cfs_index_close(idx);
	idx = NULL;
	ck_assert_int_eq(open_index(), -EBADMSG);
	remove_index();
	ck_assert_int_eq(open_index(), 0);
	expect("k00000", NULL);
}
END_TEST

/* ---- a full disk: a small filesystem of our own ---- */

static bool own_tmpfs(void)
{
	if (unshare(CLONE_NEWNS) < 0 &&
	    unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return false;
	return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", dir, "tmpfs", 0, "size=40m") == 0;
}

static void fill_disk(const char *name)
{
	static char block[1 << 16];
	int fd = open(name, O_WRONLY | O_CREAT, 0600);

	memset(block, 1, sizeof(block));
	while (write(fd, block, sizeof(block)) > 0)
		;
	(void)close(fd);
}

static int full_disk(void)
{
	char ballast[96];
	uint64_t n;

	if (!own_tmpfs())
		return 77;
	(void)snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
	if (open_index() < 0)
		return 1;
	commit_together(1, 1000);
	reopen();
	fill_disk(ballast);
	for (n = 2; n <= 300; n++) /* 30 MB: a flush or more must fail */
		commit_together(n, 100000);
	ck_assert_uint_eq(expect_together(), 300);
	ck_assert_int_eq(unlink(ballast), 0);
	for (; n <= 310; n++)
		commit_together(n, 1000);
	/* RocksDB looks for room every few seconds */
	for (int i = 0; i < 60; i++, n++) {
		commit_together(n, 1000);
		(void)usleep(250000);
	}
	reopen();
	n = expect_together();
	/* being behind is allowed, being stuck is not */
	return n > 300 ? 0 : 2;
}

START_TEST(test_full_disk)
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (!pid)
		_exit(full_disk());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
}
END_TEST

START_TEST(test_no_place)
{
	struct cfs_error err = {""};
	struct cfs_index *none = NULL;

	ck_assert_int_eq(
		cfs_index_rocksdb_open("/nonexistent/x/index", &none, &err),
		-ENOENT);
	ck_assert_ptr_null(none);
	ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/x/index"));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("index_disk");
	TCase *t = tcase_create("index_disk");

	tcase_add_checked_fixture(t, setup_dir, teardown_dir);
	tcase_add_test(t, test_kill);
	tcase_add_test(t, test_close_keeps_all);
	tcase_add_test(t, test_damage);
	tcase_add_test(t, test_damage_found_late);
#ifdef __SANITIZE_THREAD__
	puts("test_full_disk: skipped, this sanitizer allows no threads after "
	     "a fork");
	(void)test_full_disk;
#else
	tcase_add_test(t, test_full_disk);
#endif
	tcase_add_test(t, test_no_place);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
