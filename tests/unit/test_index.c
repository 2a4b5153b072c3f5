/* One suite over both backends, then what only the one on disk has. */
#include "store/index/index.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "store/util/endian.h"
#include "store/util/error.h"
#include "tests/test.h"

static char dir[64], path[80];
static struct cfs_index *idx;

static struct cfs_slice str(const char *s)
{
	return (struct cfs_slice){s, strlen(s)};
}

static void remove_index(void)
{
	struct dirent *e;
	DIR *d = opendir(path);

	while (d && (e = readdir(d)))
		(void)unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		(void)closedir(d);
	(void)rmdir(path);
}

static int open_index(void)
{
	struct cfs_error err;

	return cfs_index_rocksdb_open(path, &idx, &err);
}

static void setup_dir(void)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/cfs_index_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/index", dir);
	idx = NULL;
}

static void teardown_dir(void)
{
	cfs_index_close(idx);
	remove_index();
	(void)rmdir(dir);
}

static void setup_rocksdb(void)
{
	setup_dir();
	ck_assert_int_eq(open_index(), 0);
}

static void setup_mem(void)
{
	dir[0] = '\0';
	idx = cfs_index_mem_new();
	ck_assert_ptr_nonnull(idx);
}

static void teardown_mem(void)
{
	cfs_index_close(idx);
}

/* To the disk and back, where there is one. */
static void reopen(void)
{
	if (!dir[0])
		return;
	cfs_index_close(idx);
	idx = NULL;
	ck_assert_int_eq(open_index(), 0);
}

static void commit(struct cfs_batch *batch)
{
	ck_assert(!batch->bytes.failed);
	ck_assert_int_eq(idx->ops->commit(idx, batch), 0);
	cfs_batch_fini(batch);
}

static void put(const char *key, const char *val)
{
	struct cfs_batch batch = CFS_BATCH_INIT;

	cfs_batch_put(&batch, str(key), str(val));
	commit(&batch);
}

static void expect(const char *key, const char *val)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	int r = idx->ops->get(idx, str(key), &buf);

	ck_assert_int_eq(r, val ? 0 : -ENOENT);
	ck_assert_uint_eq(buf.len, val ? strlen(val) : 0);
	if (val)
		ck_assert_int_eq(memcmp(buf.data, val, buf.len), 0);
}

/* "key=value " for each. */
static void expect_list(struct cfs_index_iter *iter, const char *want)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_slice key, val;

	while (iter->ops->next(iter, &key, &val) == 1)
		cfs_buf_printf(&buf, "%.*s=%.*s ", (int)key.len,
			       (const char *)key.data, (int)val.len,
			       (const char *)val.data);
	ck_assert_int_eq(iter->ops->next(iter, &key, &val), 0);
	ck_assert_str_eq(cfs_buf_str(&buf), want);
	cfs_index_iter_freep(&iter);
}

static struct cfs_index_iter *list(const char *prefix, const char *from)
{
	struct cfs_index_iter *iter;

	ck_assert_int_eq(idx->ops->iter_new(idx, str(prefix), str(from), &iter),
			 0);
	return iter;
}

START_TEST(test_put_get_del)
{
	struct cfs_batch batch = CFS_BATCH_INIT;

	expect("a", NULL);
	put("a", "1");
	put("a", "22");
	put("b", "");
	expect("a", "22");
	expect("b", "");
	reopen();
	expect("a", "22");
	expect("aa", NULL);
	cfs_batch_del(&batch, str("a"));
	cfs_batch_del(&batch, str("never there"));
	cfs_batch_put(&batch, str("c"), str("3"));
	cfs_batch_put(&batch, str("c"), str("4"));
	cfs_batch_put(&batch, str("d"), str("5"));
	cfs_batch_del(&batch, str("d"));
	ck_assert_uint_eq(batch.count, 6);
	commit(&batch);
	expect("a", NULL);
	expect("c", "4");
	expect("d", NULL);
	reopen();
	expect("a", NULL);
	expect("b", "");
	expect("c", "4");
}
END_TEST

