/* Data of files: writing, reading, holes, copies, crashes, threads. */
#include "store/ns/ns.h"

#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "store/core/store_internal.h"
#include "store/map/source.h"
#include "store/ns/content.h"
#include "tests/unit/ns_bed.h"

#define MIB (1u << 20)

static struct ns_bed bed;

static void setup(void)
{
	ns_bed_open(&bed, NULL);
}

static void teardown(void)
{
	ns_bed_close(&bed);
}

static off_t size_of(const char *path)
{
	struct stat st;

	ck_assert_int_eq(cfs_ns_walk(bed.ns, path, &st), 0);
	return st.st_size;
}

static void resize(const char *path, off_t size)
{
	struct stat st = {.st_size = size};

	ck_assert_int_eq(cfs_ns_setattr(bed.ns, ns_ino(&bed, path), &st,
					CFS_SET_SIZE, &st),
			 0);
	ck_assert_int_eq(st.st_size, size);
}

/* ---- pieces alone ---- */

static struct cfs_piece piece(uint64_t off, uint64_t len, uint32_t at)
{
	return (struct cfs_piece){
		.off = off, .len = len, .chunk_off = at, .chunk_len = 1000};
}

START_TEST(pieces_splice)
{
	struct cfs_pieces *p = cfs_pieces_new();
	struct cfs_piece e;

	ck_assert_int_eq(cfs_pieces_own(&p, 16), 0);
	e = piece(100, 100, 0);
	cfs_pieces_splice(p, &e);
	e = piece(200, 100, 100); /* goes on where the first ends */
	cfs_pieces_splice(p, &e);
	ck_assert_uint_eq(p->n, 1);
	ck_assert_uint_eq(cfs_pieces_bytes(p), 200);
	e = piece(150, 10, 500); /* in its middle */
	cfs_pieces_splice(p, &e);
	ck_assert_uint_eq(p->n, 3);
	ck_assert_uint_eq(p->v[2].off, 160);
	ck_assert_uint_eq(p->v[2].chunk_off, 60);
	ck_assert_uint_eq(cfs_pieces_lo(p, 160), 150);
	ck_assert_uint_eq(cfs_pieces_lo(p, 161), 160);
	ck_assert_uint_eq(cfs_pieces_lo(p, 50), 50);
	e = piece(150, 10, 50); /* as it was: one piece again */
	cfs_pieces_splice(p, &e);
	ck_assert_uint_eq(p->n, 1);
	cfs_pieces_punch(p, 0, 120);
	cfs_pieces_punch(p, 290, UINT64_MAX);
	ck_assert_uint_eq(p->n, 1);
	ck_assert_uint_eq(p->v[0].off, 120);
	ck_assert_uint_eq(p->v[0].chunk_off, 20);
	ck_assert_uint_eq(cfs_pieces_end(p), 290);
	ck_assert(cfs_pieces_check(p));
	ck_assert_uint_eq(cfs_pieces_find(p, 119), 0);
	ck_assert_uint_eq(cfs_pieces_find(p, 290), 1);
	cfs_pieces_unref(p);
}
END_TEST

START_TEST(pieces_shared)
{
	struct cfs_pieces *p = cfs_pieces_new(), *old;
	struct cfs_piece e = piece(0, 50, 0);

	ck_assert_int_eq(cfs_pieces_own(&p, 2), 0);
	cfs_pieces_splice(p, &e);
	old = cfs_pieces_ref(p);
	ck_assert_int_eq(cfs_pieces_own(&p, 2), 0);
	ck_assert_ptr_ne(p, old);
	cfs_pieces_punch(p, 0, 25);
	ck_assert_uint_eq(old->v[0].off, 0);
	ck_assert_uint_eq(p->v[0].off, 25);
	cfs_pieces_unref(old);
	cfs_pieces_unref(p);
}
END_TEST

/* ---- files ---- */

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

static uint64_t ingested(void)
{
	struct cfs_store_facts facts;

	ck_assert_int_eq(cfs_store_facts(bed.bed.store, &facts), 0);
	return facts.ingested_bytes;
}

START_TEST(copy_by_reference)
{
	struct cfs_ns_file *a = ns_create(&bed, 1, "a"), *b;
	uint64_t before;

	ns_fill(a, 7, 5 * MIB, 0);
	cfs_ns_close_file(a);
	ns_bed_reopen(&bed);
	a = ns_open(&bed, "a", O_RDONLY);
	b = ns_create(&bed, 1, "b");
	before = ingested();
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(cfs_ns_copy_range(a, (uint64_t)i * MIB, b,
						   (uint64_t)i * MIB,
						   i < 4 ? MIB : 2 * MIB),
				 MIB);
	ck_assert_int_eq(cfs_ns_copy_range(a, 5 * MIB, b, 0, 10), 0);
	cfs_ns_close_file(b);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_uint_eq(ingested(), before);
	b = ns_open(&bed, "b", O_RDWR);
	ns_expect_fill(b, 7, 5 * MIB, 0);
	ck_assert_int_eq(cfs_ns_copy_range(b, 0, b, 100, 200), -EINVAL);
	ck_assert_int_eq(cfs_ns_copy_range(b, 100, b, 6 * MIB, 300000), 300000);
	ns_fill(b, 8, 1000, 50); /* one does not change the other */
	ns_expect_fill(a, 7, 5 * MIB, 0);
	cfs_ns_close_file(a);
	cfs_ns_close_file(b);
	ns_no_problems(&bed);
}
END_TEST

