/* Planes as codes: every length and width comes back, and nothing else does. */
#include "tests/test.h"

#include <errno.h>
#include <string.h>

#include "store/chunk/codes.h"
#include "store/util/buf.h"
#include "store/util/digest.h"

#define LEN_MAX 300u
#define ROOM	(LEN_MAX * 2 + 64)

static uint32_t state = 12345;

static uint32_t next(void)
{
	state = state * 1664525 + 1013904223;
	return state >> 8;
}

/* @n values, the first ones far more often, as exponents are. */
static void fill(uint8_t *p, size_t len, unsigned n)
{
	unsigned k;

	while (len--) {
		for (k = 0; k + 1 < n && next() % 2; k++)
			;
		*p++ = (uint8_t)(k * 37 + 5);
	}
}

static void pick(const uint8_t *p, size_t len, struct cfs_codebook *book)
{
	uint32_t count[256] = {0};
	size_t i;

	for (i = 0; i < len; i++)
		count[p[i]]++;
	cfs_codes_pick(count, (uint32_t)len, book);
}

START_TEST(picks)
{
	uint8_t p[4096];
	struct cfs_codebook book;
	unsigned i;

	memset(p, 7, sizeof(p));
	pick(p, sizeof(p), &book);
	ck_assert_uint_eq(book.bits, 0); /* a run */
	for (i = 0; i < sizeof(p); i++)
		p[i] = (uint8_t)next();
	pick(p, sizeof(p), &book);
	ck_assert_uint_eq(book.bits, 0); /* noise */
	for (i = 0; i < sizeof(p); i++)
		p[i] = i % 16 ? 200 : 100;
	pick(p, sizeof(p), &book);
	ck_assert_uint_eq(book.bits, 1);
	ck_assert_uint_eq(book.values[0], 200);
	for (i = 0; i < sizeof(p); i++)
		p[i] = (uint8_t)(100 + i % 15);
	pick(p, sizeof(p), &book);
	ck_assert_uint_eq(book.bits, 4); /* 15 equally frequent ones */
	for (i = 0; i < sizeof(p); i++)
		p[i] = (uint8_t)(100 + i % 7);
	pick(p, sizeof(p), &book);
	ck_assert_uint_eq(book.bits, 3);
}
END_TEST

/* All values of a book differ, also where fewer than 15 were seen. */
START_TEST(values_differ)
{
	uint32_t count[256] = {[9] = 5, [200] = 5};
	struct cfs_codebook book;
	unsigned i, k;

	cfs_codes_pick(count, 10, &book);
	for (i = 0; i < 15; i++)
		for (k = 0; k < i; k++)
			ck_assert_uint_ne(book.values[i], book.values[k]);
}
END_TEST

/* @_i: bits of a code. */
START_TEST(comes_back)
{
	uint8_t raw[LEN_MAX], put[ROOM], got[LEN_MAX + 1];
	struct cfs_codebook book;
	size_t len, n, room;

	for (len = 1; len <= LEN_MAX; len++) {
		fill(raw, len, 24);
		pick(raw, len, &book);
		book.bits = (unsigned)_i;
		n = cfs_codes_put(&book, raw, len, put, sizeof(put));
		ck_assert_uint_ne(n, 0);
		got[len] = 0xa5;
		ck_assert_int_eq(cfs_codes_get(put, n, got, len), 0);
		ck_assert_mem_eq(got, raw, len);
		ck_assert_uint_eq(got[len], 0xa5);
		/* no byte too many, none too few */
		ck_assert_int_eq(cfs_codes_get(put, n - 1, got, len), -EBADMSG);
		ck_assert_int_eq(cfs_codes_get(put, n + 1, got, len), -EBADMSG);
		for (room = n - CFS_MIN(n, 9u); room < n; room++)
			ck_assert_uint_eq(
				cfs_codes_put(&book, raw, len, put, room), 0);
		ck_assert_uint_eq(cfs_codes_put(&book, raw, len, put, n), n);
	}
}
END_TEST

START_TEST(refused)
{
	uint8_t raw[64], put[ROOM], got[64];
	struct cfs_codebook book;
	size_t n;

	fill(raw, sizeof(raw), 3);
	pick(raw, sizeof(raw), &book);
	n = cfs_codes_put(&book, raw, sizeof(raw), put, sizeof(put));
	ck_assert_uint_ne(n, 0);
	put[0] = 0;
	ck_assert_int_eq(cfs_codes_get(put, n, got, sizeof(got)), -EBADMSG);
	put[0] = CFS_CODES_BITS + 1;
	ck_assert_int_eq(cfs_codes_get(put, n, got, sizeof(got)), -EBADMSG);
	ck_assert_int_eq(cfs_codes_get(put, 0, got, sizeof(got)), -EBADMSG);
	book.bits = 0;
	ck_assert_uint_eq(
		cfs_codes_put(&book, raw, sizeof(raw), put, sizeof(put)), 0);
}
END_TEST

/* Written by hand as FORMAT.md says: 'a' is code 0, 'b' 1, 'c' 2. */
START_TEST(by_hand)
{
	static const uint8_t want[] = "abcaXbcYcb";
	static const uint8_t stored[] = {2, 'a', 'b', 'c',
					 /* bit 0: 0 1 0 0 1 1 0 1, 0 1 */
					 0xb2, 0x02,
					 /* bit 1: 0 0 1 0 1 0 1 1, 1 0 */
					 0xd4, 0x01, 'X', 'Y'};
	struct cfs_codebook book = {2, {'a', 'b', 'c'}};
	uint8_t got[10], put[32];

	ck_assert_int_eq(
		cfs_codes_get(stored, sizeof(stored), got, sizeof(got)), 0);
	ck_assert_mem_eq(got, want, sizeof(got));
	ck_assert_uint_eq(
		cfs_codes_put(&book, want, sizeof(got), put, sizeof(put)),
		sizeof(stored));
	ck_assert_mem_eq(put, stored, sizeof(stored));
}
END_TEST

/* This file is built twice, with vectors and without: one digest for both. */
START_TEST(stored_alike)
{
	static const char want[] = "26da8100932f475a745a88aa42ca1532"
				   "94b3b665e8fb273860685a77551c098e";
	_cleanup_(cfs_buf_free) struct cfs_buf all = CFS_BUF_INIT;
	uint8_t raw[LEN_MAX], put[ROOM];
	struct cfs_codebook book;
	struct cfs_digest digest;
	char hex[CFS_DIGEST_HEX];
	size_t len;

	state = 12345;
	for (len = 1; len <= LEN_MAX; len++) {
		fill(raw, len, 24);
		pick(raw, len, &book);
		book.bits = 1 + (unsigned)len % CFS_CODES_BITS;
		cfs_buf_put(&all, put,
			    cfs_codes_put(&book, raw, len, put, sizeof(put)));
	}
	ck_assert(!all.failed);
	cfs_digest_of(all.data, all.len, &digest);
	ck_assert_str_eq(cfs_digest_hex(&digest, hex), want);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("codes");
	TCase *tc = tcase_create("codes");

	tcase_add_test(tc, picks);
	tcase_add_test(tc, values_differ);
	tcase_add_loop_test(tc, comes_back, 1, CFS_CODES_BITS + 1);
	tcase_add_test(tc, refused);
	tcase_add_test(tc, by_hand);
	tcase_add_test(tc, stored_alike);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
