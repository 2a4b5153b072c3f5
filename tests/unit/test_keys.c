/* Keys, values and batches: bytes as FORMAT.md has them, and back. */
#include "store/index/keys.h"

#include <errno.h>
#include <string.h>

#include "store/util/endian.h"
#include "tests/test.h"

static struct cfs_digest some_digest(uint8_t first)
{
	struct cfs_digest d;

	for (size_t i = 0; i < sizeof(d.bytes); i++)
		d.bytes[i] = (uint8_t)(first + i);
	return d;
}

static void expect_bytes(struct cfs_slice s, const char *want, size_t len)
{
	ck_assert_uint_eq(s.len, len);
	ck_assert_int_eq(memcmp(s.data, want, len), 0);
}

#define EXPECT_KEY(key, want)                                                  \
	expect_bytes(cfs_key_slice(&(key)), want, sizeof(want) - 1)

START_TEST(test_key_bytes)
{
	struct cfs_digest d = some_digest(1);
	struct cfs_key key;

	cfs_key_inode(&key, 0x0102030405060708);
	EXPECT_KEY(key, "i\1\2\3\4\5\6\7\10");
	cfs_key_dirent(&key, 1, "name", 4);
	EXPECT_KEY(key, "d\0\0\0\0\0\0\0\1name");
	cfs_key_cookie(&key, 1, 0x102);
	EXPECT_KEY(key, "D\0\0\0\0\0\0\0\1\0\0\0\0\0\0\1\2");
	cfs_key_xattr(&key, 2, "user.a", 6);
	EXPECT_KEY(key, "x\0\0\0\0\0\0\0\2user.a");
	cfs_key_extent(&key, 2, 256);
	EXPECT_KEY(key, "e\0\0\0\0\0\0\0\2\0\0\0\0\0\0\1\0");
	cfs_key_orphan(&key, 3);
	EXPECT_KEY(key, "o\0\0\0\0\0\0\0\3");
	cfs_key_setting(&key, "next_ino");
	EXPECT_KEY(key, "snext_ino");
	cfs_key_applied(&key);
	EXPECT_KEY(key, "t");
	cfs_key_chunk(&key, &d);
	ck_assert_uint_eq(key.len, 33);
	ck_assert_uint_eq(key.data[0], 'c');
	ck_assert_int_eq(memcmp(key.data + 1, d.bytes, 32), 0);
	cfs_key_map(&key, &d);
	ck_assert_uint_eq(key.data[0], 'm');
	cfs_key_prefix(&key, 'e', 0);
	EXPECT_KEY(key, "e");
	cfs_key_prefix(&key, 'e', 2);
	EXPECT_KEY(key, "e\0\0\0\0\0\0\0\2");
}
END_TEST

START_TEST(test_key_parse)
{
	struct cfs_digest d = some_digest(9), d2;
	char longest[CFS_NAME_MAX];
	struct cfs_key key;
	const char *name;
	uint64_t a, b;
	size_t len;

	cfs_key_orphan(&key, 77);
	ck_assert_int_eq(cfs_key_parse_ino(cfs_key_slice(&key), &a), 0);
	ck_assert_uint_eq(a, 77);
	key.len--;
	ck_assert_int_eq(cfs_key_parse_ino(cfs_key_slice(&key), &a), -EBADMSG);
	cfs_key_extent(&key, 5, UINT64_MAX);
	ck_assert_int_eq(cfs_key_parse_u64(cfs_key_slice(&key), &a, &b), 0);
	ck_assert_uint_eq(a, 5);
	ck_assert_uint_eq(b, UINT64_MAX);
	ck_assert_int_eq(cfs_key_parse_ino(cfs_key_slice(&key), &a), -EBADMSG);
	memset(longest, 'n', sizeof(longest));
	cfs_key_dirent(&key, 6, longest, sizeof(longest));
	ck_assert_int_eq(
		cfs_key_parse_name(cfs_key_slice(&key), &a, &name, &len), 0);
	ck_assert_uint_eq(a, 6);
	ck_assert_uint_eq(len, CFS_NAME_MAX);
	ck_assert_ptr_eq(name, (const char *)key.data + 9);
	cfs_key_map(&key, &d);
	ck_assert_int_eq(cfs_key_parse_digest(cfs_key_slice(&key), &d2), 0);
	ck_assert_int_eq(cfs_digest_cmp(&d, &d2), 0);
	ck_assert_int_eq(cfs_key_parse_digest((struct cfs_slice){"", 0}, &d2),
			 -EBADMSG);
}
END_TEST

