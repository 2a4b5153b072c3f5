/* Content that files share: pieces, copies, equal files; what is damaged. */
#include "store/map/source.h"
#include "store/ns/content.h"
#include "store/util/log.h"
#include "tests/unit/ns_file_bed.h"

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

/* ---- copies ---- */

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

/* ---- that cannot be read ---- */

#define DAMAGED 70

static unsigned lines[DAMAGED], more_lines;

static void count_line(enum cfs_log_level level, const char *line)
{
	bool is_file = !strncmp(line, "file f", 6);
	unsigned long n = is_file ? strtoul(line + 6, NULL, 10) : DAMAGED;

	(void)level;
	if (n < DAMAGED)
		lines[n]++;
	more_lines += !strncmp(line, "more files", 10);
}

/* Flips a byte where the incompressible bytes of @seed are stored. */
static void damage(uint64_t seed, size_t len)
{
	uint8_t *want = bed_bytes(seed, len), *at = NULL, *bytes;
	struct cfs_pack_id id = {0, 0};
	size_t size;

	for (id.number = 1; !at && id.number < 10; id.number++) {
		bytes = cfs_engine_mem_bytes(bed.bed.engine, id, &size);
		at = bytes ? memmem(bytes, size, want, 32) : NULL;
	}
	ck_assert_ptr_nonnull(at);
	at[7] ^= 1;
	free(want);
}

/* Each of them once, however often they are read in turn, and not all. */
START_TEST(damage_is_told_once)
{
	const size_t len = 10000;
	unsigned named = 0;
	char name[16], byte;

	for (unsigned i = 0; i < DAMAGED; i++) {
		struct cfs_ns_file *f;

		(void)snprintf(name, sizeof(name), "f%u", i);
		f = ns_create(&bed, 1, name);
		ns_fill(f, 2 * i, len, 0);
		cfs_ns_close_file(f);
	}
	ns_bed_reopen(&bed);
	for (unsigned i = 0; i < DAMAGED; i++)
		damage(2 * i, len);
	cfs_log_set_sink(count_line, CFS_LOG_ERR);
	for (unsigned i = 0; i < 3 * DAMAGED; i++) {
		struct cfs_ns_file *f;

		(void)snprintf(name, sizeof(name), "f%u", i % DAMAGED);
		f = ns_open(&bed, name, O_RDONLY);
		ck_assert_int_eq(cfs_ns_pread(f, &byte, 1, 7), -EBADMSG);
		cfs_ns_close_file(f);
	}
	cfs_log_set_sink(NULL, CFS_LOG_ERR);
	for (unsigned i = 0; i < DAMAGED; i++) {
		ck_assert_uint_le(lines[i], 1);
		named += lines[i];
	}
	ck_assert_uint_gt(named, 50);
	ck_assert_uint_lt(named, DAMAGED);
	ck_assert_uint_eq(more_lines, 1);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("ns_content");
	TCase *t = tcase_create("ns_content");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_test(t, pieces_splice);
	tcase_add_test(t, pieces_shared);
	tcase_add_test(t, copy_by_reference);
	tcase_add_test(t, copy_of_tail);
	tcase_add_test(t, same_file_same_map);
	tcase_add_test(t, source_keeps_what_it_opened);
	tcase_add_test(t, damage_is_told_once);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
