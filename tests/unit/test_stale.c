/*
 * store/map over a directory that changes under open readers: what was planned
 * or an error, never other bytes.
 */
#include "tests/unit/map_bed.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEN 65536

/* A directory with one step in it, of which one file is open as planned. */
struct dir_bed {
	char root[64], step[80], path[96];
	struct cfs_source *source;
	struct cfs_filetab *tab;
	struct cfs_filepool *pool;
	struct cfs_blockcache *cache;
	struct cfs_map *map;
	struct cfs_reader *reader;
	uint8_t bytes[LEN]; /* what the file held when it was planned */
};

static void write_file(const char *path, int flags, const void *data,
		       size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	ck_assert_int_eq(close(fd), 0);
}

static void dir_bed_open(struct dir_bed *b)
{
	uint32_t file;

	(void)snprintf(b->root, sizeof(b->root), "/tmp/cfs_stale.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(b->root));
	(void)snprintf(b->step, sizeof(b->step), "%s/step1", b->root);
	(void)snprintf(b->path, sizeof(b->path), "%s/file", b->step);
	ck_assert_int_eq(mkdir(b->step, 0755), 0);
	memset(b->bytes, 'A', LEN);
	write_file(b->path, O_CREAT, b->bytes, LEN);
	ck_assert_int_eq(cfs_source_dir_open(b->root, &b->source), 0);
	b->tab = cfs_filetab_new();
	b->pool = cfs_filepool_new(b->source);
	b->cache = cfs_blockcache_new(1 << 20);
	ck_assert(b->tab && b->pool && b->cache);
	file = tab_add(b->tab, b->source, "step1/file");
	b->map = cfs_map_new(b->tab);
	ck_assert_int_eq(cfs_map_add_range(b->map, file, 0, LEN), 0);
	cfs_map_seal(b->map);
	ck_assert_int_eq(
		cfs_reader_open(b->map, b->pool, b->cache, &b->reader, NULL),
		0);
	log_begin();
}

static void dir_bed_close(struct dir_bed *b)
{
	char cmd[128];

	cfs_reader_close(b->reader);
	cfs_map_unref(b->map);
	cfs_filetab_unref(b->tab);
	cfs_filepool_free(b->pool);
	cfs_blockcache_free(b->cache);
	cfs_source_free(b->source);
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", b->root);
	ck_assert_int_eq(system(cmd), 0);
}

static void expect_planned(struct dir_bed *b)
{
	uint8_t got[LEN];

	for (int i = 0; i < 3; i++) {
		memset(got, 0, LEN);
		ck_assert_int_eq(cfs_reader_pread(b->reader, got, LEN, 0), LEN);
		ck_assert_mem_eq(got, b->bytes, LEN);
	}
	ck_assert_uint_eq(log_lines, 0);
}

/* Refused, and said once, by name. */
static void expect_stale(struct dir_bed *b)
{
	uint8_t got[100];

	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(cfs_reader_pread(b->reader, got, 100, 5000),
				 -ESTALE);
	ck_assert_uint_eq(log_lines, 1);
	ck_assert_ptr_nonnull(strstr(log_text, "step1/file"));
}

static void expect_open(struct dir_bed *b, int want)
{
	struct cfs_reader *again = NULL;
	int r = cfs_reader_open(b->map, b->pool, b->cache, &again, NULL);

	ck_assert_int_eq(r, want);
	cfs_reader_close(again);
}

static void reopen(struct dir_bed *b, int want)
{
	cfs_reader_close(b->reader);
	b->reader = NULL;
	expect_open(b, want);
}

static uint8_t other[LEN]; /* zeros */

/* The same size, as soon as possible: within the tick of the first write. */
START_TEST(rewritten_at_once)
{
	static struct dir_bed b;

	for (int i = 0; i < 10; i++) {
		dir_bed_open(&b);
		write_file(b.path, 0, other, LEN);
		expect_stale(&b);
		expect_open(&b, -ESTALE);
		reopen(&b, -ESTALE);
		dir_bed_close(&b);
	}
}
END_TEST

START_TEST(one_byte_changed)
{
	static struct dir_bed b;

	dir_bed_open(&b);
	expect_planned(&b);
	write_file(b.path, 0, "B", 1);
	expect_stale(&b);
	dir_bed_close(&b);
}
END_TEST

START_TEST(truncated)
{
	static struct dir_bed b;
	uint8_t got[LEN];

	dir_bed_open(&b);
	ck_assert_int_eq(truncate(b.path, LEN - 1), 0);
	expect_stale(&b);
	ck_assert_int_eq(cfs_reader_pread(b.reader, got, LEN, 0), -ESTALE);
	ck_assert_int_eq(truncate(b.path, LEN), 0); /* a zero at the end */
	ck_assert_int_eq(cfs_reader_pread(b.reader, got, LEN, 0), -ESTALE);
	dir_bed_close(&b);
}
END_TEST

START_TEST(appended)
{
	static struct dir_bed b;

	dir_bed_open(&b);
	write_file(b.path, O_APPEND, "B", 1);
	expect_stale(&b);
	dir_bed_close(&b);
}
END_TEST

/* The bytes changed, size and mtime did not: only ctime tells. */
START_TEST(mtime_forged)
{
	static struct dir_bed b;
	struct timespec times[2];
	struct stat st;

	dir_bed_open(&b);
	ck_assert_int_eq(stat(b.path, &st), 0);
	write_file(b.path, 0, other, LEN);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	ck_assert_int_eq(utimensat(AT_FDCWD, b.path, times, 0), 0);
	expect_stale(&b);
	dir_bed_close(&b);
}
END_TEST

/* Cannot be told from a forged mtime: filepool.h. */
START_TEST(chmod_is_refused)
{
	static struct dir_bed b;

	dir_bed_open(&b);
	ck_assert_int_eq(chmod(b.path, 0600), 0);
	expect_stale(&b);
	dir_bed_close(&b);
}
END_TEST

START_TEST(deleted)
{
	static struct dir_bed b;

	dir_bed_open(&b);
	ck_assert_int_eq(unlink(b.path), 0);
	expect_planned(&b);
	ck_assert_int_eq(rmdir(b.step), 0);
	expect_planned(&b);
	expect_open(&b, 0); /* the pool still has it */
	reopen(&b, -ENOENT);
	dir_bed_close(&b);
}
END_TEST

START_TEST(renamed_over)
{
	static struct dir_bed b;
	char tmp[112];

	dir_bed_open(&b);
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", b.path);
	write_file(tmp, O_CREAT, other, LEN);
	ck_assert_int_eq(rename(tmp, b.path), 0);
	expect_planned(&b);
	reopen(&b, -ESTALE);
	dir_bed_close(&b);
}
END_TEST

/* Away, and a new file in its place. */
START_TEST(renamed_away)
{
	static struct dir_bed b;
	char away[112];

	dir_bed_open(&b);
	(void)snprintf(away, sizeof(away), "%s.old", b.path);
	ck_assert_int_eq(rename(b.path, away), 0);
	expect_planned(&b);
	write_file(b.path, O_CREAT, other, LEN);
	expect_planned(&b);
	/* renamed is explained, rewritten is not */
	write_file(away, 0, other, 10);
	expect_stale(&b);
	dir_bed_close(&b);
}
END_TEST

START_TEST(step_renamed)
{
	static struct dir_bed b;
	char away[112];

	dir_bed_open(&b);
	(void)snprintf(away, sizeof(away), "%s.old", b.step);
	ck_assert_int_eq(rename(b.step, away), 0);
	expect_planned(&b);
	reopen(&b, -ENOENT);
	dir_bed_close(&b);
}
END_TEST

START_TEST(linked)
{
	static struct dir_bed b;
	char copy[112];

	dir_bed_open(&b);
	(void)snprintf(copy, sizeof(copy), "%s.link", b.path);
	ck_assert_int_eq(link(b.path, copy), 0);
	expect_planned(&b);
	ck_assert_int_eq(unlink(b.path), 0);
	expect_planned(&b);
	write_file(copy, 0, other, 10);
	expect_stale(&b);
	dir_bed_close(&b);
}
END_TEST

/* What was computed before the change may be shown; nothing of after it. */
START_TEST(computed_before)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *cast = NULL;
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;
	static struct dir_bed b;
	uint8_t before[LEN / 2], after[LEN / 2];
	ssize_t n;

	dir_bed_open(&b);
	cast = cfs_map_new(b.tab);
	ck_assert_int_eq(cfs_map_add_cast(cast, b.map, CFS_F32, CFS_BF16), 0);
	cfs_map_seal(cast);
	ck_assert_int_eq(cfs_reader_open(cast, b.pool, b.cache, &reader, NULL),
			 0);
	if (_i)
		ck_assert_int_eq(cfs_reader_pread(reader, before, LEN / 2, 0),
				 LEN / 2);
	write_file(b.path, 0, other, LEN);
	n = cfs_reader_pread(reader, after, LEN / 2, 0);
	if (n >= 0) {
		ck_assert_int_eq(_i, 1);
		ck_assert_int_eq(n, LEN / 2);
		ck_assert_mem_eq(before, after, LEN / 2);
	} else {
		ck_assert_int_eq(n, -ESTALE);
	}
	cfs_reader_close(cfs_steal(reader));
	dir_bed_close(&b);
}
END_TEST

