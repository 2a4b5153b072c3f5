/* Stages of pipelines against what DeepSpeed itself answered. */
#include "fs/reslice/balance.h"

#include <errno.h>

#include "tests/test.h"
#include "tests/unit/balance_table.h"

START_TEST(by_weight)
{
	const struct balanced *b = &balanced[_i];
	uint32_t got[9];

	for (int old = 0; old < 2; old++) {
		const uint32_t *want = old ? b->old : b->now;

		ck_assert_int_eq(cfs_balance_weights(b->weights, b->n,
						     b->stages, old, got),
				 0);
		for (uint32_t s = 0; s <= b->stages; s++)
			ck_assert_msg(got[s] == want[s],
				      "row %d, %s: stage %u begins at %u, "
				      "not %u",
				      _i, old ? "old" : "new", s, got[s],
				      want[s]);
	}
}
END_TEST

START_TEST(uniformly)
{
	const struct uniform *u = &uniform[_i];
	uint32_t got[9];

	for (int old = 0; old < 2; old++) {
		const uint32_t *want = old ? u->old : u->now;

		cfs_balance_uniform(u->n, u->stages, old, got);
		for (uint32_t s = 0; s <= u->stages; s++)
			ck_assert_uint_eq(got[s], want[s]);
	}
}
END_TEST

START_TEST(without_stages)
{
	const uint64_t weights[] = {1, 2};
	uint32_t got[1];

	ck_assert_int_eq(cfs_balance_weights(weights, 2, 0, false, got),
			 -EINVAL);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("balance");
	TCase *tc = tcase_create("balance");

	tcase_add_loop_test(tc, by_weight, 0,
			    sizeof(balanced) / sizeof(balanced[0]));
	tcase_add_loop_test(tc, uniformly, 0,
			    sizeof(uniform) / sizeof(uniform[0]));
	tcase_add_test(tc, without_stages);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