START_TEST(test_get_appends)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;

	put("a", "xyz");
	cfs_buf_put_str(&buf, "w");
	ck_assert_int_eq(idx->ops->get(idx, str("a"), &buf), 0);
	ck_assert_int_eq(idx->ops->get(idx, str("no"), &buf), -ENOENT);
	ck_assert_str_eq(cfs_buf_str(&buf), "wxyz");
}
END_TEST

START_TEST(test_iterate)
{
	for (int i = 0; i < 2; i++) {
		put("a1", "1");
		put("a\xff", "2");
		put("b", "3");
		put("a", "0");
		expect_list(list("a", ""), "a=0 a1=1 a\xff=2 ");
		expect_list(list("a", "a"), "a=0 a1=1 a\xff=2 ");
		expect_list(list("a", "a0"), "a1=1 a\xff=2 ");
		expect_list(list("a", "a2"), "a\xff=2 ");
		expect_list(list("a", "b"), "");
		expect_list(list("", ""), "a=0 a1=1 a\xff=2 b=3 ");
		expect_list(list("c", ""), "");
		reopen();
	}
}
END_TEST

START_TEST(test_iterate_one_moment)
{
	struct cfs_batch batch = CFS_BATCH_INIT;
	struct cfs_index_iter *iter;
	struct cfs_slice key, val;

	put("a", "1");
	put("b", "1");
	put("d", "1");
	reopen(); /* some of it on disk */
	put("b", "2");
	iter = list("", "");
	ck_assert_int_eq(iter->ops->next(iter, &key, &val), 1);
	ck_assert_int_eq(memcmp(key.data, "a", 1), 0);
	cfs_batch_del(&batch, str("b"));
	cfs_batch_put(&batch, str("c"), str("new"));
	cfs_batch_put(&batch, str("d"), str("new"));
	commit(&batch);
	ck_assert_int_eq(memcmp(val.data, "1", 1), 0);
	expect_list(iter, "b=2 d=1 ");
	expect_list(list("", ""), "a=1 c=new d=new ");
}
END_TEST

START_TEST(test_commit_is_atomic)
{
	struct cfs_batch batch = CFS_BATCH_INIT;

	put("a", "1");
	cfs_batch_put(&batch, str("a"), str("2"));
	cfs_batch_put(&batch, str("b"), str("2"));
	batch.bytes.len--; /* no batch any more */
	ck_assert_int_eq(idx->ops->commit(idx, &batch), -EBADMSG);
	expect("a", "1");
	expect("b", NULL);
	batch.bytes.len++;
	batch.bytes.failed = true;
	ck_assert_int_eq(idx->ops->commit(idx, &batch), -ENOMEM);
	expect("a", "1");
	batch.bytes.failed = false;
	commit(&batch);
	expect("b", "2");
}
END_TEST

#define KEYS 300

/* Against an array, reopened now and then. */
START_TEST(test_random)
{
	unsigned seed = (unsigned)time(NULL) ^ (unsigned)getpid();
	static char model[KEYS][12]; /* "": absent */

	(void)printf("seed %u\n", seed);
	srandom(seed);
	for (int round = 0; round < 200; round++) {
		struct cfs_batch batch = CFS_BATCH_INIT;
		_cleanup_(cfs_buf_free) struct cfs_buf want = CFS_BUF_INIT;
		char key[8], from[8];
		int first = (int)random() % KEYS;

		for (int i = 0; i < 30; i++) {
			int k = (int)random() % KEYS;

			(void)snprintf(key, sizeof(key), "k%03d", k);
			model[k][0] = '\0';
			if (random() % 3) {
				(void)snprintf(model[k], sizeof(model[k]), "%d",
					       (int)random() % 100000);
				cfs_batch_put(&batch, str(key), str(model[k]));
			} else {
				cfs_batch_del(&batch, str(key));
			}
		}
		commit(&batch);
		(void)snprintf(from, sizeof(from), "k%03d", first);
		for (int k = first; k < KEYS; k++)
			if (model[k][0])
				cfs_buf_printf(&want, "k%03d=%s ", k, model[k]);
		expect_list(list("k", from), cfs_buf_str(&want));
		expect(from, model[first][0] ? model[first] : NULL);
		if (round % 20 == 19)
			reopen();
	}
}
END_TEST

