/*
 * Maps as files: byte for byte what an evaluator reads, by reference where that
 * can be.
 */
#include "tests/unit/rank_bed.h"

#include <time.h>

#include "fs/rank/assemble.h"
#include "store/map/eval.h"
#include "store/map/map.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

static struct cfs_assemble *assemble_new(const char *top)
{
	struct cfs_assemble_owner owner = {1000, 1000, 022};
	struct cfs_assemble *a = NULL;

	ck_assert_int_eq(
		cfs_assemble_new(bed.ns, ns_mkdir(&bed, 1, top), &owner, &a),
		0);
	return a;
}

static uint32_t add_file(struct cfs_filetab *tab, const char *path)
{
	struct cfs_version version;
	struct stat st;
	uint32_t row;

	ck_assert_int_eq(cfs_ns_walk(bed.ns, path, &st), 0);
	cfs_version_of(&st, &version);
	ck_assert_int_eq(cfs_filetab_add(tab, path, &version, &row), 0);
	return row;
}

static void make_source(const char *name, uint64_t seed, size_t len)
{
	struct cfs_ns_file *f = ns_create(&bed, 1, name);

	ns_fill(f, seed, len, 0);
	cfs_ns_close_file(f);
}

/* The file at @path has what an evaluator reads of @map. */
static void expect_map(const char *path, struct cfs_map *map)
{
	_cleanup_(cfs_freep) uint8_t *want = malloc(cfs_map_size(map) + 1);
	struct cfs_ns_file *f = ns_open(&bed, path, O_RDONLY);
	struct cfs_source *source = NULL;
	struct cfs_filepool *pool;
	struct cfs_reader *reader = NULL;
	struct cfs_error err = {""};
	struct stat st;

	ck_assert_int_eq(cfs_source_ns_open(bed.ns, &source), 0);
	pool = cfs_filepool_new(source);
	ck_assert_msg(!cfs_reader_open(map, pool, NULL, &reader, &err), "%s",
		      err.text);
	ck_assert_int_eq(cfs_reader_pread(reader, want, cfs_map_size(map), 0),
			 (ssize_t)cfs_map_size(map));
	ck_assert_int_eq(cfs_ns_getattr(bed.ns, cfs_ns_file_ino(f), &st), 0);
	ck_assert_uint_eq(st.st_size, cfs_map_size(map));
	ns_expect(f, want, cfs_map_size(map), 0);
	cfs_ns_close_file(f);
	cfs_reader_close(reader);
	cfs_filepool_free(pool);
	cfs_source_free(source);
}

static void assemble(struct cfs_assemble *a, const char *name,
		     struct cfs_map *map)
{
	struct cfs_error err = {""};
	int r;

	cfs_map_seal(map);
	r = cfs_assemble_map(a, name, map, &err);
	ck_assert_msg(r == 0, "%s: %d %s", name, r, err.text);
}

/* Random segments of all kinds over three files. */
static void random_segment(struct cfs_map *map, struct cfs_filetab *tab,
			   uint64_t *seed, bool compute)
{
	static const uint64_t lens[] = {1, 100, 5000, 70000, 400000};
	uint64_t len = 1 + bed_random(seed) % lens[bed_random(seed) % 5];
	uint32_t file = (uint32_t)(bed_random(seed) % 3);
	_cleanup_(cfs_map_unrefp) struct cfs_map *child = cfs_map_new(tab);
	uint64_t shape[2] = {3 + bed_random(seed) % 20,
			     16 << bed_random(seed) % 9};
	uint64_t stride[2] = {shape[1] * 4 + 64, 4};
	uint8_t *p;
	int r = 0;

	switch (bed_random(seed) % (compute ? 6 : 3)) {
	case 0:
		p = bed_bytes(bed_random(seed), len % 3000 + 1);
		r = cfs_map_add_literal(map, p, len % 3000 + 1);
		free(p);
		break;
	case 1:
		r = cfs_map_add_zero(map, len);
		break;
	case 2:
	case 3:
		r = cfs_map_add_range(map, file, bed_random(seed) % (MIB - len),
				      len);
		break;
	case 4:
		r = cfs_map_add_range(child, file, 3, shape[0] * stride[0]);
		ck_assert_int_eq(r, 0);
		r = cfs_map_add_gather(map, child, 4, 2, shape, stride, 16);
		break;
	default:
		r = cfs_map_add_range(child, file, 8, len / 4 * 4);
		ck_assert_int_eq(r, 0);
		r = cfs_map_add_cast(map, child, CFS_F32, CFS_BF16);
	}
	ck_assert_int_eq(r, 0);
}

