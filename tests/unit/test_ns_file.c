/* Data of files: writing, reading, sizes, holes, times, threads. */
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/ns_file_bed.h"

START_TEST(append_and_read)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	size_t off = 0;

	/* pieces of all sizes, across several chunks */
	for (unsigned i = 0; i < 40; i++) {
		ns_fill(f, i + 2, 1000 + i * 9973, off);
		off += 1000 + i * 9973;
	}
	for (unsigned round = 0; round < 2; round++) {
		size_t at = 0;

		for (unsigned i = 0; i < 40; i++) {
			ns_expect_fill(f, i + 2, 1000 + i * 9973, at);
			at += 1000 + i * 9973;
		}
		ck_assert_int_eq(cfs_ns_fsync(f), 0);
	}
	ck_assert_int_eq(cfs_ns_pread(f, &off, 1, off), 0);
	cfs_ns_close_file(f);
	ns_bed_reopen(&bed);
	f = ns_open(&bed, "f", O_RDONLY);
	ns_expect_fill(f, 2, 1000, 0);
	ck_assert_int_eq(size_of("f"), (off_t)off);
	cfs_ns_close_file(f);
}
END_TEST

/* A file that grows by closing and opening it again. */
START_TEST(append_reopened)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "log");
	uint8_t *want = malloc(400 * 7001);

	cfs_ns_close_file(f);
	for (unsigned i = 0; i < 400; i++) {
		uint8_t *p = bed_bytes(i, 7001);

		f = ns_open(&bed, "log", O_RDWR);
		ns_write(f, p, 7001, (uint64_t)i * 7001);
		cfs_ns_close_file(f);
		memcpy(want + (size_t)i * 7001, p, 7001);
		free(p);
		if (i % 50 == 0)
			ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
		if (i % 150 == 149)
			ns_bed_reopen(&bed);
	}
	f = ns_open(&bed, "log", O_RDONLY);
	ns_expect(f, want, 400 * 7001, 0);
	cfs_ns_close_file(f);
	ns_no_problems(&bed);
	free(want);
}
END_TEST

START_TEST(overwrite)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	uint8_t *want = bed_bytes(2, 3 * MIB);
	uint64_t s = 99;

	ns_write(f, want, 3 * MIB, 0);
	for (unsigned i = 0; i < 300; i++) {
		size_t off = bed_random(&s) % (3 * MIB - 5000);
		size_t len = 1 + bed_random(&s) % 5000;
		uint8_t *p = bed_bytes(bed_random(&s), len);

		ns_write(f, p, len, off);
		memcpy(want + off, p, len);
		free(p);
		if (i % 100 == 50)
			ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	}
	ns_expect(f, want, 3 * MIB, 0);
	cfs_ns_close_file(f);
	ns_bed_reopen(&bed);
	f = ns_open(&bed, "f", O_RDONLY);
	ns_expect(f, want, 3 * MIB, 0);
	cfs_ns_close_file(f);
	free(want);
}
END_TEST

/* safetensors: the final size first, then the bytes in order. */
START_TEST(truncate_then_fill)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	struct stat st;

	resize("f", 5 * MIB);
	ck_assert_int_eq(cfs_ns_getattr(bed.ns, cfs_ns_file_ino(f), &st), 0);
	ck_assert_int_eq(st.st_blocks, 0);
	for (unsigned i = 0; i < 5; i++)
		ns_fill(f, 10 + i, MIB, (uint64_t)i * MIB);
	cfs_ns_close_file(f);
	ns_bed_reopen(&bed);
	f = ns_open(&bed, "f", O_RDONLY);
	for (unsigned i = 0; i < 5; i++)
		ns_expect_fill(f, 10 + i, MIB, (uint64_t)i * MIB);
	ck_assert_int_eq(size_of("f"), 5 * MIB);
	cfs_ns_close_file(f);
}
END_TEST

