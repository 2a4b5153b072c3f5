/* fs/container/zip: torch's layout byte for byte, and hostile archives. */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "fs/container/zip.h"
#include "store/map/source.h"
#include "store/util/arena.h"
#include "store/util/buf.h"
#include "store/util/endian.h"
#include "store/util/error.h"

/* Bytes at 0, zeros behind them up to a size that needs no memory. */
struct sparse {
	struct cfs_file base;
	const struct part {
		uint64_t off;
		const struct cfs_buf *buf;
	} * parts;
	size_t n_parts;
	uint64_t size;
};

static ssize_t sparse_pread(struct cfs_file *file, void *buf, size_t len,
			    uint64_t off)
{
	const struct sparse *s = container_of(file, struct sparse, base);

	if (off >= s->size)
		return 0;
	len = (size_t)CFS_MIN((uint64_t)len, s->size - off);
	memset(buf, 0, len);
	for (size_t i = 0; i < s->n_parts; i++) {
		const struct part *p = &s->parts[i];
		const uint64_t from = CFS_MAX(off, p->off);
		const uint64_t to = CFS_MIN(off + len, p->off + p->buf->len);

		if (from < to)
			memcpy((uint8_t *)buf + (from - off),
			       p->buf->data + (from - p->off),
			       (size_t)(to - from));
	}
	return (ssize_t)len;
}

static const struct cfs_file_ops sparse_ops = {.pread = sparse_pread};

static int read_zip(const struct cfs_buf *b, struct cfs_arena *arena,
		    struct cfs_zip *zip, struct cfs_error *err)
{
	const struct part part = {0, b};
	struct sparse s = {{&sparse_ops}, &part, 1, b->len};

	return cfs_zip_read(&s.base, b->len, arena, zip, err);
}

static void put(struct cfs_zip_writer *w, const char *name, const void *data,
		size_t len, struct cfs_buf *out)
{
	const uint32_t crc = (uint32_t)crc32_z(0, data, len);

	ck_assert_int_eq(cfs_zip_writer_begin(w, name, len, crc, out), 0);
	cfs_buf_put(out, data, len);
	ck_assert_int_eq(cfs_zip_writer_end(w, out), 0);
}

static void make(struct cfs_buf *out)
{
	_cleanup_(cfs_zip_writer_freep) struct cfs_zip_writer *w =
		cfs_zip_writer_new();

	put(w, "a/data.pkl", "hello", 5, out);
	put(w, "a/empty", "", 0, out);
	put(w, "a/version", "3\n", 2, out);
	ck_assert_int_eq(cfs_zip_writer_finish(w, out), 0);
}

/* Where torch 2.6 put the records of a real file (prefix my_model.v1). */
START_TEST(layout_is_that_of_torch)
{
	static const struct {
		const char *name;
		size_t size, header, payload;
	} want[] = {
		{"data.pkl", 848, 0, 64},
		{"byteorder", 6, 928, 1024},
		{"data/0", 24, 1046, 1152},
		{"data/1", 200, 1192, 1280},
		{"data/2", 6, 1496, 1600},
		{"data/3", 0, 1622, 1728},
		{"data/4", 8, 1728, 1792},
		{"version", 2, 1816, 1920},
		{".data/serialization_id", 40, 1938, 2048},
	};
	_cleanup_(cfs_zip_writer_freep) struct cfs_zip_writer *w =
		cfs_zip_writer_new();
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	static const uint8_t bytes[848];
	char name[64];

	for (size_t i = 0; i < CFS_ARRAY_SIZE(want); i++) {
		(void)snprintf(name, sizeof(name), "my_model.v1/%s",
			       want[i].name);
		ck_assert_uint_eq(out.len, want[i].header);
		ck_assert_int_eq(
			cfs_zip_writer_begin(w, name, want[i].size, 0, &out),
			0);
		ck_assert_uint_eq(out.len, want[i].payload);
		ck_assert_uint_eq(cfs_get_le16(out.data + want[i].header + 6),
				  want[i].size ? 0x0808 : 0x0800);
		cfs_buf_put(&out, bytes, want[i].size);
		ck_assert_int_eq(cfs_zip_writer_end(w, &out), 0);
	}
	ck_assert_int_eq(cfs_zip_writer_finish(w, &out), 0);
	/* zip64 end record, its locator, end record */
	ck_assert_uint_eq(cfs_get_le32(out.data + out.len - 22), 0x06054b50);
	ck_assert_uint_eq(cfs_get_le32(out.data + out.len - 42), 0x07064b50);
	ck_assert_uint_eq(cfs_get_le32(out.data + out.len - 98), 0x06064b50);
}
END_TEST

