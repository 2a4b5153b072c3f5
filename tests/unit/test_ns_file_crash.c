/*
 * Files after a crash, without room and after calls that failed; and those that
 * nothing names any more.
 */
#include "store/core/store_internal.h"
#include "tests/unit/ns_file_bed.h"

/* ---- without a name ---- */

START_TEST(unlinked_while_open)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f"), *g;
	uint64_t ino = cfs_ns_file_ino(f);
	struct stat st;

	ns_fill(f, 9, 2 * MIB, 0);
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "f"), 0);
	ck_assert_int_eq(cfs_ns_getattr(bed.ns, ino, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	ns_fill(f, 10, MIB, 2 * MIB);
	ck_assert_int_eq(cfs_ns_fsync(f), 0);
	ns_expect_fill(f, 9, 2 * MIB, 0);
	ns_expect_fill(f, 10, MIB, 2 * MIB);
	ns_no_problems(&bed);
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_ns_getattr(bed.ns, ino, &st), -ENOENT);

	/* renamed over */
	f = ns_create(&bed, 1, "g");
	ns_fill(f, 11, MIB, 0);
	g = ns_create(&bed, 1, "g.tmp");
	ns_fill(g, 12, MIB, 0);
	ck_assert_int_eq(cfs_ns_rename(bed.ns, 1, "g.tmp", 1, "g", 0), 0);
	ns_expect_fill(f, 11, MIB, 0);
	ns_fill(g, 13, 1000, MIB); /* still being written */
	cfs_ns_close_file(f);
	cfs_ns_close_file(g);
	g = ns_open(&bed, "g", O_RDONLY);
	ns_expect_fill(g, 12, MIB, 0);
	ns_expect_fill(g, 13, 1000, MIB);
	cfs_ns_close_file(g);
}
END_TEST

/* An orphan that a crash leaves goes when the store is opened. */
START_TEST(orphan_after_crash)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	uint64_t ino = cfs_ns_file_ino(f);
	struct cfs_engine *disk;
	struct stat st;

	ns_fill(f, 9, 2 * MIB, 0);
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "f"), 0);
	ck_assert_int_eq(cfs_ns_fsync(f), 0);
	disk = bed_disk(&bed.bed);
	cfs_ns_close_file(f);
	ns_bed_close(&bed);
	ns_bed_open(&bed, disk);
	ck_assert_int_eq(cfs_ns_getattr(bed.ns, ino, &st), -ENOENT);
	ns_no_problems(&bed);
}
END_TEST

/* ---- what a crash leaves ---- */

/* Truncated on opening: old or new after a crash, never part of it. */
START_TEST(staged_truncation)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f"), *other;
	size_t events;

	ns_fill(f, 20, 5000 + _i * 30000, 0);
	cfs_ns_close_file(f);
	if (_i != 1)
		ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	f = ns_open(&bed, "f", O_WRONLY | O_TRUNC);
	ck_assert_int_eq(size_of("f"), 0);
	ns_fill(f, 21, 100, 0);
	other = ns_create(&bed, 1, "other");
	ns_fill(other, 22, 3000, 0);
	cfs_ns_close_file(other);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	events = cfs_engine_mem_events(bed.bed.engine);
	ns_fill(f, 23, 7000, 0);
	if (_i == 2) {
		ck_assert_int_eq(cfs_ns_fsync(f), 0);
		events = 0;
	}
	cfs_ns_close_file(f);
	ns_bed_crash(&bed, events);
	expect_small("other", 22, 3000);
	if (_i == 2)
		expect_small("f", 23, 7000);
	else
		expect_small("f", 20, (size_t)(5000 + _i * 30000));
	ns_no_problems(&bed);
}
END_TEST

/* The end of a tail that was written over falls into a piece that began before
 * the tail: a group tells of both halves of it, or of none. */
START_TEST(tail_written_over)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	size_t events;

	ns_fill(f, 40, 100000, 50000);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ns_fill(f, 41, 300000, 0);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ns_fill(f, 42, 131072, 400000); /* a stream of its own: ends that one */
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	events = cfs_engine_mem_events(bed.bed.engine);
	cfs_ns_close_file(f);
	ns_bed_crash(&bed, events);
	f = ns_open(&bed, "f", O_RDONLY);
	ns_expect_fill(f, 41, 300000, 0);
	ns_expect_fill(f, 42, 131072, 400000);
	cfs_ns_close_file(f);
	ns_no_problems(&bed);
}
END_TEST