/* Each batch sets all of these to its number. */
#define TOGETHER 8

static void commit_together(uint64_t n, size_t extra_bytes)
{
	struct cfs_batch batch = CFS_BATCH_INIT;
	_cleanup_(cfs_freep) char *extra = calloc(1, extra_bytes + 1);
	uint8_t raw[8];
	char key[24];

	ck_assert_ptr_nonnull(extra);
	cfs_put_le64(raw, n);
	for (int i = 0; i < TOGETHER; i++) {
		(void)snprintf(key, sizeof(key), "t%d", i);
		cfs_batch_put(&batch, str(key), (struct cfs_slice){raw, 8});
	}
	(void)snprintf(key, sizeof(key), "n%08d", (int)n);
	cfs_put_le64(raw, n * 3);
	cfs_batch_put(&batch, str(key), (struct cfs_slice){raw, 8});
	(void)snprintf(key, sizeof(key), "x%08d", (int)n);
	cfs_batch_put(&batch, str(key), (struct cfs_slice){extra, extra_bytes});
	if (n > 1) { /* the one before goes: deletes are in it, too */
		(void)snprintf(key, sizeof(key), "x%08d", (int)n - 1);
		cfs_batch_del(&batch, str(key));
	}
	commit(&batch);
}

/* The number of the last batch, all of which must be there. */
static uint64_t expect_together(void)
{
	struct cfs_index_iter *iter = list("t", "");
	struct cfs_slice key, val;
	uint64_t n = 0;
	int count = 0;

	while (iter->ops->next(iter, &key, &val) == 1) {
		ck_assert_uint_eq(val.len, 8);
		if (count++)
			ck_assert_uint_eq(cfs_get_le64(val.data), n);
		n = cfs_get_le64(val.data);
	}
	ck_assert(count == TOGETHER || count == 0);
	cfs_index_iter_freep(&iter);
	return n;
}

static atomic_bool stop;

static void *read_on(void *arg)
{
	uint64_t last = 0, *rounds = arg;

	while (!atomic_load(&stop)) {
		uint64_t n = expect_together();

		ck_assert_uint_ge(n, last);
		last = n;
		(*rounds)++;
	}
	return NULL;
}

START_TEST(test_threads)
{
	pthread_t threads[3];
	uint64_t rounds[3] = {0};

	atomic_store(&stop, false);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, read_on, &rounds[i]),
			0);
	/* enough bytes for flushes under way */
	for (uint64_t n = 1; n <= 300; n++)
		commit_together(n, 200000);
	atomic_store(&stop, true);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_uint_eq(expect_together(), 300);
}
END_TEST

/* ---- the one on disk ---- */

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

static void add_backend(Suite *s, const char *name, SFun setup, SFun teardown)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_put_get_del);
	tcase_add_test(t, test_get_appends);
	tcase_add_test(t, test_iterate);
	tcase_add_test(t, test_iterate_one_moment);
	tcase_add_test(t, test_commit_is_atomic);
	tcase_add_test(t, test_random);
	tcase_add_test(t, test_threads);
	suite_add_tcase(s, t);
}

static Suite *suite(void)
{
	Suite *s = suite_create("index");
	TCase *t = tcase_create("disk");

	add_backend(s, "mem", setup_mem, teardown_mem);
	add_backend(s, "rocksdb", setup_rocksdb, teardown_dir);
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
