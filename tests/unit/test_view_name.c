/* Names of views: what is understood, what is refused, and the way back. */
#include "fs/view/view.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "tests/test.h"

static const char *canonical(const char *name)
{
	static char buf[128];
	struct cfs_request request;

	ck_assert_int_eq(cfs_view_name_parse(name, &request, NULL), 0);
	return cfs_view_name_format(&request, buf, sizeof(buf));
}

START_TEST(test_items)
{
	struct cfs_request q;

	ck_assert_int_eq(
		cfs_view_name_parse("dp32-zero1-bf16opt-rr-sub1000-tp2-pp4", &q,
				    NULL),
		0);
	ck_assert_uint_eq(q.dp, 32);
	ck_assert_int_eq(q.zero_stage, 1);
	ck_assert_int_eq(q.bf16_optimizer, 1);
	ck_assert_int_eq(q.round_robin, 1);
	ck_assert_uint_eq(q.sub_group_size, 1000);
	ck_assert_uint_eq(q.tp, 2);
	ck_assert_uint_eq(q.pp, 4);
	ck_assert_int_eq(cfs_view_name_parse("zeroopt-norr-zero0", &q, NULL),
			 0);
	ck_assert_uint_eq(q.dp, 0);
	ck_assert_int_eq(q.bf16_optimizer, 0);
	ck_assert_int_eq(q.round_robin, 0);
	ck_assert_int_eq(q.zero_stage, 0);
	ck_assert_uint_eq(q.sub_group_size, 0);
}
END_TEST

START_TEST(test_spellings)
{
	ck_assert_str_eq(canonical("dp=32,zero=1"), "dp32-zero1");
	ck_assert_str_eq(canonical("zero1-dp32"), "dp32-zero1");
	ck_assert_str_eq(canonical("mp4"), "tp4");
	ck_assert_str_eq(canonical("norr-zero3-sub7-pp2-tp3-dp1-zeroopt"),
			 "tp3-pp2-dp1-zero3-zeroopt-norr-sub7");
}
END_TEST

START_TEST(test_round_trip)
{
	static const char *const names[] = {"dp1",
					    "zero0",
					    "zero3-rr",
					    "tp8-pp2-dp65536-zero1-bf16opt",
					    "sub9223372036854775807",
					    "dp5-norr",
					    "universal",
					    "universal-tp2-pp0"};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(names); i++)
		ck_assert_str_eq(canonical(names[i]), names[i]);
}
END_TEST

START_TEST(test_refused)
{
	static const char *const names[] = {"",
					    "-",
					    "dp",
					    "dp0",
					    "dp65537",
					    "dp-2",
					    "dp2-",
					    "-dp2",
					    "dp2--zero1",
					    "zero4",
					    "zero",
					    "rr1",
					    "bf16opt2",
					    "dp2-dp3",
					    "dp2-dp2",
					    "rr-norr",
					    "bf16opt-zeroopt",
					    "sub",
					    "sub0",
					    "sub99999999999999999999999",
					    "universal1",
					    "universal-universal",
					    "DP2",
					    "dp 2",
					    "dp2=",
					    "=2",
					    "2",
					    "dp=-2",
					    "dp2.5",
					    "mp2-tp2",
					    "@dp2"};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(names); i++) {
		struct cfs_error err = {.text = ""};
		struct cfs_request q;

		ck_assert_msg(cfs_view_name_parse(names[i], &q, &err) ==
				      -EINVAL,
			      "'%s' is accepted", names[i]);
		ck_assert_msg(err.text[0] != '\0', "'%s': no reason", names[i]);
	}
}
END_TEST

START_TEST(test_reason)
{
	struct cfs_error err = {.text = ""};
	struct cfs_request q;

	ck_assert_int_eq(cfs_view_name_parse("dp2-turbo", &q, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "'turbo'"));
	ck_assert_ptr_nonnull(strstr(err.text, "zeroN"));
}
END_TEST

START_TEST(test_small_buffer)
{
	struct cfs_request q;
	char buf[6];

	ck_assert_int_eq(cfs_view_name_parse("dp32-zero1", &q, NULL), 0);
	ck_assert_str_eq(cfs_view_name_format(&q, buf, sizeof(buf)), "dp32-");
}
END_TEST

/* They make another view, which no name can ask for. */
START_TEST(test_options)
{
	struct cfs_request q;
	char plain[128], one[128], two[128];

	ck_assert_int_eq(
		cfs_view_name_parse("tp65536-pp65536-dp65536-zero3-bf16opt-"
				    "norr-sub9223372036854775807-"
				    "vocab4294967295-qkvheads-biassame",
				    &q, NULL),
		0);
	ck_assert_ptr_null(q.options);
	cfs_view_name_format(&q, plain, sizeof(plain));
	q.options = "{\"boundaries\":[0,4,9]}";
	cfs_view_name_format(&q, one, sizeof(one));
	q.options = "{\"boundaries\":[0,5,9]}";
	cfs_view_name_format(&q, two, sizeof(two));
	ck_assert_str_ne(one, plain);
	ck_assert_str_ne(one, two);
	ck_assert_uint_eq(strlen(one), strlen(plain) + strlen("-with") + 16);
	ck_assert_int_eq(cfs_view_name_parse(one, &q, NULL), -EINVAL);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("view_name");
	TCase *t = tcase_create("name");

	tcase_add_test(t, test_items);
	tcase_add_test(t, test_options);
	tcase_add_test(t, test_spellings);
	tcase_add_test(t, test_round_trip);
	tcase_add_test(t, test_refused);
	tcase_add_test(t, test_reason);
	tcase_add_test(t, test_small_buffer);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