/* A store over an engine has no configuration to name them. */
static void set_markers(void)
{
	struct cfs_store_config *c = &bed.bed.store->config;

	c->markers = calloc(2, sizeof(char *));
	ck_assert_ptr_nonnull(c->markers);
	c->markers[0] = strdup("latest");
	c->markers[1] = strdup(".metad*a");
	c->n_markers = 2;
}

START_TEST(markers)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "data"), *m;
	uint64_t group;

	set_markers();
	ns_fill(f, 30, 2 * MIB, 0);
	cfs_ns_close_file(f);
	group = cfs_store_group(bed.bed.store);
	m = ns_create(&bed, 1, "latest");
	ns_write(m, "global_step10", 13, 0);
	ck_assert_int_eq(cfs_ns_flush(m), 0);
	ck_assert_uint_gt(cfs_store_group(bed.bed.store), group);
	cfs_ns_close_file(m);
	ns_bed_crash(&bed, 0);
	set_markers();
	expect_small("data", 30, 2 * MIB);
	m = ns_open(&bed, "latest", O_RDONLY);
	ns_expect(m, "global_step10", 13, 0);
	/* what was only read need not be written */
	group = cfs_store_group(bed.bed.store);
	ck_assert_int_eq(cfs_ns_flush(m), 0);
	ck_assert_uint_eq(cfs_store_group(bed.bed.store), group);
	cfs_ns_close_file(m);

	/* renamed into place */
	f = ns_create(&bed, 1, ".metadata.tmp");
	ns_fill(f, 31, 4000, 0);
	ck_assert_int_eq(cfs_ns_flush(f), 0);
	ck_assert_uint_eq(cfs_store_group(bed.bed.store), group);
	cfs_ns_close_file(f);
	ck_assert_int_eq(
		cfs_ns_rename(bed.ns, 1, ".metadata.tmp", 1, ".metadata", 0),
		0);
	ns_bed_crash(&bed, 0);
	set_markers();
	expect_small(".metadata", 31, 4000);

	/* truncated in place */
	{
		struct stat st;

		ck_assert_int_eq(cfs_ns_lookup(bed.ns, 1, "latest", &st), 0);
		m = ns_open(&bed, "latest", O_WRONLY | O_TRUNC);
		ns_write(m, "global_step20", 13, 0);
		ck_assert_int_eq(cfs_ns_flush(m), 0);
		cfs_ns_close_file(m);
		cfs_ns_forget(bed.ns, st.st_ino, 1);
	}
	ns_bed_crash(&bed, 0);
	m = ns_open(&bed, "latest", O_RDONLY);
	ns_expect(m, "global_step20", 13, 0);
	cfs_ns_close_file(m);
}
END_TEST

/* What got a marker's name while it was open is durable, and so is the name,
 * and what is written through it until it is closed. */
START_TEST(marker_named_later)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "tmp"), *from;
	struct stat st;
	size_t events;

	set_markers();
	ns_fill(f, 60, 2 * MIB, 0);
	from = ns_create(&bed, 1, "from");
	ns_fill(from, 61, 1000, 0);
	if (_i == 0) {
		ck_assert_int_eq(
			cfs_ns_rename(bed.ns, 1, "tmp", 1, "latest", 0), 0);
	} else if (_i == 1) {
		ck_assert_int_eq(cfs_ns_link(bed.ns, cfs_ns_file_ino(f), 1,
					     "latest", &st),
				 0);
		cfs_ns_forget(bed.ns, st.st_ino, 1);
	} else {
		cfs_ns_close_file(ns_create(&bed, 1, "latest"));
		ck_assert_int_eq(cfs_ns_rename(bed.ns, 1, "latest", 1, "tmp",
					       RENAME_EXCHANGE),
				 0);
	}
	events = cfs_engine_mem_events(bed.bed.engine);
	if (_i) {
		ns_write(f, "more", 4, 2 * MIB);
		ck_assert_int_eq(
			cfs_ns_copy_range(from, 0, f, 2 * MIB + 4, 1000), 1000);
		ck_assert_int_eq(cfs_ns_fallocate(f, 0, 0, 3 * MIB), 0);
		ck_assert_int_eq(cfs_ns_flush(f), 0);
		events = cfs_engine_mem_events(bed.bed.engine);
	}
	cfs_ns_close_file(from);
	cfs_ns_close_file(f);
	ns_bed_crash(&bed, events);
	set_markers();
	f = ns_open(&bed, "latest", O_RDONLY);
	ns_expect_fill(f, 60, 2 * MIB, 0);
	ck_assert_int_eq(size_of("latest"), _i ? 3 * MIB : 2 * MIB);
	if (_i) {
		ns_expect(f, "more", 4, 2 * MIB);
		ns_expect_fill(f, 61, 1000, 2 * MIB + 4);
	}
	cfs_ns_close_file(f);
	ns_no_problems(&bed);
}
END_TEST

