/*
 * A store that version 1 of the format wrote (tests/data/store_v1) opens, with
 * and without an index, and every byte of it is what it was.
 */
#include <ftw.h>
#include <unistd.h>

#include "store/core/store_internal.h"
#include "tests/unit/ns_bed.h"

#define GOLDEN CFS_TEST_DATA "/store_v1"

static char dir[64];
static struct ns_bed b;

/* ---- a copy of it ---- */

static int copy_one(const char *path, const struct stat *st, int type,
		    struct FTW *ftw)
{
	const char *rel = path + strlen(GOLDEN "/store");
	char to[512], buf[4096];
	FILE *in, *out;
	size_t n;

	(void)st;
	(void)ftw;
	(void)snprintf(to, sizeof(to), "%s%s", dir, rel);
	if (type == FTW_D)
		return *rel ? mkdir(to, 0700) : 0;
	in = fopen(path, "rb");
	out = fopen(to, "wb");
	ck_assert(in && out);
	while ((n = fread(buf, 1, sizeof(buf), in)))
		ck_assert_uint_eq(fwrite(buf, 1, n, out), n);
	(void)fclose(in);
	return fclose(out);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void setup(void)
{
	strcpy(dir, "/tmp/cfs_store_v1_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(nftw(GOLDEN "/store", copy_one, 16, FTW_PHYS), 0);
}

static void teardown(void)
{
	(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void open_it(void)
{
	struct cfs_store_options options = bed_options;
	struct cfs_error err = {""};

	options.pack_bytes = 0;
	ck_assert_msg(cfs_store_open(dir, &options, &b.bed.store, &err) == 0,
		      "%s", err.text);
	ck_assert(!cfs_store_was_unclean(b.bed.store));
	ck_assert_msg(cfs_ns_open(b.bed.store, NULL, &b.ns, &err) == 0, "%s",
		      err.text);
}

static void close_it(void)
{
	ck_assert_int_eq(cfs_ns_close(b.ns), 0);
	ck_assert_int_eq(cfs_store_close(b.bed.store), 0);
}

/* ---- what is in it ---- */

static void check_file(const char *path, const char *want)
{
	struct cfs_ns_file *f = ns_open(&b, path, O_RDONLY);
	struct cfs_digest digest;
	char hex[CFS_DIGEST_HEX];
	struct stat st;
	uint8_t *p;

	ck_assert_int_eq(cfs_ns_walk(b.ns, path, &st), 0);
	p = malloc((size_t)st.st_size);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(cfs_ns_pread(f, p, (size_t)st.st_size, 0), st.st_size);
	cfs_digest_of(p, (size_t)st.st_size, &digest);
	ck_assert_msg(!strcmp(cfs_digest_hex(&digest, hex), want), "%s", path);
	free(p);
	cfs_ns_close_file(f);
}

static void check_files(void)
{
	char hex[65], path[128];
	FILE *f = fopen(GOLDEN "/SHA256SUMS", "r");
	unsigned n = 0;

	ck_assert_ptr_nonnull(f);
	for (; fscanf(f, "%64s %127s", hex, path) == 2; n++)
		check_file(path, hex);
	(void)fclose(f);
	ck_assert_uint_eq(n, 8);
}

static void check_names(void)
{
	_cleanup_(cfs_buf_free) struct cfs_buf target = CFS_BUF_INIT;
	struct stat st, other;
	char value[8];

	ck_assert_int_eq(cfs_ns_readlink(b.ns, ns_ino(&b, "link"), &target), 0);
	ck_assert_str_eq(cfs_buf_str(&target), "step/noise");
	ck_assert_int_eq(cfs_ns_getxattr(b.ns, ns_ino(&b, "step"), "user.run",
					 value, sizeof(value)),
			 5);
	ck_assert(!memcmp(value, "seven", 5));
	ck_assert_int_eq(cfs_ns_walk(b.ns, "step/noise", &st), 0);
	ck_assert_int_eq(cfs_ns_walk(b.ns, "other", &other), 0);
	ck_assert_uint_eq(st.st_ino, other.st_ino);
	ck_assert_uint_eq(st.st_nlink, 2);
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0644);
	ck_assert_uint_eq(st.st_uid, 1000);
	ck_assert_int_eq(cfs_ns_walk(b.ns, "step/pipe", &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFIFO | 0600);
	ck_assert_int_eq(cfs_ns_walk(b.ns, "gone", &st), -ENOENT);
}

/* It holds a chunk of each codec, or reading it proves less than it says. */
static int note_codec(void *arg, const struct cfs_extent *e)
{
	struct cfs_chunk_facts facts;

	ck_assert_int_eq(cfs_store_chunk_facts(b.bed.store, &e->digest, &facts),
			 0);
	*(unsigned *)arg |= 1u << facts.codec;
	return 0;
}

static void check_codecs(void)
{
	static const char *const paths[] = {"step/noise", "step/text",
					    "step/master.f32",
					    "step/model.bf16"};
	unsigned codecs = 0;

	for (size_t i = 0; i < CFS_ARRAY_SIZE(paths); i++)
		ck_assert_int_eq(cfs_ns_extents(b.ns, ns_ino(&b, paths[i]),
						note_codec, &codecs),
				 0);
	ck_assert_uint_eq(codecs, 1u << CFS_CODEC_RAW | 1u << CFS_CODEC_ZSTD |
					  1u << CFS_CODEC_PLANES |
					  1u << CFS_CODEC_DERIVED);
}

static void check_whole(void)
{
	struct cfs_scrub_result scrubbed;
	struct cfs_fsck_result checked;

	check_files();
	check_names();
	check_codecs();
	ck_assert_int_eq(cfs_store_scrub(b.bed.store, NULL, &scrubbed, NULL),
			 0);
	ck_assert_uint_eq(scrubbed.damaged + scrubbed.missing, 0);
	ck_assert_uint_gt(scrubbed.chunks, 5);
	ck_assert_int_eq(cfs_store_fsck(b.bed.store, NULL, &checked, NULL), 0);
	ck_assert_uint_eq(checked.problems, 0);
}

START_TEST(opens_and_reads)
{
	char index[128];

	open_it(); /* makes the index */
	check_whole();
	close_it();
	open_it();
	check_whole();
	close_it();
	(void)snprintf(index, sizeof(index), "%s/index", dir);
	ck_assert_int_eq(access(index, F_OK), 0);
	ck_assert_int_eq(nftw(index, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	open_it();
	check_whole();
	close_it();
}
END_TEST

START_TEST(goes_on)
{
	struct cfs_ns_file *f;

	open_it();
	f = ns_create(&b, 1, "new");
	ns_fill(f, 12, 100000, 0);
	cfs_ns_close_file(f);
	close_it();
	open_it();
	check_whole();
	f = ns_open(&b, "new", O_RDONLY);
	ns_expect_fill(f, 12, 100000, 0);
	cfs_ns_close_file(f);
	close_it();
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("store_v1");
	TCase *t = tcase_create("store_v1");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, opens_and_reads);
	tcase_add_test(t, goes_on);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
