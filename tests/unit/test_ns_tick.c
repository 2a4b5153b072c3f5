/*
 * What the clock's commits take of files that are being written: the end of a
 * stream that grows fast may come a tick later, nothing else may.
 */
#include "store/ns/ns.h"

#include "store/core/store_internal.h"
#include "tests/unit/ns_bed.h"

#define MIB  (1u << 20)
#define LONG (3 * MIB + 300000u) /* several chunks, and part of one */

static struct ns_bed bed;

static void setup(void)
{
	ns_bed_open(&bed, NULL);
}

static void teardown(void)
{
	ns_bed_close(&bed);
}

static void tick(void)
{
	ck_assert_int_eq(cfs_store_tick(bed.bed.store), 0);
}

/* Power goes; @open is closed only for memory's sake. */
static void crash(struct cfs_ns_file *open)
{
	size_t events = cfs_engine_mem_events(bed.bed.engine);

	if (open)
		cfs_ns_close_file(open);
	ns_bed_crash(&bed, events);
	ns_no_problems(&bed);
}

static size_t size_of(const char *path)
{
	struct stat st;

	ck_assert_int_eq(cfs_ns_walk(bed.ns, path, &st), 0);
	return (size_t)st.st_size;
}

/* @path is the first @size bytes of bed_bytes(@seed). */
static void expect(const char *path, uint64_t seed, size_t size)
{
	struct cfs_ns_file *f = ns_open(&bed, path, O_RDONLY);

	ck_assert_uint_eq(size_of(path), size);
	ns_expect_fill(f, seed, size, 0);
	cfs_ns_close_file(f);
}

/* In pieces as the mount's, from @from to @to. */
static void stream(struct cfs_ns_file *f, uint64_t seed, size_t from, size_t to)
{
	uint8_t *p = bed_bytes(seed, to);

	for (size_t n; from < to; from += n) {
		n = CFS_MIN(to - from, (size_t)(128u << 10));
		ns_write(f, p + from, n, from);
	}
	free(p);
}

static struct cfs_ns_file *streamed(const char *name)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, name);

	stream(f, 1, 0, LONG);
	return f;
}

START_TEST(end_comes_later)
{
	struct cfs_ns_file *f = streamed("f");
	size_t had;

	tick();
	/* who looks sees all of it */
	ck_assert_uint_eq(size_of("f"), LONG);
	ns_expect_fill(f, 1, LONG, 0);
	crash(f);
	had = size_of("f");
	ck_assert_uint_lt(had, LONG);
	ck_assert_uint_ge(had + CFS_CHUNK_BYTES_MAX, LONG);
	ck_assert_uint_gt(had, 0);
	expect("f", 1, had);
	/* and can be gone on with */
	f = ns_open(&bed, "f", O_WRONLY);
	stream(f, 1, had, LONG + MIB);
	cfs_ns_close_file(f);
	ns_bed_reopen(&bed);
	expect("f", 1, LONG + MIB);
}
END_TEST

/* What was durable stays so: a tick after the file was opened again must not
 * let its last chunk, which grows again, wait. */
START_TEST(durable_stays)
{
	struct cfs_ns_file *f = streamed("f");

	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ns_bed_reopen(&bed);
	f = ns_open(&bed, "f", O_WRONLY);
	stream(f, 1, LONG, LONG + 100);
	tick();
	crash(f);
	ck_assert_uint_ge(size_of("f"), LONG);
	expect("f", 1, size_of("f"));
}
END_TEST

/* Idle since the last tick: all of it. */
START_TEST(idle_end)
{
	struct cfs_ns_file *f = streamed("f");

	tick();
	tick();
	crash(f);
	expect("f", 1, LONG);
}
END_TEST

/* What was there at one tick is there at the next, however fast it grows. */
START_TEST(at_most_one_later)
{
	struct cfs_ns_file *f = streamed("f");

	tick();
	stream(f, 1, LONG, 2 * LONG);
	tick();
	crash(f);
	ck_assert_uint_ge(size_of("f"), LONG);
	expect("f", 1, size_of("f"));
}
END_TEST

START_TEST(slow_file)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "log");

	stream(f, 2, 0, 100);
	tick();
	stream(f, 2, 100, 200);
	tick();
	stream(f, 2, 200, 300000);
	tick();
	crash(f);
	expect("log", 2, 300000);
	/* a long one, too */
	f = streamed("f");
	tick();
	tick();
	stream(f, 1, LONG, LONG + 100);
	tick();
	crash(f);
	expect("f", 1, LONG + 100);
}
END_TEST

enum {
	SYNC,
	FLUSH,
	CLOSE,
	MARKER,
	RENAME,
	LINK,
	SYMLINK,
	UNLINK,
	N_CALLS
};

