/* store/map/map, node, encode, decode: building, describing, encoding. */
#include "tests/test.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "store/map/map.h"
#include "store/util/buf.h"
#include "store/util/endian.h"
#include "store/util/hash.h"

static struct cfs_filetab *tab_with(uint32_t n)
{
	struct cfs_filetab *tab = cfs_filetab_new();

	ck_assert_ptr_nonnull(tab);
	for (uint32_t i = 0; i < n; i++) {
		char path[32];
		struct cfs_version v = {1, i, 1000, -5, 7};
		uint32_t index;

		(void)snprintf(path, sizeof(path), "dir/file%u", i);
		ck_assert_int_eq(cfs_filetab_add(tab, path, &v, &index), 0);
		ck_assert_uint_eq(index, i);
	}
	return tab;
}

static struct cfs_map *map_over(struct cfs_filetab *tab)
{
	struct cfs_map *map = cfs_map_new(tab);

	ck_assert_ptr_nonnull(map);
	return map;
}

/* One range of file 0. */
static struct cfs_map *plain(struct cfs_filetab *tab, uint64_t len)
{
	struct cfs_map *map = map_over(tab);

	ck_assert_int_eq(cfs_map_add_range(map, 0, 100, len), 0);
	return map;
}

START_TEST(filetab_keeps_paths_once)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(1000);
	struct cfs_version v = {1, 77, 1000, -5, 7};
	uint32_t index;

	ck_assert_uint_eq(cfs_filetab_count(tab), 1000);
	ck_assert_str_eq(cfs_filetab_path(tab, 999), "dir/file999");
	ck_assert_uint_eq(cfs_filetab_version(tab, 999)->ino, 999);
	ck_assert_int_eq(cfs_filetab_add(tab, "dir/file77", &v, &index), 0);
	ck_assert_uint_eq(index, 77);
	v.mtime_ns++;
	ck_assert_int_eq(cfs_filetab_add(tab, "dir/file77", &v, &index),
			 -EEXIST);
}
END_TEST

START_TEST(neighbours_merge)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(2);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = map_over(tab);
	struct cfs_segment seg;

	ck_assert_int_eq(cfs_map_add_literal(map, "ab", 2), 0);
	ck_assert_int_eq(cfs_map_add_literal(map, "", 0), 0);
	ck_assert_int_eq(cfs_map_add_literal(map, "cd", 2), 0);
	ck_assert_int_eq(cfs_map_add_zero(map, 5), 0);
	ck_assert_int_eq(cfs_map_add_zero(map, 6), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 1, 10, 5), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 1, 15, 5), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 1, 0, 0), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 1, 21, 5), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 0, 26, 5), 0);
	ck_assert_uint_eq(cfs_map_count(map), 5);
	ck_assert_uint_eq(cfs_map_size(map), 4 + 11 + 10 + 5 + 5);
	cfs_map_seal(map);
	cfs_map_segment(map, 0, &seg);
	ck_assert_int_eq(seg.kind, CFS_SEG_LITERAL);
	ck_assert_mem_eq(seg.literal, "abcd", 4);
	cfs_map_segment(map, 2, &seg);
	ck_assert_int_eq(seg.kind, CFS_SEG_RANGE);
	ck_assert_uint_eq(seg.off, 15);
	ck_assert_uint_eq(seg.len, 10);
	ck_assert_uint_eq(seg.file, 1);
	ck_assert_uint_eq(seg.file_off, 10);
	for (uint64_t off = 0; off < cfs_map_size(map); off++) {
		cfs_map_segment(map, cfs_map_find(map, off), &seg);
		ck_assert(seg.off <= off && off - seg.off < seg.len);
	}
}
END_TEST

