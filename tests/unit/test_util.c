/* store/util: buffers, arenas, checked sums, refusals, hashing. */
#include "tests/test.h"

#include <errno.h>
#include <string.h>

#include "store/util/arena.h"
#include "store/util/buf.h"
#include "store/util/checked.h"
#include "store/util/endian.h"
#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/log.h"

START_TEST(buf_grows_and_terminates)
{
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;

	ck_assert_str_eq(cfs_buf_str(&b), "");
	for (unsigned i = 0; i < 1000; i++)
		cfs_buf_printf(&b, "%u,", i % 10);
	ck_assert_uint_eq(b.len, 2000);
	ck_assert_int_eq(memcmp(b.data, "0,1,2,", 6), 0);
	ck_assert_uint_eq(strlen(cfs_buf_str(&b)), 2000);
	cfs_buf_reset(&b);
	cfs_buf_put_le64(&b, 0x0102030405060708);
	ck_assert_uint_eq(b.data[0], 8);
	ck_assert_uint_eq(cfs_get_le64(b.data), 0x0102030405060708);
}
END_TEST

START_TEST(buf_remembers_failure)
{
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;

	ck_assert_ptr_null(cfs_buf_grow(&b, SIZE_MAX / 2));
	ck_assert(b.failed);
	cfs_buf_put_str(&b, "x");
	ck_assert_uint_eq(b.len, 0);
}
END_TEST

START_TEST(arena_limits_and_aligns)
{
	_cleanup_(cfs_arena_freep) struct cfs_arena *a = cfs_arena_new(1 << 16);
	size_t n = 0;
	char *p;

	while ((p = cfs_arena_alloc(a, 33))) {
		ck_assert_uint_eq((uintptr_t)p % 16, 0);
		ck_assert_int_eq(p[0] | p[32], 0);
		memset(p, 0xff, 33);
		n++;
	}
	ck_assert_uint_eq(n, (1 << 16) / 48);
	ck_assert_uint_le(cfs_arena_used(a), 1 << 16);
	ck_assert_ptr_null(cfs_arena_alloc(a, SIZE_MAX));
}
END_TEST

START_TEST(sums_do_not_wrap)
{
	uint64_t v = 7;

	ck_assert(!cfs_add_u64(UINT64_MAX, 1, &v));
	ck_assert(!cfs_mul_u64(UINT64_MAX / 2, 3, &v));
	ck_assert(cfs_mul_u64(1ull << 31, 1ull << 32, &v));
	ck_assert_uint_eq(v, 1ull << 63);
	ck_assert(!cfs_range_ok(5, UINT64_MAX, 10));
	ck_assert(!cfs_range_ok(11, 0, 10));
	ck_assert(cfs_range_ok(10, 0, 10));
	ck_assert_uint_eq(cfs_div_up(7, 2), 4);
	ck_assert_uint_eq(cfs_div_up(UINT64_MAX, 1), UINT64_MAX);
}
END_TEST

START_TEST(refusals_nest)
{
	struct cfs_error err = {{0}};

	ck_assert_int_eq(cfs_fail(&err, -EINVAL, "key %s", "k"), -EINVAL);
	ck_assert_int_eq(cfs_fail_prefix(&err, -EIO, "file %d", 3), -EIO);
	ck_assert_str_eq(err.text, "file 3: key k");
	err.text[0] = '\0';
	(void)cfs_fail_prefix(&err, -ENOENT, "f");
	ck_assert_str_eq(err.text, "f: No such file or directory");
	ck_assert_int_eq(cfs_fail(NULL, -EINVAL, "nobody asks"), -EINVAL);
}
END_TEST

static char logged[256];

static void keep(enum cfs_log_level level, const char *line)
{
	ck_assert_int_eq(level, CFS_LOG_ERR);
	strncpy(logged, line, sizeof(logged) - 1);
}

START_TEST(log_names_the_errno)
{
	cfs_log_set_sink(keep, CFS_LOG_WARN);
	cfs_log(CFS_LOG_INFO, "too quiet to be kept");
	ck_assert_str_eq(logged, "");
	ck_assert_int_eq(cfs_log_err(-EIO, "pack %d", 12), -EIO);
	ck_assert_str_eq(logged, "pack 12: Input/output error");
}
END_TEST

START_TEST(hash_is_stable)
{
	/* XXH3 of the empty input and of "abc": identities outlive releases */
	ck_assert_uint_eq(cfs_hash64("", 0, 0), 0x2d06800538d394c2);
	ck_assert_uint_eq(cfs_hash64("abc", 3, 0), 0x78af5f94892f3950);
	ck_assert_uint_ne(cfs_hash64("abc", 3, 1), cfs_hash64("abc", 3, 0));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("util");
	TCase *t = tcase_create("util");

	tcase_add_test(t, buf_grows_and_terminates);
	tcase_add_test(t, buf_remembers_failure);
	tcase_add_test(t, arena_limits_and_aligns);
	tcase_add_test(t, sums_do_not_wrap);
	tcase_add_test(t, refusals_nest);
	tcase_add_test(t, log_names_the_errno);
	tcase_add_test(t, hash_is_stable);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