START_TEST(truncate_shorter)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	uint8_t *want = bed_bytes(4, 200000);

	ns_write(f, want, 200000, 0);
	resize("f", 70000);
	resize("f", 200000); /* what was cut off is zeros */
	memset(want + 70000, 0, 130000);
	ns_expect(f, want, 200000, 0);
	ns_fill(f, 5, 100, 200000);
	cfs_ns_close_file(f);
	ns_bed_reopen(&bed);
	f = ns_open(&bed, "f", O_RDWR);
	ns_expect(f, want, 200000, 0);
	ns_expect_fill(f, 5, 100, 200000);
	resize("f", 100);
	resize("f", 3000);
	memset(want + 100, 0, 3000);
	ns_expect(f, want, 3000, 0);
	cfs_ns_close_file(f);
	free(want);
}
END_TEST

START_TEST(holes)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");

	ns_fill(f, 3, 4096, 0);
	ns_fill(f, 4, 100000, 10 * MIB);
	resize("f", 20 * MIB);
	for (unsigned i = 0; i < 2; i++) {
		struct stat st;

		ck_assert_int_eq(cfs_ns_lseek(f, 0, SEEK_DATA), 0);
		ck_assert_int_eq(cfs_ns_lseek(f, 0, SEEK_HOLE), 4096);
		ck_assert_int_eq(cfs_ns_lseek(f, 4096, SEEK_DATA), 10 * MIB);
		ck_assert_int_eq(cfs_ns_lseek(f, 10 * MIB + 5, SEEK_HOLE),
				 10 * MIB + 100000);
		ck_assert_int_eq(cfs_ns_lseek(f, 11 * MIB, SEEK_DATA), -ENXIO);
		ck_assert_int_eq(cfs_ns_lseek(f, 11 * MIB, SEEK_HOLE),
				 11 * MIB);
		ck_assert_int_eq(cfs_ns_lseek(f, 20 * MIB, SEEK_HOLE), -ENXIO);
		ck_assert_int_eq(
			cfs_ns_getattr(bed.ns, cfs_ns_file_ino(f), &st), 0);
		ck_assert_int_eq(st.st_blocks, (104096 + 511) / 512);
		cfs_ns_close_file(f);
		ns_bed_reopen(&bed);
		f = ns_open(&bed, "f", O_RDWR);
	}
	cfs_ns_close_file(f);
}
END_TEST

START_TEST(preallocate)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	uint8_t *want = bed_bytes(6, 300000);
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	ns_write(f, want, 300000, 0);
	ck_assert_int_eq(cfs_ns_fallocate(f, punch, 1000, 100000), 0);
	memset(want + 1000, 0, 100000);
	ck_assert_int_eq(cfs_ns_fallocate(f, punch, 299000, 100000), 0);
	memset(want + 299000, 0, 1000);
	ns_expect(f, want, 300000, 0);
	ck_assert_int_eq(size_of("f"), 300000);
	ck_assert_int_eq(cfs_ns_fallocate(f, 0, 0, 400000), 0);
	ck_assert_int_eq(size_of("f"), 400000);
	ck_assert_int_eq(cfs_ns_fallocate(f, FALLOC_FL_KEEP_SIZE, 0, 500000),
			 0);
	ck_assert_int_eq(size_of("f"), 400000);
	ck_assert_int_eq(
		cfs_ns_fallocate(f, FALLOC_FL_ZERO_RANGE, 200000, 300000), 0);
	ck_assert_int_eq(size_of("f"), 500000);
	ns_expect(f, want, 200000, 0);
	ck_assert_int_eq(cfs_ns_fallocate(f, FALLOC_FL_COLLAPSE_RANGE, 0, 4096),
			 -EOPNOTSUPP);
	ck_assert_int_eq(cfs_ns_fallocate(f, 0, 0, 0), -EINVAL);
	cfs_ns_close_file(f);
	free(want);
}
END_TEST