START_TEST(limits)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(1);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = map_over(tab);

	ck_assert_int_eq(cfs_map_add_range(map, 1, 0, 1), -EINVAL);
	ck_assert_int_eq(cfs_map_add_range(map, 0, UINT64_MAX, 2), -EOVERFLOW);
	ck_assert_int_eq(cfs_map_add_range(map, 0, 1, INT64_MAX), -EOVERFLOW);
	ck_assert_int_eq(cfs_map_add_zero(map, (uint64_t)1 << 63), -EOVERFLOW);
	ck_assert_int_eq(cfs_map_add_zero(map, INT64_MAX), 0);
	ck_assert_int_eq(cfs_map_add_literal(map, "x", 1), -EOVERFLOW);
	ck_assert_uint_eq(cfs_map_size(map), INT64_MAX);
	ck_assert_uint_eq(cfs_map_count(map), 1);
}
END_TEST

START_TEST(ranges_are_small)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(64);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = map_over(tab);
	const uint32_t n = 100000;

	for (uint32_t i = 0; i < n; i++)
		ck_assert_int_eq(cfs_map_add_range(map, i % 64, i * 10, 8), 0);
	cfs_map_seal(map);
	ck_assert_uint_eq(cfs_map_count(map), n);
	ck_assert_uint_le(cfs_map_memory_bytes(map), n * 32);
}
END_TEST

static int note_file(void *arg, uint32_t file)
{
	cfs_buf_printf(arg, "%u ", file);
	return 0;
}

static int stop(void *arg, uint32_t file)
{
	(void)arg;
	return file == 3 ? 42 : 0;
}

START_TEST(files_in_use)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(9);
	_cleanup_(cfs_map_unrefp) struct cfs_map *child = map_over(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = map_over(tab);
	_cleanup_(cfs_buf_free) struct cfs_buf seen = CFS_BUF_INIT;

	ck_assert_int_eq(cfs_map_add_range(child, 7, 0, 4), 0);
	ck_assert_int_eq(cfs_map_add_range(child, 3, 0, 4), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 5, 0, 4), 0);
	ck_assert_int_eq(cfs_map_add_cast(map, child, CFS_F32, CFS_BF16), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 3, 50, 4), 0);
	ck_assert_int_eq(cfs_map_each_file(map, note_file, &seen), 0);
	ck_assert_str_eq(cfs_buf_str(&seen), "3 5 7 ");
	ck_assert_int_eq(cfs_map_each_file(map, stop, NULL), 42);
}
END_TEST

START_TEST(computed_segments_are_checked)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(1);
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *other = tab_with(1);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = map_over(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *c = plain(tab, 10);
	_cleanup_(cfs_map_unrefp) struct cfs_map *d = plain(tab, 12);
	_cleanup_(cfs_map_unrefp) struct cfs_map *e = plain(other, 12);
	const uint64_t shape[] = {3, 2}, stride[] = {4, 2}, far[] = {4, 3};
	const uint64_t huge[] = {UINT64_MAX / 2, 2};
	const uint64_t none[] = {3, 0}, same[] = {0, 0};
	const double w[] = {1, 2}, inf[] = {1, (double)INFINITY};

	ck_assert_int_eq(cfs_map_add_cast(map, c, CFS_F32, CFS_BF16), -EINVAL);
	ck_assert_int_eq(cfs_map_add_cast(map, d, CFS_I32, CFS_F32), -EINVAL);
	ck_assert_int_eq(cfs_map_add_cast(map, e, CFS_F32, CFS_BF16), -EINVAL);
	ck_assert_int_eq(cfs_map_add_gather(map, c, 0, 2, shape, stride, 0),
			 -EINVAL);
	ck_assert_int_eq(cfs_map_add_gather(map, c, 17, 2, shape, stride, 0),
			 -EINVAL);
	ck_assert_int_eq(cfs_map_add_gather(map, c, 1, 9, shape, stride, 0),
			 -EINVAL);
	/* last element: 2 * 4 + 2 + 1 = 11 of 10 bytes */
	ck_assert_int_eq(cfs_map_add_gather(map, c, 1, 2, shape, stride, 0),
			 -EINVAL);
	ck_assert_int_eq(cfs_map_add_gather(map, d, 1, 2, shape, far, 1),
			 -EINVAL);
	ck_assert_int_eq(
		cfs_map_add_gather(map, d, 1, 1, shape, stride, UINT64_MAX),
		-EINVAL);
	ck_assert_int_eq(cfs_map_add_gather(map, d, 1, 1, huge, huge, 0),
			 -EINVAL);
	ck_assert_int_eq(cfs_map_add_gather(map, d, 2, 1, huge, same, 0),
			 -EOVERFLOW);
	ck_assert_int_eq(cfs_map_add_linear(map, (struct cfs_map *[]){c, d}, w,
					    2, CFS_BF16, CFS_F32),
			 -EINVAL);
	ck_assert_int_eq(cfs_map_add_linear(map, (struct cfs_map *[]){d, d},
					    inf, 2, CFS_F32, CFS_F32),
			 -EINVAL);
	ck_assert_int_eq(
		cfs_map_add_linear(map, NULL, NULL, 0, CFS_F32, CFS_F32),
		-EINVAL);
	ck_assert_uint_eq(cfs_map_count(map), 0);
	ck_assert_int_eq(cfs_map_add_gather(map, d, 1, 2, none, stride, 0), 0);
	ck_assert_uint_eq(cfs_map_size(map), 0);
	ck_assert_int_eq(cfs_map_add_gather(map, d, 1, 2, shape, stride, 1), 0);
	ck_assert_uint_eq(cfs_map_size(map), 6);
}
END_TEST