/* From a file that is being written: its tail is shared, and goes on. */
START_TEST(copy_of_tail)
{
	struct cfs_ns_file *a = ns_create(&bed, 1, "a");
	struct cfs_ns_file *b = ns_create(&bed, 1, "b");
	uint8_t *want = bed_bytes(8, 3 * MIB);

	ns_write(a, want, 300000, 0);
	ck_assert_int_eq(cfs_ns_copy_range(a, 1000, b, 5, 200000), 200000);
	ck_assert_int_eq(cfs_ns_copy_range(a, 0, a, 4 * MIB, 300000), 300000);
	resize("a", 300000);
	ns_write(a, want + 300000, 3 * MIB - 300000, 300000);
	ns_expect(a, want, 3 * MIB, 0);
	ns_expect(b, want + 1000, 200000, 5);
	cfs_ns_close_file(a);
	cfs_ns_close_file(b);
	ns_bed_reopen(&bed);
	a = ns_open(&bed, "a", O_RDONLY);
	b = ns_open(&bed, "b", O_RDONLY);
	ns_expect(a, want, 3 * MIB, 0);
	ns_expect(b, want + 1000, 200000, 5);
	cfs_ns_close_file(a);
	cfs_ns_close_file(b);
	free(want);
}
END_TEST

START_TEST(same_file_same_map)
{
	struct cfs_store_facts one, two;
	struct cfs_ns_file *f = ns_create(&bed, 1, "a");
	uint8_t *p = bed_bytes(12, 3 * MIB + 777);

	ns_fill(f, 12, 3 * MIB + 777, 0);
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_store_facts(bed.bed.store, &one), 0);
	f = ns_create(&bed, 1, "b");
	for (size_t off = 0; off < 3 * MIB + 777; off += 4099) {
		size_t n = CFS_MIN((size_t)4099, 3 * MIB + 777 - off);

		ns_write(f, p + off, n, off);
		if (off / 4099 == 300) /* in mid-chunk */
			ck_assert_int_eq(cfs_ns_fsync(f), 0);
	}
	free(p);
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_store_facts(bed.bed.store, &two), 0);
	/* but for the tail that was synced in mid-chunk */
	ck_assert_uint_le(two.chunks, one.chunks + 1);
}
END_TEST

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

static void expect_small(const char *path, uint64_t seed, size_t len)
{
	struct cfs_ns_file *f = ns_open(&bed, path, O_RDONLY);

	ck_assert_int_eq(size_of(path), (off_t)len);
	ns_expect_fill(f, seed, len, 0);
	cfs_ns_close_file(f);
}

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

/* ---- the source ---- */

START_TEST(source_keeps_what_it_opened)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, "f");
	uint64_t dir = ns_mkdir(&bed, 1, "dir");
	struct cfs_source *s = NULL;
	struct cfs_file *h = NULL;
	struct cfs_version v, w;
	uint8_t *want = bed_bytes(60, 2 * MIB), *is = malloc(2 * MIB);
	struct stat st;

	ns_write(f, want, 2 * MIB, 0);
	ck_assert_int_eq(
		cfs_ns_symlink(bed.ns, &ns_cred, dir, "up", "../f", &st), 0);
	cfs_ns_forget(bed.ns, st.st_ino, 1);
	ck_assert_int_eq(cfs_source_ns_open(bed.ns, &s), 0);
	ck_assert_int_eq(s->ops->open(s, "dir/up", &h), 0);
	ck_assert_int_eq(h->ops->stat(h, &st), 0);
	cfs_version_of(&st, &v);
	ns_fill(f, 61, 100000, MIB - 50);
	ns_fill(f, 62, MIB, 2 * MIB);
	resize("f", 10);
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "f"), 0);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(h->ops->pread(h, is, 2 * MIB, 0), 2 * MIB);
	ck_assert_mem_eq(is, want, 2 * MIB);
	ck_assert_int_eq(h->ops->pread(h, is, 10, 2 * MIB), 0);
	ck_assert_int_eq(h->ops->stat(h, &st), 0);
	cfs_version_of(&st, &w);
	ck_assert(cfs_version_equal(&v, &w));
	cfs_file_close(h);
	ck_assert_int_eq(s->ops->open(s, "dir/up", &h), -ENOENT);
	ck_assert_int_eq(s->ops->stat(s, "dir/up", &st), 0);
	ck_assert(S_ISLNK(st.st_mode));
	ck_assert_int_eq(s->ops->stat(s, "dir/up/x", &st), -ENOENT);
	ck_assert_int_eq(s->ops->stat(s, "", &st), 0);
	ck_assert_uint_eq(st.st_ino, 1);
	cfs_source_free(s);
	free(want);
	free(is);
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
	TCase *t = tcase_create("files");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 240);
	tcase_add_test(t, pieces_splice);
	tcase_add_test(t, pieces_shared);
	tcase_add_test(t, append_and_read);
	tcase_add_test(t, append_reopened);
	tcase_add_test(t, overwrite);
	tcase_add_test(t, truncate_then_fill);
	tcase_add_test(t, truncate_shorter);
	tcase_add_test(t, holes);
	tcase_add_test(t, preallocate);
	tcase_add_test(t, copy_by_reference);
	tcase_add_test(t, copy_of_tail);
	tcase_add_test(t, same_file_same_map);
	tcase_add_test(t, unlinked_while_open);
	tcase_add_test(t, orphan_after_crash);
	tcase_add_loop_test(t, staged_truncation, 0, 3);
	tcase_add_test(t, tail_written_over);
	tcase_add_test(t, markers);
	tcase_add_test(t, times);
	tcase_add_test(t, no_room);
	tcase_add_test(t, engine_fails);
	tcase_add_test(t, source_keeps_what_it_opened);
	tcase_add_test(t, threads);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