START_TEST(times)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	uint64_t ino = cfs_ns_file_ino(f);
	struct stat a, b;

	ck_assert_int_eq(cfs_ns_getattr(bed.ns, ino, &a), 0);
	for (unsigned i = 0; i < 1000; i++) {
		ns_write(f, "x", 1, i % 3);
		ck_assert_int_eq(cfs_ns_getattr(bed.ns, ino, &b), 0);
		ck_assert(b.st_ctim.tv_sec > a.st_ctim.tv_sec ||
			  (b.st_ctim.tv_sec == a.st_ctim.tv_sec &&
			   b.st_ctim.tv_nsec > a.st_ctim.tv_nsec));
		ck_assert_int_eq(b.st_mtim.tv_nsec, b.st_ctim.tv_nsec);
		a = b;
	}
	/* neither closing nor renaming nor sealing moves mtime */
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_rename(bed.ns, 1, "f", 1, "g", 0), 0);
	ns_bed_reopen(&bed);
	ck_assert_int_eq(cfs_ns_walk(bed.ns, "g", &b), 0);
	ck_assert_uint_eq(b.st_ino, ino);
	ck_assert_int_eq(b.st_mtim.tv_sec, a.st_mtim.tv_sec);
	ck_assert_int_eq(b.st_mtim.tv_nsec, a.st_mtim.tv_nsec);
	ck_assert_int_ne(b.st_ctim.tv_nsec, a.st_ctim.tv_nsec);
}
END_TEST

/* ---- threads ---- */

struct writer {
	char name[16];
	uint64_t seed;
	pthread_t thread;
};

#define THREAD_BYTES (6u << 20)

static atomic_bool stop;

static void *write_file(void *arg)
{
	struct writer *w = arg;
	uint8_t *want = bed_bytes(w->seed, THREAD_BYTES);
	struct cfs_ns_file *f = ns_create(&bed, 1, w->name);
	uint64_t s = w->seed + 5;

	for (size_t off = 0; off < THREAD_BYTES;) {
		size_t n = 1 + bed_random(&s) % 300000;

		n = CFS_MIN(n, THREAD_BYTES - off);
		ns_write(f, want + off, n, off);
		off += n;
		if (bed_random(&s) % 4 == 0) { /* what is there, once more */
			size_t at = bed_random(&s) % off;

			n = CFS_MIN((size_t)5000, off - at);
			ns_write(f, want + at, n, at);
		}
		if (bed_random(&s) % 8 == 0)
			ns_expect(f, want, off, 0);
	}
	cfs_ns_close_file(f);
	free(want);
	return NULL;
}

static void *commit_often(void *arg)
{
	while (!atomic_load(&stop))
		ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	return arg;
}

START_TEST(threads)
{
	struct writer w[2] = {{"w0", 70, 0}, {"w1", 71, 0}};
	pthread_t committer;

	atomic_store(&stop, false);
	ck_assert_int_eq(pthread_create(&committer, NULL, commit_often, NULL),
			 0);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(
			pthread_create(&w[i].thread, NULL, write_file, &w[i]),
			0);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_join(w[i].thread, NULL), 0);
	atomic_store(&stop, true);
	ck_assert_int_eq(pthread_join(committer, NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		expect_small(w[i].name, w[i].seed, THREAD_BYTES);
	ns_bed_reopen(&bed);
	for (unsigned i = 0; i < 2; i++)
		expect_small(w[i].name, w[i].seed, THREAD_BYTES);
	ns_no_problems(&bed);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("ns_file");
	TCase *t = tcase_create("ns_file");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_test(t, append_and_read);
	tcase_add_test(t, append_reopened);
	tcase_add_test(t, overwrite);
	tcase_add_test(t, truncate_then_fill);
	tcase_add_test(t, truncate_shorter);
	tcase_add_test(t, holes);
	tcase_add_test(t, preallocate);
	tcase_add_test(t, times);
	tcase_add_test(t, threads);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