START_TEST(depth_is_limited)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(1);
	_cleanup_(cfs_map_unrefp) struct cfs_map *top = plain(tab, 64);

	for (int depth = 1; depth <= CFS_MAP_DEPTH_MAX + 1; depth++) {
		struct cfs_map *next = map_over(tab);
		enum cfs_dtype from = depth % 2 ? CFS_F32 : CFS_F64;
		enum cfs_dtype to = depth % 2 ? CFS_F64 : CFS_F32;

		ck_assert_int_eq(cfs_map_add_cast(next, top, from, to),
				 depth > CFS_MAP_DEPTH_MAX ? -EINVAL : 0);
		cfs_map_unref(top);
		top = next;
	}
}
END_TEST

/* What needs no computing is not computed. */
START_TEST(simple_boxes_become_ranges)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(1);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = map_over(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *c = plain(tab, 100);
	const uint64_t shape[] = {3, 1, 4}, stride[] = {8, 99, 2};
	const uint64_t cut[] = {3, 1, 3};
	const double one = 1;
	struct cfs_segment seg;

	ck_assert_int_eq(cfs_map_add_gather(map, c, 2, 3, shape, stride, 6), 0);
	ck_assert_int_eq(cfs_map_add_cast(map, c, CFS_F16, CFS_F16), 0);
	ck_assert_int_eq(cfs_map_add_linear(map, &c, &one, 1, CFS_F16, CFS_F16),
			 0);
	ck_assert_uint_eq(cfs_map_count(map), 3);
	for (uint32_t i = 0; i < 3; i++) {
		cfs_map_segment(map, i, &seg);
		ck_assert_int_eq(seg.kind, CFS_SEG_RANGE);
		ck_assert_uint_eq(seg.file_off, i ? 100 : 106);
		ck_assert_uint_eq(seg.len, i ? 100 : 24);
	}
	ck_assert_int_eq(cfs_map_add_gather(map, c, 2, 3, cut, stride, 6), 0);
	cfs_map_segment(map, 3, &seg);
	ck_assert_int_eq(seg.kind, CFS_SEG_GATHER);
	ck_assert_uint_eq(seg.len, 18);
	ck_assert_ptr_eq(seg.child, c);
}
END_TEST