/* Names that no directory may hold. */
START_TEST(test_key_bad_names)
{
	static const char *const bad[] = {"", ".", "..", "a/b", "/"};
	struct cfs_key key;
	const char *name;
	uint64_t ino;
	size_t len;

	for (size_t i = 0; i < CFS_ARRAY_SIZE(bad); i++) {
		cfs_key_dirent(&key, 1, bad[i], strlen(bad[i]));
		ck_assert_int_eq(cfs_key_parse_name(cfs_key_slice(&key), &ino,
						    &name, &len),
				 -EBADMSG);
	}
	cfs_key_dirent(&key, 1, "a\0b", 3);
	ck_assert_int_eq(
		cfs_key_parse_name(cfs_key_slice(&key), &ino, &name, &len),
		-EBADMSG);
	cfs_key_dirent(&key, 1, "...", 3);
	ck_assert_int_eq(
		cfs_key_parse_name(cfs_key_slice(&key), &ino, &name, &len), 0);
	cfs_key_xattr(&key, 1, "user.a/b", 8);
	ck_assert_int_eq(
		cfs_key_parse_name(cfs_key_slice(&key), &ino, &name, &len), 0);
}
END_TEST

START_TEST(test_logged)
{
	for (const char *c = "idDxeosk"; *c; c++)
		ck_assert(cfs_key_is_logged((struct cfs_slice){c, 1}));
	for (const char *c = "cmtzI"; *c; c++)
		ck_assert(!cfs_key_is_logged((struct cfs_slice){c, 1}));
	ck_assert(!cfs_key_is_logged((struct cfs_slice){"\0", 1}));
	ck_assert(!cfs_key_is_logged((struct cfs_slice){"i", 0}));
}
END_TEST

/* ---- values: every length but the right one, and each bad field ---- */

typedef int decode_fn(const void *data, size_t len);

static int decode_inode(const void *data, size_t len)
{
	struct cfs_inode_record rec;

	return cfs_inode_decode(data, len, &rec);
}

static int decode_dirent(const void *data, size_t len)
{
	struct cfs_dirent_value v;

	return cfs_dirent_decode(data, len, &v);
}

static int decode_extent(const void *data, size_t len)
{
	struct cfs_extent e;

	return cfs_extent_decode(4096, data, len, &e);
}

static int decode_object(const void *data, size_t len)
{
	struct cfs_object_value v;

	return cfs_object_decode(data, len, &v);
}

static int decode_map(const void *data, size_t len)
{
	_cleanup_(cfs_content_map_fini) struct cfs_content_map map = {0};

	return cfs_content_map_decode(data, len, &map);
}

/* @buf decodes; shorter or longer it does not.  Copies at their exact size
 * let a sanitizer see a byte read too far. */
static void expect_exact(decode_fn *decode, struct cfs_buf *buf)
{
	size_t len = buf->len;

	ck_assert(!buf->failed);
	cfs_buf_put_u8(buf, 0);
	for (size_t n = 0; n <= len + 1; n++) {
		_cleanup_(cfs_freep) uint8_t *copy = malloc(CFS_MAX(n, 1u));

		ck_assert_ptr_nonnull(copy);
		memcpy(copy, buf->data, n);
		ck_assert_int_eq(decode(copy, n), n == len ? 0 : -EBADMSG);
	}
	buf->len = len;
}

static void expect_bad(decode_fn *decode, const struct cfs_buf *buf, size_t off,
		       const void *bytes, size_t n)
{
	_cleanup_(cfs_freep) uint8_t *copy = malloc(buf->len);

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, buf->data, buf->len);
	memcpy(copy + off, bytes, n);
	ck_assert_int_eq(decode(copy, buf->len), -EBADMSG);
}

static void expect_bad_u64(decode_fn *decode, const struct cfs_buf *buf,
			   size_t off, uint64_t v)
{
	uint8_t raw[8];

	cfs_put_le64(raw, v);
	expect_bad(decode, buf, off, raw, 8);
}

static void expect_bad_u32(decode_fn *decode, const struct cfs_buf *buf,
			   size_t off, uint32_t v)
{
	uint8_t raw[4];

	cfs_put_le32(raw, v);
	expect_bad(decode, buf, off, raw, 4);
}

static struct cfs_inode_record some_inode(enum cfs_content_kind content)
{
	return (struct cfs_inode_record){
		.mode = 0100644,
		.uid = 1,
		.gid = UINT32_MAX,
		.nlink = 2,
		.rdev = 3,
		.size = UINT64_C(1) << 62,
		.generation = 5,
		.parent = 6,
		.atime = {-1, 999999999},
		.mtime = {INT64_MAX, 0},
		.ctime = {INT64_MIN, 1},
		.btime = {7, 8},
		.content = content,
		.map = some_digest(3),
		.inline_data = (const uint8_t *)"hello",
		.inline_len = 5,
	};
}

