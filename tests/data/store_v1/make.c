/*
 * Makes the store beside this file (README.md): STORE=DIR make_store_v1; DIR
 * must not be there.  SHA256SUMS goes to stderr.
 */
#include "store/core/store_internal.h"
#include "store/map/dtype.h"
#include "tests/unit/ns_bed.h"

#define FLOATS 20000u

static struct ns_bed b;

static void open_store(const char *path)
{
	struct cfs_store_options options = bed_options;
	struct cfs_error err = {""};

	options.pack_bytes = 0;
	ck_assert_msg(cfs_store_open(path, &options, &b.bed.store, &err) == 0,
		      "%s", err.text);
	ck_assert_msg(cfs_ns_open(b.bed.store, NULL, &b.ns, &err) == 0, "%s",
		      err.text);
}

static void add(uint64_t dir, const char *name, const char *path,
		const void *data, size_t len, uint64_t size)
{
	struct cfs_ns_file *f = ns_create(&b, dir, name);
	uint8_t *whole = calloc(1, size);
	struct cfs_digest digest;
	char hex[CFS_DIGEST_HEX];

	ck_assert_ptr_nonnull(whole);
	memcpy(whole + (size - len), data, len);
	ns_write(f, data, len, size - len);
	cfs_ns_close_file(f);
	cfs_digest_of(whole, size, &digest);
	(void)fprintf(stderr, "%s  %s\n", cfs_digest_hex(&digest, hex), path);
	free(whole);
}

static void add_bytes(uint64_t dir, const char *name, const char *path,
		      uint64_t seed, size_t len, uint64_t size)
{
	uint8_t *p = bed_bytes(seed, len);

	add(dir, name, path, p, len, size);
	free(p);
}

/* Numbers as weights have them: few exponents, any mantissa. */
static void make_weights(float *out)
{
	uint64_t state = 20260101;

	for (size_t i = 0; i < FLOATS; i++) {
		double sum = 0;

		for (int k = 0; k < 6; k++)
			sum += (double)(bed_random(&state) >> 11) /
			       (1ull << 53);
		out[i] = (float)((sum - 3) * 0.03);
	}
}

static int take_digest(void *arg, const struct cfs_extent *e)
{
	struct cfs_chunk_part *part = arg;

	ck_assert_uint_eq(part->len, 0); /* a chunk each */
	*part = (struct cfs_chunk_part){e->digest, e->chunk_off, e->chunk_len};
	return 0;
}

static struct cfs_chunk_part chunk_of(const char *path)
{
	struct cfs_chunk_part part = {.len = 0};

	ck_assert_int_eq(
		cfs_ns_extents(b.ns, ns_ino(&b, path), take_digest, &part), 0);
	return part;
}

static void add_weights(uint64_t dir)
{
	static float master[FLOATS];
	static uint16_t model[FLOATS];
	struct cfs_chunk_part from, to;

	make_weights(master);
	cfs_dtype_cast(CFS_F32, master, CFS_BF16, model, FLOATS);
	add(dir, "master.f32", "step/master.f32", master, sizeof(master),
	    sizeof(master));
	add(dir, "model.bf16", "step/model.bf16", model, sizeof(model),
	    sizeof(model));
	ck_assert_int_eq(cfs_ns_sync(b.ns), 0);
	from = chunk_of("step/master.f32");
	to = chunk_of("step/model.bf16");
	ck_assert_int_eq(cfs_store_derive(b.bed.store, &to.digest, CFS_F32,
					  CFS_BF16, &from, 1),
			 0);
}

static void add_names(uint64_t dir)
{
	struct stat st;

	ck_assert_int_eq(
		cfs_ns_symlink(b.ns, &ns_cred, 1, "link", "step/noise", &st),
		0);
	ck_assert_int_eq(
		cfs_ns_link(b.ns, ns_ino(&b, "step/noise"), 1, "other", &st),
		0);
	ck_assert_int_eq(cfs_ns_mknod(b.ns, &ns_cred, dir, "pipe",
				      S_IFIFO | 0600, 0, &st),
			 0);
	ck_assert_int_eq(cfs_ns_setxattr(b.ns, ns_ino(&b, "step"), "user.run",
					 "seven", 5, 0),
			 0);
	ck_assert_int_eq(cfs_ns_unlink(b.ns, 1, "gone"), 0);
}

START_TEST(make)
{
	const char *path = getenv("STORE");
	struct cfs_position at;
	struct cfs_error err = {""};
	uint64_t dir;

	ck_assert_ptr_nonnull(path);
	ck_assert_msg(cfs_store_init(path, NULL, &err) == 0, "%s", err.text);
	open_store(path);
	dir = ns_mkdir(&b, 1, "step");
	add_bytes(dir, "noise", "step/noise", 2, 20000, 20000);
	add_bytes(dir, "text", "step/text", 1, 30000, 30000);
	add_bytes(dir, "sparse", "step/sparse", 4, 5000, 3 << 20);
	add_bytes(1, "latest", "latest", 6, 12, 12);
	cfs_ns_close_file(ns_create(&b, 1, "gone"));
	add_weights(dir);
	add_names(dir);
	ck_assert_int_eq(cfs_ns_close(b.ns), 0);
	ck_assert_int_eq(cfs_store_close(b.bed.store), 0);

	open_store(path); /* a second pack, and a snapshot */
	add_bytes(1, "second", "second", 8, 3000, 3000);
	ck_assert_int_eq(cfs_gc_snapshot(b.bed.store, &at), 0);
	add_bytes(1, "third", "third", 10, 3000, 3000);
	ck_assert_int_eq(cfs_ns_close(b.ns), 0);
	ck_assert_int_eq(cfs_store_close(b.bed.store), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("make");
	TCase *t = tcase_create("make");

	tcase_add_test(t, make);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