/* ---- what is refused ---- */

START_TEST(no_room)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	size_t off = 0;
	ssize_t n;
	uint8_t *p = NULL;
	int r;

	ns_fill(f, 50, MIB, 0);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	cfs_engine_mem_limit(bed.bed.engine, 64u << 20);
	for (off = MIB;; off += 100000) {
		free(p);
		p = bed_bytes(off * 2, 100000);
		n = cfs_ns_pwrite(f, p, 100000, off);
		if (n < 0)
			break;
		ck_assert_uint_lt(off, 80u << 20);
	}
	free(p);
	ck_assert_int_eq(n, -ENOSPC);
	/* what was taken can be read, synced or not */
	r = cfs_ns_fsync(f);
	ck_assert(r == 0 || r == -ENOSPC);
	ck_assert_int_eq(size_of("f"), (off_t)off);
	ns_expect_fill(f, 50, MIB, 0);
	for (size_t at = MIB; at < off; at += 100000)
		ns_expect_fill(f, at * 2, 100000, at);
	/* deleting works on a full disk */
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "f"), 0);
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	cfs_engine_mem_limit(bed.bed.engine, 0);
	f = ns_create(&bed, 1, "g");
	ns_fill(f, 51, MIB, 0);
	cfs_ns_close_file(f);
	ns_no_problems(&bed);
}
END_TEST

/* Writes until it is taken: what was refused can be tried again. */
static void persist(struct cfs_ns_file *f, uint64_t seed, size_t len,
		    uint64_t off)
{
	uint8_t *p = bed_bytes(seed, len);
	ssize_t n = -1;

	for (unsigned i = 0; i < 3 && n < 0; i++)
		n = cfs_ns_pwrite(f, p, len, off);
	ck_assert_int_eq(n, (ssize_t)len);
	free(p);
}

/* Every n-th engine call fails once: an error or success, never lost data. */
START_TEST(engine_fails)
{
	static const enum cfs_engine_call calls[] = {
		CFS_ENGINE_CREATE, CFS_ENGINE_WRITE, CFS_ENGINE_SYNC};
	unsigned failed = 0;

	for (unsigned c = 0; c < CFS_ARRAY_SIZE(calls); c++) {
		for (unsigned nth = 1; nth < 12; nth++) {
			char name[32];
			struct cfs_ns_file *f;

			(void)snprintf(name, sizeof(name), "f%u-%u", c, nth);
			f = ns_create(&bed, 1, name);
			cfs_engine_mem_fail(bed.bed.engine, calls[c], nth,
					    -EIO);
			persist(f, nth, 700000, 0);
			failed += cfs_ns_fsync(f) < 0;
			persist(f, nth + 100, 300000, 700000);
			cfs_engine_mem_fail(bed.bed.engine, calls[c], 0, 0);
			ck_assert_int_eq(cfs_ns_fsync(f), 0);
			ns_expect_fill(f, nth, 700000, 0);
			ns_expect_fill(f, nth + 100, 300000, 700000);
			cfs_ns_close_file(f);
		}
	}
	ck_assert_uint_gt(failed, 0);
	ns_bed_crash(&bed, 0);
	for (unsigned c = 0; c < CFS_ARRAY_SIZE(calls); c++) {
		for (unsigned nth = 1; nth < 12; nth++) {
			char name[32];
			struct cfs_ns_file *f;

			(void)snprintf(name, sizeof(name), "f%u-%u", c, nth);
			f = ns_open(&bed, name, O_RDONLY);
			ns_expect_fill(f, nth, 700000, 0);
			ns_expect_fill(f, nth + 100, 300000, 700000);
			cfs_ns_close_file(f);
		}
	}
	ns_no_problems(&bed);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("ns_file_crash");
	TCase *t = tcase_create("ns_file_crash");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_test(t, unlinked_while_open);
	tcase_add_test(t, orphan_after_crash);
	tcase_add_loop_test(t, staged_truncation, 0, 3);
	tcase_add_test(t, tail_written_over);
	tcase_add_test(t, markers);
	tcase_add_loop_test(t, marker_named_later, 0, 3);
	tcase_add_test(t, no_room);
	tcase_add_test(t, engine_fails);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