START_TEST(test_inode)
{
	static const size_t lens[] = {94, 94 + 4 + 5, 94 + 32, 94};
	struct cfs_inode_record in = some_inode((enum cfs_content_kind)_i);
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_inode_record out;

	cfs_inode_encode(&in, &buf);
	ck_assert_uint_eq(buf.len, lens[_i]);
	expect_exact(decode_inode, &buf);
	ck_assert_int_eq(cfs_inode_decode(buf.data, buf.len, &out), 0);
	ck_assert_uint_eq(out.ino, 0);
	ck_assert_uint_eq(out.content, (unsigned)_i);
	ck_assert_uint_eq(out.mode, in.mode);
	ck_assert_uint_eq(out.gid, in.gid);
	ck_assert_uint_eq(out.size, in.size);
	ck_assert_uint_eq(out.parent, in.parent);
	ck_assert_int_eq(out.atime.tv_sec, -1);
	ck_assert_int_eq(out.atime.tv_nsec, 999999999);
	ck_assert_int_eq(out.ctime.tv_sec, INT64_MIN);
	ck_assert_int_eq(out.btime.tv_nsec, 8);
	ck_assert_uint_eq(out.inline_len, _i == CFS_CONTENT_INLINE ? 5 : 0);
	if (out.inline_len)
		ck_assert_int_eq(memcmp(out.inline_data, "hello", 5), 0);
	if (_i == CFS_CONTENT_SEALED)
		ck_assert_int_eq(cfs_digest_cmp(&out.map, &in.map), 0);
	expect_bad(decode_inode, &buf, 0, "\0", 1);
	expect_bad(decode_inode, &buf, 1, "\4", 1);
	expect_bad(decode_inode, &buf, 1, "\xff", 1);
	expect_bad_u64(decode_inode, &buf, 22, (UINT64_C(1) << 62) + 1);
	expect_bad_u32(decode_inode, &buf, 46 + 8, 1000000000);
	buf.data[0] = 2;
	ck_assert_int_eq(cfs_inode_decode(buf.data, buf.len, &out),
			 -EPROTONOSUPPORT);
}
END_TEST

START_TEST(test_inode_inline_limit)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_inode_record rec = some_inode(CFS_CONTENT_INLINE);
	static const uint8_t bytes[4097];

	rec.inline_data = bytes;
	rec.inline_len = 4096;
	cfs_inode_encode(&rec, &buf);
	ck_assert_int_eq(decode_inode(buf.data, buf.len), 0);
	cfs_buf_reset(&buf);
	rec.inline_len = 4097;
	cfs_inode_encode(&rec, &buf);
	ck_assert_int_eq(decode_inode(buf.data, buf.len), -EBADMSG);
}
END_TEST

START_TEST(test_dirent)
{
	const struct cfs_dirent_value in = {9, UINT64_MAX, 8};
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_dirent_value out;

	cfs_dirent_encode(&in, &buf);
	expect_exact(decode_dirent, &buf);
	ck_assert_int_eq(cfs_dirent_decode(buf.data, buf.len, &out), 0);
	ck_assert_uint_eq(out.ino, 9);
	ck_assert_uint_eq(out.cookie, UINT64_MAX);
	ck_assert_uint_eq(out.type, 8);
	expect_bad_u64(decode_dirent, &buf, 0, 0);
	expect_bad(decode_dirent, &buf, 16, "\3", 1);
	expect_bad(decode_dirent, &buf, 16, "\0", 1);
}
END_TEST

START_TEST(test_extent)
{
	const struct cfs_extent in = {4096, 1000, some_digest(5), 24, 1024};
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_extent out;

	cfs_extent_encode(&in, &buf);
	expect_exact(decode_extent, &buf);
	ck_assert_int_eq(cfs_extent_decode(4096, buf.data, buf.len, &out), 0);
	ck_assert_uint_eq(out.off, 4096);
	ck_assert_uint_eq(out.len, 1000);
	ck_assert_uint_eq(out.chunk_off, 24);
	ck_assert_uint_eq(out.chunk_len, 1024);
	ck_assert_int_eq(cfs_digest_cmp(&in.digest, &out.digest), 0);
	expect_bad_u64(decode_extent, &buf, 0, 0);
	expect_bad_u64(decode_extent, &buf, 0, 1001); /* beyond the chunk */
	expect_bad_u64(decode_extent, &buf, 0, UINT64_MAX);
	expect_bad_u32(decode_extent, &buf, 40, 25);
	expect_bad_u32(decode_extent, &buf, 40, UINT32_MAX);
	expect_bad_u32(decode_extent, &buf, 44, 1023);
	expect_bad_u32(decode_extent, &buf, 44, (4u << 20) + 1);
	ck_assert_int_eq(cfs_extent_decode((UINT64_C(1) << 62) - 999, buf.data,
					   buf.len, &out),
			 -EBADMSG);
	ck_assert_int_eq(cfs_extent_decode(UINT64_MAX, buf.data, buf.len, &out),
			 -EBADMSG);
}
END_TEST