START_TEST(slices)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(1);
	_cleanup_(cfs_map_unrefp) struct cfs_map *src = map_over(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = map_over(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *c = plain(tab, 40);
	struct cfs_segment seg;

	ck_assert_int_eq(cfs_map_add_literal(src, "0123456789", 10), 0);
	ck_assert_int_eq(cfs_map_add_cast(src, c, CFS_F32, CFS_BF16), 0);
	ck_assert_int_eq(cfs_map_add_slice(map, src, 3, 30), -EINVAL);
	ck_assert_int_eq(cfs_map_add_slice(map, src, 30, 0), 0);
	ck_assert_int_eq(cfs_map_add_slice(map, src, 3, 10), 0);
	ck_assert_uint_eq(cfs_map_count(map), 2);
	cfs_map_segment(map, 0, &seg);
	ck_assert_mem_eq(seg.literal, "3456789", 7);
	ck_assert_uint_eq(seg.len, 7);
	cfs_map_segment(map, 1, &seg);
	ck_assert_int_eq(seg.kind, CFS_SEG_CAST);
	ck_assert_uint_eq(seg.len, 3);
	ck_assert_uint_eq(seg.skip, 0);
	/* the rest of it goes on where that ended */
	ck_assert_int_eq(cfs_map_add_slice(map, src, 13, 17), 0);
	ck_assert_uint_eq(cfs_map_count(map), 2);
	ck_assert_int_eq(cfs_map_add_slice(map, src, 15, 2), 0);
	ck_assert_uint_eq(cfs_map_count(map), 3);
	cfs_map_segment(map, 2, &seg);
	ck_assert_uint_eq(seg.skip, 5);
}
END_TEST

/* One of everything. */
static struct cfs_map *sampler(struct cfs_filetab *tab)
{
	struct cfs_map *map = map_over(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *c = plain(tab, 96);
	_cleanup_(cfs_map_unrefp) struct cfs_map *cast = map_over(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *two = map_over(tab);
	const uint64_t shape[] = {3, 5}, stride[] = {16, 2};
	const double w[] = {0.5, -2};

	ck_assert_int_eq(cfs_map_add_range(two, 2, 5, 95), 0);
	ck_assert_int_eq(cfs_map_add_range(two, 1, 900, 1), 0);
	ck_assert_int_eq(cfs_map_add_cast(cast, c, CFS_F32, CFS_BF16), 0);
	ck_assert_int_eq(cfs_map_add_literal(map, "PK\3\4", 4), 0);
	ck_assert_int_eq(cfs_map_add_zero(map, 1ULL << 40), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 2, 1ULL << 50, 12), 0);
	ck_assert_int_eq(cfs_map_add_range(map, 0, 12, 1), 0);
	ck_assert_int_eq(cfs_map_add_gather(map, cast, 2, 2, shape, stride, 7),
			 -EINVAL);
	ck_assert_int_eq(cfs_map_add_gather(map, cast, 2, 2, shape, stride, 1),
			 0);
	ck_assert_int_eq(cfs_map_add_linear(map, (struct cfs_map *[]){c, two},
					    w, 2, CFS_F32, CFS_F64),
			 0);
	ck_assert_int_eq(cfs_map_add_slice(map, cast, 3, 7), 0);
	cfs_map_seal(map);
	return map;
}

static void encode(const struct cfs_map *map, struct cfs_buf *out)
{
	cfs_buf_reset(out);
	ck_assert_int_eq(cfs_map_encode(map, out), 0);
}

static void expect_same_segments(const struct cfs_map *a,
				 const struct cfs_map *b)
{
	ck_assert_uint_eq(cfs_map_count(a), cfs_map_count(b));
	ck_assert_uint_eq(cfs_map_size(a), cfs_map_size(b));
	for (uint32_t i = 0; i < cfs_map_count(a); i++) {
		struct cfs_segment x, y;

		cfs_map_segment(a, i, &x);
		cfs_map_segment(b, i, &y);
		ck_assert_int_eq(x.kind, y.kind);
		ck_assert_uint_eq(x.len, y.len);
		ck_assert_uint_eq(x.skip, y.skip);
		ck_assert_uint_eq(x.n_children, y.n_children);
		ck_assert_int_eq(x.from, y.from);
		ck_assert_int_eq(x.to, y.to);
		if (x.kind == CFS_SEG_RANGE) {
			ck_assert_uint_eq(x.file_off, y.file_off);
			ck_assert_str_eq(
				cfs_filetab_path(cfs_map_filetab(a), x.file),
				cfs_filetab_path(cfs_map_filetab(b), y.file));
		}
		if (x.child)
			expect_same_segments(x.child, y.child);
	}
}

START_TEST(encodes_and_decodes)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(4);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = sampler(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *back = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf a = CFS_BUF_INIT,
					       b = CFS_BUF_INIT;

	encode(map, &a);
	ck_assert_int_eq(cfs_map_decode(a.data, a.len, &back), 0);
	expect_same_segments(map, back);
	ck_assert_uint_eq(cfs_filetab_count(cfs_map_filetab(back)), 3);
	ck_assert(
		cfs_version_equal(cfs_filetab_version(cfs_map_filetab(back), 2),
				  cfs_filetab_version(tab, 2)));
	encode(back, &b);
	ck_assert_uint_eq(a.len, b.len);
	ck_assert_mem_eq(a.data, b.data, a.len);
}
END_TEST

START_TEST(empty_map)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(4);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = map_over(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *back = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;

	encode(map, &raw);
	ck_assert_int_eq(cfs_map_decode(raw.data, raw.len, &back), 0);
	ck_assert_uint_eq(cfs_map_size(back), 0);
	ck_assert_uint_eq(cfs_map_count(back), 0);
}
END_TEST

/* Decodes exactly @len bytes that end where the memory ends. */
static int decode_tight(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	_cleanup_(cfs_freep) uint8_t *copy = malloc(len ? len : 1);

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, data, len);
	return cfs_map_decode(copy, len, &map);
}

static void seal_again(struct cfs_buf *raw)
{
	cfs_put_le64(raw->data + raw->len - 8,
		     cfs_hash64(raw->data, raw->len - 8, 0));
}

START_TEST(damage_is_found)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(4);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = sampler(tab);
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;

	encode(map, &raw);
	for (size_t len = 0; len < raw.len; len++)
		ck_assert_int_eq(decode_tight(raw.data, len), -EBADMSG);
	for (size_t i = 0; i < raw.len * 8; i++) {
		int r;

		raw.data[i / 8] ^= (uint8_t)(1U << i % 8);
		r = decode_tight(raw.data, raw.len);
		ck_assert(r == -EBADMSG || (i / 8 == 4 && r < 0));
		raw.data[i / 8] ^= (uint8_t)(1U << i % 8);
	}
	raw.data[4] = 2;
	seal_again(&raw);
	ck_assert_int_eq(decode_tight(raw.data, raw.len), -EPROTONOSUPPORT);
}
END_TEST