/* The real file of more than 4 GiB: {uint8[2^32 + 64], float32[3]}. */
START_TEST(layout_beyond_4_gib)
{
	static const struct {
		const char *name;
		uint64_t size, header, payload;
	} want[] = {
		{"big/data.pkl", 249, 0, 64},
		{"big/byteorder", 6, 329, 384},
		{"big/data/0", (UINT64_C(1) << 32) + 64, 406, 512},
		{"big/data/1", 12, 4294967896, 4294968000},
		{"big/version", 2, 4294968036, 4294968128},
	};
	_cleanup_(cfs_zip_writer_freep) struct cfs_zip_writer *w =
		cfs_zip_writer_new();
	_cleanup_(cfs_arena_freep) struct cfs_arena *arena = cfs_arena_new(0);
	struct cfs_buf bufs[CFS_ARRAY_SIZE(want) * 2 + 1] = {{0}};
	struct part parts[CFS_ARRAY_SIZE(want) * 2 + 1];
	struct sparse s = {{&sparse_ops}, parts, CFS_ARRAY_SIZE(parts), 0};
	struct cfs_error err = {""};
	struct cfs_zip zip;
	uint64_t off = 0;
	size_t k = 0;

	for (size_t i = 0; i < CFS_ARRAY_SIZE(want); i++) {
		ck_assert_uint_eq(off, want[i].header);
		parts[k] = (struct part){off, &bufs[k]};
		ck_assert_int_eq(cfs_zip_writer_begin(w, want[i].name,
						      want[i].size, 0,
						      &bufs[k]),
				 0);
		off += bufs[k++].len;
		ck_assert_uint_eq(off, want[i].payload);
		off += want[i].size;
		parts[k] = (struct part){off, &bufs[k]};
		ck_assert_int_eq(cfs_zip_writer_end(w, &bufs[k]), 0);
		ck_assert_uint_eq(bufs[k].len, i < 2 ? 16 : 24);
		off += bufs[k++].len;
	}
	parts[k] = (struct part){off, &bufs[k]};
	ck_assert_int_eq(cfs_zip_writer_finish(w, &bufs[k]), 0);
	s.size = off + bufs[k].len;
	ck_assert_uint_eq(cfs_get_le32(bufs[k].data + bufs[k].len - 6),
			  UINT32_MAX);
	ck_assert_msg(!cfs_zip_read(&s.base, s.size, arena, &zip, &err), "%s",
		      err.text);
	ck_assert_uint_eq(zip.n_entries, CFS_ARRAY_SIZE(want));
	for (size_t i = 0; i < CFS_ARRAY_SIZE(want); i++) {
		ck_assert_str_eq(zip.entries[i].name, want[i].name);
		ck_assert_uint_eq(zip.entries[i].usize, want[i].size);
		ck_assert_uint_eq(zip.entries[i].header_off, want[i].header);
		ck_assert_int_eq(cfs_zip_payload(&s.base, s.size,
						 &zip.entries[i], &off, &err),
				 0);
		ck_assert_uint_eq(off, want[i].payload);
	}
	for (size_t i = 0; i < CFS_ARRAY_SIZE(bufs); i++)
		cfs_buf_free(&bufs[i]);
}
END_TEST

START_TEST(what_is_written_is_read)
{
	_cleanup_(cfs_arena_freep) struct cfs_arena *arena = cfs_arena_new(0);
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf got = CFS_BUF_INIT;
	const struct part part = {0, &b};
	struct sparse s = {{&sparse_ops}, &part, 1, 0};
	struct cfs_zip zip;

	make(&b);
	s.size = b.len;
	ck_assert_int_eq(cfs_zip_read(&s.base, b.len, arena, &zip, NULL), 0);
	ck_assert_uint_eq(zip.n_entries, 3);
	ck_assert_int_eq(
		cfs_zip_extract(&s.base, b.len, &zip.entries[0], 5, &got, NULL),
		0);
	ck_assert_str_eq(cfs_buf_str(&got), "hello");
	ck_assert_int_eq(
		cfs_zip_extract(&s.base, b.len, &zip.entries[0], 4, &got, NULL),
		-E2BIG);
	/* a byte of the payload changed: its CRC tells */
	b.data[64] ^= 1;
	ck_assert_int_eq(
		cfs_zip_extract(&s.base, b.len, &zip.entries[0], 5, &got, NULL),
		-EBADMSG);
	ck_assert_uint_eq(got.len, 5);
}
END_TEST