START_TEST(test_object)
{
	const struct cfs_object_value in = {1, 2, 72, 100, 4u << 20};
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_object_value out;

	cfs_object_encode(&in, &buf);
	ck_assert_uint_eq(buf.len, 18);
	expect_exact(decode_object, &buf);
	ck_assert_int_eq(cfs_object_decode(buf.data, buf.len, &out), 0);
	ck_assert_uint_eq(out.lane, 1);
	ck_assert_uint_eq(out.pack, 2);
	ck_assert_uint_eq(out.off, 72);
	ck_assert_uint_eq(out.stored_len, 100);
	ck_assert_uint_eq(out.raw_len, 4u << 20);
	expect_bad_u32(decode_object, &buf, 2, 0);
	expect_bad_u32(decode_object, &buf, 6, 0x7fffffff);
	expect_bad_u32(decode_object, &buf, 10, (8u << 20) + 1);
	expect_bad_u32(decode_object, &buf, 14, (4u << 20) + 1);
}
END_TEST

START_TEST(test_map_extents)
{
	struct cfs_extent extents[2] = {
		{0, 100, some_digest(1), 0, 100},
		{200, 50, some_digest(2), 10, 60},
	};
	const struct cfs_content_map in = {0, 250, 2, extents, NULL};
	_cleanup_(cfs_content_map_fini) struct cfs_content_map out = {0};
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;

	cfs_content_map_encode(&in, &buf);
	ck_assert_uint_eq(buf.len, 13 + 2 * 56);
	expect_exact(decode_map, &buf);
	ck_assert_int_eq(cfs_content_map_decode(buf.data, buf.len, &out), 0);
	ck_assert_uint_eq(out.level, 0);
	ck_assert_uint_eq(out.size, 250);
	ck_assert_uint_eq(out.count, 2);
	ck_assert_uint_eq(out.extents[1].off, 200);
	ck_assert_uint_eq(out.extents[1].chunk_len, 60);
	expect_bad(decode_map, &buf, 0, "\1", 1);
	expect_bad(decode_map, &buf, 0, "\2", 1);
	expect_bad_u64(decode_map, &buf, 1, 249);
	expect_bad_u64(decode_map, &buf, 1, (UINT64_C(1) << 62) + 1);
	expect_bad_u32(decode_map, &buf, 9, 1);
	expect_bad_u32(decode_map, &buf, 9, 3);
	expect_bad_u32(decode_map, &buf, 9, UINT32_MAX);
	expect_bad_u64(decode_map, &buf, 13 + 56, 99); /* overlaps */
	expect_bad_u64(decode_map, &buf, 13, 300);     /* not ascending */
}
END_TEST

START_TEST(test_map_children)
{
	struct cfs_map_child children[2] = {
		{0, UINT64_C(1) << 40, some_digest(1)},
		{UINT64_C(1) << 40, 7, some_digest(2)},
	};
	const struct cfs_content_map in = {1, (UINT64_C(1) << 40) + 7, 2, NULL,
					   children};
	_cleanup_(cfs_content_map_fini) struct cfs_content_map out = {0};
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;

	cfs_content_map_encode(&in, &buf);
	ck_assert_uint_eq(buf.len, 13 + 2 * 48);
	expect_exact(decode_map, &buf);
	ck_assert_int_eq(cfs_content_map_decode(buf.data, buf.len, &out), 0);
	ck_assert_uint_eq(out.level, 1);
	ck_assert_ptr_null(out.extents);
	ck_assert_uint_eq(out.children[1].len, 7);
	ck_assert_int_eq(
		cfs_digest_cmp(&out.children[1].digest, &children[1].digest),
		0);
	expect_bad_u64(decode_map, &buf, 13 + 48, 1); /* overlaps */
	expect_bad_u64(decode_map, &buf, 13 + 48 + 8, 0);
	expect_bad_u64(decode_map, &buf, 13 + 48 + 8, 8);
	expect_bad_u64(decode_map, &buf, 13 + 48 + 8, UINT64_MAX);
}
END_TEST