/* With a good checksum: refused, or a map that encodes to the same bytes. */
START_TEST(hostile_input_is_canonical_or_refused)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = tab_with(4);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = sampler(tab);
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf again = CFS_BUF_INIT;
	unsigned taken = 0;

	encode(map, &raw);
	for (size_t i = 5; i + 8 < raw.len; i++) {
		uint8_t old = raw.data[i];

		for (unsigned v = 0; v < 256; v++) {
			_cleanup_(cfs_map_unrefp) struct cfs_map *m = NULL;
			int r;

			raw.data[i] = (uint8_t)v;
			seal_again(&raw);
			r = cfs_map_decode(raw.data, raw.len, &m);
			if (r < 0) {
				ck_assert_int_eq(r, -EBADMSG);
				continue;
			}
			taken++;
			encode(m, &again);
			ck_assert_uint_eq(again.len, raw.len);
			ck_assert_mem_eq(again.data, raw.data, raw.len);
		}
		raw.data[i] = old;
	}
	ck_assert_uint_gt(taken, raw.len);
}
END_TEST

static int decode_body(const void *body, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;

	cfs_buf_put(&raw, "CFSM\1\0", 6); /* no files */
	cfs_buf_put(&raw, body, len);
	cfs_buf_put_le64(&raw, 0);
	ck_assert(!raw.failed);
	seal_again(&raw);
	return decode_tight(raw.data, raw.len);
}