/* @change: applied to a sound archive, whose directory starts at @cd. */
static void ck_damage(void (*change)(struct cfs_buf *b, size_t cd),
		      const char *text)
{
	_cleanup_(cfs_arena_freep) struct cfs_arena *arena = cfs_arena_new(0);
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct cfs_error err = {""};
	struct cfs_zip zip;
	int r;

	make(&b);
	change(&b, cfs_get_le32(b.data + b.len - 6));
	r = read_zip(&b, arena, &zip, &err);
	ck_assert_msg(r == -EBADMSG || r == -E2BIG, "%d, not '%s'", r, text);
	ck_assert_msg(strstr(err.text, text), "'%s' lacks '%s'", err.text,
		      text);
}

static void cut(struct cfs_buf *b, size_t cd)
{
	(void)cd;
	b->len--;
}
static void encrypt(struct cfs_buf *b, size_t cd)
{
	b->data[cd + 8] |= 1;
}
static void two_sizes(struct cfs_buf *b, size_t cd)
{
	b->data[cd + 20] = 4;
}
static void too_long(struct cfs_buf *b, size_t cd)
{
	cfs_put_le32(b->data + cd + 20, 1 << 20);
	cfs_put_le32(b->data + cd + 24, 1 << 20);
}
static void moved(struct cfs_buf *b, size_t cd)
{
	cfs_put_le32(b->data + cd + 42, 10);
}
static void same_place(struct cfs_buf *b, size_t cd)
{
	cfs_put_le32(b->data + cd + 46 + 10 + 42, 0);
}
static void same_name(struct cfs_buf *b, size_t cd)
{
	/* a/version becomes a/data.pk + one byte of … the same length */
	memcpy(b->data + cd + 46 + 10 + 46, "a/dup", 5);
	memcpy(b->data + cd + 46 + 10 + 46 + 7 + 46, "a/dup", 5);
	b->data[cd + 46 + 10 + 28] = 5;
	b->data[cd + 46 + 10 + 30] = 2; /* the rest is an extra field */
	b->data[cd + 46 + 10 + 46 + 7 + 28] = 5;
	b->data[cd + 46 + 10 + 46 + 7 + 30] = 4;
}
static void count(struct cfs_buf *b, size_t cd)
{
	(void)cd;
	cfs_put_le64(b->data + b->len - 98 + 24, UINT64_MAX / 2);
	cfs_put_le64(b->data + b->len - 98 + 32, UINT64_MAX / 2);
}
static void fewer(struct cfs_buf *b, size_t cd)
{
	(void)cd;
	cfs_put_le64(b->data + b->len - 98 + 24, 2);
	cfs_put_le64(b->data + b->len - 98 + 32, 2);
}
static void directory_outside(struct cfs_buf *b, size_t cd)
{
	(void)cd;
	cfs_put_le64(b->data + b->len - 98 + 48, UINT64_MAX - 4);
}
static void end64_outside(struct cfs_buf *b, size_t cd)
{
	(void)cd;
	cfs_put_le64(b->data + b->len - 42 + 8, UINT64_MAX - 4);
}
static void disks(struct cfs_buf *b, size_t cd)
{
	(void)cd;
	b->data[b->len - 98 + 16] = 1;
}
static void no_zip64(struct cfs_buf *b, size_t cd)
{
	cfs_put_le32(b->data + cd + 42, UINT32_MAX);
}
static void name_with_nul(struct cfs_buf *b, size_t cd)
{
	b->data[cd + 46 + 3] = 0;
}

START_TEST(damage_is_named)
{
	ck_damage(cut, "no end record");
	ck_damage(encrypt, "encrypted");
	ck_damage(two_sizes, "two sizes");
	ck_damage(too_long, "overlaps");
	ck_damage(moved, "10 bytes before the first record");
	ck_damage(same_place, "overlaps");
	ck_damage(same_name, "two records are named 'a/dup'");
	ck_damage(count, "cannot fit");
	ck_damage(fewer, "stray bytes");
	ck_damage(directory_outside, "directory outside");
	ck_damage(end64_outside, "end record outside");
	ck_damage(disks, "several disks");
	ck_damage(no_zip64, "lacks its zip64 sizes");
	ck_damage(name_with_nul, "entry 0 is damaged");
}
END_TEST