START_TEST(test_map_limits)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_content_map map = {0};
	struct cfs_extent *extents =
		calloc(CFS_MAP_FANOUT + 1, sizeof(*extents));

	cfs_content_map_encode(&map, &buf);
	expect_exact(decode_map, &buf); /* an empty one */
	cfs_buf_reset(&buf);
	ck_assert_ptr_nonnull(extents);
	for (size_t i = 0; i <= CFS_MAP_FANOUT; i++)
		extents[i] =
			(struct cfs_extent){.off = i, .len = 1, .chunk_len = 1};
	map = (struct cfs_content_map){0, CFS_MAP_FANOUT + 1, CFS_MAP_FANOUT,
				       extents, NULL};
	cfs_content_map_encode(&map, &buf);
	ck_assert_int_eq(decode_map(buf.data, buf.len), 0);
	cfs_buf_put_le64(&buf, CFS_MAP_FANOUT);
	cfs_extent_encode(&extents[CFS_MAP_FANOUT], &buf);
	cfs_put_le32(buf.data + 9, CFS_MAP_FANOUT + 1);
	ck_assert_int_eq(decode_map(buf.data, buf.len), -EBADMSG);
	free(extents);
}
END_TEST

/* ---- batches ---- */

static int count_pairs(void *arg, struct cfs_slice key,
		       const struct cfs_slice *val)
{
	int *n = arg;

	ck_assert_uint_gt(key.len, 0);
	*n += val ? 1 : 100;
	return *n == 7;
}

static int decode_batch(const void *data, size_t len)
{
	int n = 0;

	return cfs_batch_each(data, len, count_pairs, &n);
}

START_TEST(test_batch)
{
	static const char want[] = "\1\2\0ab\3\0\0\0xyz\2\1\0c\1\1\0d\0\0\0\0";
	_cleanup_(cfs_batch_fini) struct cfs_batch batch = CFS_BATCH_INIT;
	const struct cfs_slice key = {"ab", 2}, val = {"xyz", 3};
	int n = 0;

	cfs_batch_put(&batch, key, val);
	cfs_batch_del(&batch, (struct cfs_slice){"c", 1});
	cfs_batch_put(&batch, (struct cfs_slice){"d", 1},
		      (struct cfs_slice){NULL, 0});
	ck_assert_uint_eq(batch.count, 3);
	expect_bytes((struct cfs_slice){batch.bytes.data, batch.bytes.len},
		     want, sizeof(want) - 1);
	ck_assert_int_eq(
		cfs_batch_each(want, sizeof(want) - 1, count_pairs, &n), 0);
	ck_assert_int_eq(n, 102);
	n = 6; /* stops */
	ck_assert_int_eq(
		cfs_batch_each(want, sizeof(want) - 1, count_pairs, &n), 1);
	ck_assert_int_eq(n, 7);
}
END_TEST

START_TEST(test_batch_bad)
{
	static const char good[] = "\1\2\0ab\3\0\0\0xyz";
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;

	ck_assert_int_eq(decode_batch(NULL, 0), 0);
	cfs_buf_put(&buf, good, sizeof(good) - 1);
	for (size_t n = 1; n < buf.len; n++)
		ck_assert_int_eq(decode_batch(buf.data, n), -EBADMSG);
	expect_bad(decode_batch, &buf, 0, "\0", 1);
	expect_bad(decode_batch, &buf, 0, "\3", 1);
	expect_bad(decode_batch, &buf, 1, "\0\0", 2);
	expect_bad(decode_batch, &buf, 1, "\xff\xff", 2);
	expect_bad_u32(decode_batch, &buf, 5, UINT32_MAX);
	cfs_buf_put_u8(&buf, 1);
	ck_assert_int_eq(decode_batch(buf.data, buf.len), -EBADMSG);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("keys");
	TCase *t = tcase_create("keys");

	tcase_add_test(t, test_key_bytes);
	tcase_add_test(t, test_key_parse);
	tcase_add_test(t, test_key_bad_names);
	tcase_add_test(t, test_logged);
	tcase_add_loop_test(t, test_inode, 0, 4);
	tcase_add_test(t, test_inode_inline_limit);
	tcase_add_test(t, test_dirent);
	tcase_add_test(t, test_extent);
	tcase_add_test(t, test_object);
	tcase_add_test(t, test_map_extents);
	tcase_add_test(t, test_map_children);
	tcase_add_test(t, test_map_limits);
	tcase_add_test(t, test_batch);
	tcase_add_test(t, test_batch_bad);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