/* Whatever may tell that the file is whole. */
START_TEST(whole_when_told)
{
	struct cfs_ns_file *f, *m = NULL, *other = ns_create(&bed, 1, "other");
	struct stat st;

	bed.bed.store->config.markers = calloc(1, sizeof(char *));
	bed.bed.store->config.markers[0] = strdup("latest");
	bed.bed.store->config.n_markers = 1;
	cfs_ns_close_file(other);
	tick();
	f = streamed("f");
	switch (_i) {
	case SYNC:
		ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
		break;
	case FLUSH:
		ck_assert_int_eq(cfs_ns_flush(f), 0);
		break;
	case CLOSE:
		cfs_ns_close_file(cfs_steal(f));
		break;
	case MARKER:
		m = ns_create(&bed, 1, "latest");
		ns_write(m, "f", 1, 0);
		break;
	case RENAME:
		ck_assert_int_eq(
			cfs_ns_rename(bed.ns, 1, "other", 1, "another", 0), 0);
		break;
	case LINK:
		ck_assert_int_eq(cfs_ns_link(bed.ns, cfs_ns_file_ino(f), 1,
					     "linked", &st),
				 0);
		cfs_ns_forget(bed.ns, st.st_ino, 1);
		break;
	case SYMLINK:
		ck_assert_int_eq(
			cfs_ns_symlink(bed.ns, &ns_cred, 1, "last", "f", &st),
			0);
		cfs_ns_forget(bed.ns, st.st_ino, 1);
		break;
	case UNLINK:
		ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "other"), 0);
		break;
	}
	tick();
	if (m)
		cfs_ns_close_file(m);
	crash(f);
	expect("f", 1, LONG);
	if (_i == LINK)
		expect("linked", 1, LONG);
}
END_TEST

/* Written over: a tick leaves neither a hole nor bytes of before. */
START_TEST(written_over)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	size_t had;

	stream(f, 3, 0, 2 * LONG);
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	f = ns_open(&bed, "f", O_WRONLY | O_TRUNC);
	stream(f, 1, 0, LONG);
	tick();
	crash(f);
	had = size_of("f");
	ck_assert_uint_le(had, LONG);
	expect("f", 1, had);
	/* in place, behind what a tick has left out */
	f = streamed("g");
	tick();
	ns_fill(f, 4, 5000, LONG - 6000);
	tick();
	crash(f);
	f = ns_open(&bed, "g", O_RDONLY);
	ck_assert_uint_eq(size_of("g"), LONG);
	ns_expect_fill(f, 1, LONG - 6000, 0);
	ns_expect_fill(f, 4, 5000, LONG - 6000);
	cfs_ns_close_file(f);
}
END_TEST

/* The same again, with ticks all along: nothing is new. */
START_TEST(nothing_new)
{
	struct cfs_store_facts one, two;
	struct cfs_ns_file *f = ns_create(&bed, 1, "one");

	stream(f, 5, 0, 12 * MIB);
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_store_facts(bed.bed.store, &one), 0);
	f = ns_create(&bed, 1, "two");
	for (size_t at = 0; at < 12; at += 3) {
		stream(f, 5, at * MIB, (at + 3) * MIB);
		tick();
	}
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_store_facts(bed.bed.store, &two), 0);
	ck_assert_uint_eq(two.chunks, one.chunks);
	ck_assert_uint_gt(two.groups, one.groups + 3);
	expect("two", 5, 12 * MIB);
}
END_TEST

/* A commit that fails takes nothing away from the next. */
START_TEST(failed_commit)
{
	unsigned failed = 0;

	for (unsigned nth = 1; nth < 6; nth++) {
		struct cfs_ns_file *f = streamed("f");

		cfs_engine_mem_fail(bed.bed.engine, CFS_ENGINE_WRITE, nth,
				    -ENOSPC);
		failed += cfs_store_tick(bed.bed.store) < 0;
		cfs_engine_mem_fail(bed.bed.engine, CFS_ENGINE_WRITE, 0, 0);
		tick();
		tick();
		crash(f);
		expect("f", 1, LONG);
		ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "f"), 0);
	}
	ck_assert_uint_gt(failed, 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("ns_tick");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_test(t, end_comes_later);
	tcase_add_test(t, durable_stays);
	tcase_add_test(t, idle_end);
	tcase_add_test(t, at_most_one_later);
	tcase_add_test(t, slow_file);
	tcase_add_loop_test(t, whole_when_told, 0, N_CALLS);
	tcase_add_test(t, written_over);
	tcase_add_test(t, nothing_new);
	tcase_add_test(t, failed_commit);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