START_TEST(local_headers_must_agree)
{
	static const struct {
		size_t at;
		uint8_t value;
		const char *text;
	} lies[] = {
		{0, 'X', "no local header"}, {8, 8, "disagree"},
		{6, 9, "disagree"},	     {18, 77, "disagree"},
		{26, 3, "another name"},     {30, 'b', "another name"},
		{29, 0xff, "overlaps"},
	};
	_cleanup_(cfs_arena_freep) struct cfs_arena *arena = cfs_arena_new(0);

	for (size_t i = 0; i < CFS_ARRAY_SIZE(lies); i++) {
		_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
		const struct part part = {0, &b};
		struct sparse s = {{&sparse_ops}, &part, 1, 0};
		struct cfs_error err = {""};
		struct cfs_zip zip;
		uint64_t off;

		make(&b);
		s.size = b.len;
		ck_assert_int_eq(read_zip(&b, arena, &zip, &err), 0);
		b.data[lies[i].at] = lies[i].value;
		ck_assert_int_eq(cfs_zip_payload(&s.base, s.size,
						 &zip.entries[0], &off, &err),
				 -EBADMSG);
		ck_assert_msg(strstr(err.text, lies[i].text),
			      "%zu: '%s' lacks '%s'", i, err.text,
			      lies[i].text);
	}
}
END_TEST

START_TEST(no_more_is_inflated_than_said)
{
	uint8_t plain[5000] = {1, 2, 3}, packed[1000];
	struct cfs_buf b = {packed, 0, 0, false};
	const struct part part = {64, &b};
	struct sparse s = {{&sparse_ops}, &part, 1, 10000};
	_cleanup_(cfs_buf_free) struct cfs_buf head = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf got = CFS_BUF_INIT;
	struct cfs_zip_entry e = {.name = "a/z", .method = 8, .usize = 5000};
	struct cfs_error err = {""};
	z_stream z = {.next_in = plain,
		      .avail_in = sizeof(plain),
		      .next_out = packed,
		      .avail_out = sizeof(packed)};

	ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, -15, 8, 0), Z_OK);
	ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	b.len = e.csize = z.total_out;
	(void)deflateEnd(&z);
	/* a local header in front, by hand */
	cfs_buf_put(&head, "PK\3\4\0\0\0\0\x08\0\0\0\0\0\0\0\0\0", 18);
	cfs_buf_put_le32(&head, UINT32_MAX);
	cfs_buf_put_le32(&head, UINT32_MAX);
	cfs_buf_put(&head, "\x03\0\x1f\0a/z", 7);
	e.limit_off = 9000;
	s.parts = (const struct part[]){{0, &head}, part};
	s.n_parts = 2;
	ck_assert_msg(!cfs_zip_extract(&s.base, s.size, &e, 5000, &got, &err),
		      "%s", err.text);
	ck_assert_uint_eq(got.len, 5000);
	ck_assert_mem_eq(got.data, plain, sizeof(plain));
	e.usize = 4999; /* a bomb says less than it holds */
	ck_assert_int_eq(cfs_zip_extract(&s.base, s.size, &e, 5000, &got, &err),
			 -EBADMSG);
	e.usize = 5001;
	ck_assert_int_eq(cfs_zip_extract(&s.base, s.size, &e, 6000, &got, &err),
			 -EBADMSG);
	e.usize = UINT32_MAX; /* or so much that deflate could not */
	ck_assert_int_eq(
		cfs_zip_extract(&s.base, s.size, &e, SIZE_MAX, &got, &err),
		-EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "larger than deflate"));
}
END_TEST

START_TEST(many_records)
{
	_cleanup_(cfs_zip_writer_freep) struct cfs_zip_writer *w =
		cfs_zip_writer_new();
	_cleanup_(cfs_arena_freep) struct cfs_arena *arena = cfs_arena_new(0);
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct cfs_error err = {""};
	struct cfs_zip zip;
	char name[32];

	/* more than the 16 bits of the end record can count */
	for (unsigned i = 0; i < 70000; i++) {
		(void)snprintf(name, sizeof(name), "a/data/%u", i);
		put(w, name, "", 0, &b);
	}
	ck_assert_int_eq(cfs_zip_writer_finish(w, &b), 0);
	ck_assert_msg(!read_zip(&b, arena, &zip, &err), "%s", err.text);
	ck_assert_uint_eq(zip.n_entries, 70000);
	ck_assert_str_eq(zip.entries[69999].name, "a/data/69999");
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("zip");
	TCase *tc = tcase_create("zip");

	tcase_add_test(tc, layout_is_that_of_torch);
	tcase_add_test(tc, layout_beyond_4_gib);
	tcase_add_test(tc, what_is_written_is_read);
	tcase_add_test(tc, damage_is_named);
	tcase_add_test(tc, local_headers_must_agree);
	tcase_add_test(tc, no_more_is_inflated_than_said);
	tcase_add_test(tc, many_records);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