START_TEST(random_maps)
{
	struct cfs_filetab *tab = cfs_filetab_new();
	struct cfs_assemble *a = assemble_new("out");
	uint64_t seed = (uint64_t)time(NULL) * 64 + (uint64_t)_i;
	struct cfs_map *maps[8];
	char name[32], path[64];

	printf("seed %llu\n", (unsigned long long)seed);
	for (unsigned i = 0; i < 3; i++) {
		(void)snprintf(name, sizeof(name), "in%u", i);
		make_source(name, seed + i, MIB);
		ck_assert_uint_eq(add_file(tab, name), i);
	}
	for (unsigned i = 0; i < 8; i++) {
		maps[i] = cfs_map_new(tab);
		for (uint64_t k = bed_random(&seed) % 40; k; k--)
			random_segment(maps[i], tab, &seed, i % 2);
		(void)snprintf(name, sizeof(name), "d%u/e/f%u", i / 3, i);
		assemble(a, name, maps[i]);
	}
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 8; i++) {
			(void)snprintf(path, sizeof(path), "out/d%u/e/f%u",
				       i / 3, i);
			expect_map(path, maps[i]);
		}
		ns_no_problems(&bed);
	}
	cfs_assemble_free(a);
	/* they need the files they were made of no more */
	for (unsigned i = 0; i < 8; i++)
		cfs_map_unref(maps[i]);
	cfs_filetab_unref(tab);
}
END_TEST

/* What the store has to keep more: references, not bytes. */
START_TEST(by_reference)
{
	struct cfs_filetab *tab = cfs_filetab_new();
	struct cfs_assemble *a = assemble_new("out");
	struct cfs_map *map = cfs_map_new(tab), *child = cfs_map_new(tab);
	uint64_t shape[2] = {200, 8 * KIB}, stride[2] = {16 * KIB, 1};
	struct cfs_store_facts before, after;

	make_source("in", 2, 4 * MIB);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_uint_eq(add_file(tab, "in"), 0);
	ck_assert_int_eq(cfs_store_facts(bed.bed.store, &before), 0);
	ck_assert_int_eq(cfs_map_add_literal(map, "head", 4), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 0, 5, 3 * MIB), 0);
	ck_assert_int_eq(cfs_map_add_range(child, 0, 0, 4 * MIB), 0);
	ck_assert_int_eq(
		cfs_map_add_gather(map, child, 1, 2, shape, stride, 100), 0);
	ck_assert_int_eq(cfs_map_add_zero(map, 10), 0);
	assemble(a, "f", map);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_store_facts(bed.bed.store, &after), 0);
	ck_assert_uint_le(after.chunks, before.chunks + 1);
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "in"), 0);
	ns_no_problems(&bed);
	cfs_assemble_free(a);
	cfs_map_unref(child);
	cfs_map_unref(map);
	cfs_filetab_unref(tab);
}
END_TEST

START_TEST(changed_since)
{
	struct cfs_filetab *tab = cfs_filetab_new();
	struct cfs_assemble *a = assemble_new("out");
	struct cfs_map *map = cfs_map_new(tab);
	struct cfs_error err = {""};
	struct cfs_ns_file *f;

	make_source("in", 2, MIB);
	ck_assert_uint_eq(add_file(tab, "in"), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 0, 0, MIB), 0);
	cfs_map_seal(map);
	f = ns_open(&bed, "in", O_WRONLY);
	ns_fill(f, 3, 10, 5);
	cfs_ns_close_file(f);
	ck_assert_int_eq(cfs_assemble_map(a, "f", map, &err), -ESTALE);
	ck_assert_str_eq(err.text, "in was changed while f was made of it");
	cfs_assemble_free(a);
	cfs_map_unref(map);
	cfs_filetab_unref(tab);
}
END_TEST

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Many ranks with many tensors each: printed, not judged. */
START_TEST(many_ranges)
{
	uint32_t ranks = getenv("CFS_TEST_RANKS")
				 ? (uint32_t)atoi(getenv("CFS_TEST_RANKS"))
				 : 20;
	struct cfs_filetab *tab = cfs_filetab_new();
	struct cfs_assemble *a;
	struct cfs_error err = {""};
	char name[64];
	double t;

	for (uint32_t i = 0; i < ranks; i++) {
		(void)snprintf(name, sizeof(name), "part-%u", i);
		make_source(name, i, 500 * 64);
	}
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	for (uint32_t i = 0; i < ranks; i++) {
		(void)snprintf(name, sizeof(name), "part-%u", i);
		(void)add_file(tab, name);
	}
	t = now();
	a = assemble_new("out");
	for (uint32_t i = 0; i < 500; i++) {
		_cleanup_(cfs_map_unrefp) struct cfs_map *map =
			cfs_map_new(tab);

		ck_assert_int_eq(cfs_map_add_literal(map, "h", 1), 0);
		for (uint32_t k = 0; k < ranks; k++)
			ck_assert_int_eq(cfs_map_add_range(map, k, i * 64, 64),
					 0);
		cfs_map_seal(map);
		(void)snprintf(name, sizeof(name), "zero/p%u/fp32.pt", i);
		ck_assert_msg(!cfs_assemble_map(a, name, map, &err), "%s",
			      err.text);
	}
	printf("assembled %u ranges in %.3f s", ranks * 500, now() - t);
	cfs_assemble_free(a);
	t = now();
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	printf(", stored in %.3f s\n", now() - t);
	cfs_filetab_unref(tab);
}
END_TEST

Suite *suite(void);
Suite *suite(void)
{
	Suite *s = suite_create("rank_assemble");
	TCase *c = tcase_create("all");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_loop_test(c, random_maps, 0, 20 / TEST_STEP + 1);
	tcase_add_test(c, by_reference);
	tcase_add_test(c, changed_since);
	tcase_add_test(c, many_ranges);
	suite_add_tcase(s, c);
	return s;
}

TEST_MAIN(suite)