struct race {
	struct dir_bed *bed;
	atomic_bool done;
	atomic_uint good, stale, wrong;
};

static void *read_on(void *arg)
{
	struct race *race = arg;
	uint8_t got[LEN];

	while (!atomic_load(&race->done)) {
		ssize_t n = cfs_reader_pread(race->bed->reader, got, LEN, 0);

		if (n == LEN && !memcmp(got, race->bed->bytes, LEN))
			(void)atomic_fetch_add(&race->good, 1);
		else if (n == -ESTALE)
			(void)atomic_fetch_add(&race->stale, 1);
		else
			(void)atomic_fetch_add(&race->wrong, 1);
	}
	return NULL;
}

/* A writer in full swing: all bytes planned, or none. */
START_TEST(never_mixed)
{
	static struct dir_bed b;
	struct race race = {.bed = &b};
	pthread_t threads[2];

	dir_bed_open(&b);
	cfs_log_set_sink(NULL, CFS_LOG_ERR); /* it is not made for threads */
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, read_on, &race), 0);
	while (atomic_load(&race.good) < 20)
		(void)usleep(100);
	for (size_t i = 0; i < LEN; i += 64)
		write_file(b.path, i % 128 ? O_APPEND : 0, other, 64);
	while (atomic_load(&race.stale) < 20)
		(void)usleep(100);
	atomic_store(&race.done, true);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_uint_eq(race.wrong, 0);
	dir_bed_close(&b);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("stale");
	TCase *t = tcase_create("all");

	tcase_add_test(t, rewritten_at_once);
	tcase_add_test(t, one_byte_changed);
	tcase_add_test(t, truncated);
	tcase_add_test(t, appended);
	tcase_add_test(t, mtime_forged);
	tcase_add_test(t, chmod_is_refused);
	tcase_add_test(t, deleted);
	tcase_add_test(t, renamed_over);
	tcase_add_test(t, renamed_away);
	tcase_add_test(t, step_renamed);
	tcase_add_test(t, linked);
	tcase_add_loop_test(t, computed_before, 0, 2);
	tcase_add_test(t, never_mixed);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