#define BODY(s) decode_body(s, sizeof(s) - 1)

START_TEST(odd_bodies)
{
	ck_assert_int_eq(BODY("\x01\x03\x05"), 0);
	ck_assert_int_eq(BODY("\x01\x03\x05."), -EBADMSG); /* a byte left */
	ck_assert_int_eq(BODY("\x01\x03\x00"), -EBADMSG);  /* no bytes */
	ck_assert_int_eq(BODY("\x02\x03\x05\x03\x05"), -EBADMSG); /* one zero */
	ck_assert_int_eq(BODY("\x01\x03\x85\x00"), -EBADMSG); /* long varint */
	ck_assert_int_eq(BODY("\x7f"), -EBADMSG);	      /* count */
	ck_assert_int_eq(BODY("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
			 -EBADMSG);
	ck_assert_int_eq(BODY("\x01\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff"
			      "\x01"),
			 -EBADMSG); /* 2^64 - 1 zeros */
	ck_assert_int_eq(BODY("\x01\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff"
			      "\x7f"),
			 -EBADMSG); /* more than 64 bits */
	ck_assert_int_eq(BODY("\x01\x01\x03xyz"), 0);
	ck_assert_int_eq(BODY("\x01\x01\x04xyz"), -EBADMSG);
	ck_assert_int_eq(BODY("\x01\x02\x00\x00\x01"), -EBADMSG); /* no file */
	ck_assert_int_eq(BODY("\x01\x07\x01"), -EBADMSG);
	/* cast of 8 zeros, f32 to bf16: all four bytes; five; types alike */
	ck_assert_int_eq(BODY("\x01\x05\x00\x04\x02\x04\x01\x03\x08"), 0);
	ck_assert_int_eq(BODY("\x01\x05\x00\x05\x02\x04\x01\x03\x08"),
			 -EBADMSG);
	ck_assert_int_eq(BODY("\x01\x05\x00\x04\x02\x02\x01\x03\x08"),
			 -EBADMSG);
	/* gather of two bytes, four apart; contiguous; outside */
	ck_assert_int_eq(BODY("\x01\x04\x00\x02\x01\x00\x01\x02\x04\x01\x03"
			      "\x08"),
			 0);
	ck_assert_int_eq(BODY("\x01\x04\x00\x02\x01\x00\x01\x02\x01\x01\x03"
			      "\x08"),
			 -EBADMSG);
	ck_assert_int_eq(BODY("\x01\x04\x00\x02\x01\x04\x01\x02\x04\x01\x03"
			      "\x08"),
			 -EBADMSG);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("map");
	TCase *t = tcase_create("all");

	tcase_add_test(t, filetab_keeps_paths_once);
	tcase_add_test(t, neighbours_merge);
	tcase_add_test(t, limits);
	tcase_add_test(t, ranges_are_small);
	tcase_add_test(t, files_in_use);
	tcase_add_test(t, computed_segments_are_checked);
	tcase_add_test(t, depth_is_limited);
	tcase_add_test(t, simple_boxes_become_ranges);
	tcase_add_test(t, slices);
	tcase_add_test(t, encodes_and_decodes);
	tcase_add_test(t, empty_map);
	tcase_add_test(t, damage_is_found);
	tcase_add_test(t, hostile_input_is_canonical_or_refused);
	tcase_add_test(t, odd_bodies);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
