/*
 * Partition arithmetic against slow models that place one element at a time.
 * Exhaustive over small sizes, random over shapes beyond.
 */
#include "fs/reslice/partition.h"
#include "fs/reslice/topology.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/test.h"

/* Pads a list of @total elements until it divides, then deals it out. */
static void check_flat(uint32_t dp, uint64_t total, uint32_t factor)
{
	uint64_t padded = total, seen = 0;
	struct cfs_flat f;

	while (padded % ((uint64_t)dp * factor))
		padded++;
	ck_assert_int_eq(cfs_flat_init(&f, dp, total, factor), 0);
	ck_assert_uint_eq(f.aligned, padded);
	ck_assert_uint_eq(f.part * dp, padded);
	ck_assert_uint_eq(f.total, total);
	for (uint32_t r = 0; r < dp; r++) {
		uint64_t real = 0;

		for (uint64_t i = 0; i < f.part; i++)
			real += seen++ < total;
		ck_assert_uint_eq(cfs_flat_valid(&f, r), real);
		ck_assert_uint_eq(cfs_flat_padding(&f, r), f.part - real);
		ck_assert_uint_eq(cfs_flat_padding_last(&f, r),
				  r + 1 == dp ? padded - total : 0);
	}
}

START_TEST(flat_exhaustive)
{
	for (uint32_t dp = 1; dp <= 17; dp++)
		for (uint64_t total = 0; total <= 160; total++)
			for (uint32_t factor = 1; factor <= 2; factor++)
				check_flat(dp, total, factor);
}
END_TEST

START_TEST(flat_limits)
{
	struct cfs_flat f;

	ck_assert_int_eq(cfs_flat_init(&f, 0, 5, 2), -EINVAL);
	ck_assert_int_eq(cfs_flat_init(&f, 5, 5, 0), -EINVAL);
	ck_assert_int_eq(cfs_flat_init(&f, 7, UINT64_MAX, 2), -EOVERFLOW);
	ck_assert_int_eq(cfs_flat_init(&f, UINT32_MAX, 1, 2), 0);
	ck_assert_uint_eq(f.part, 2);
	ck_assert_uint_eq(cfs_flat_valid(&f, 0), 1);
	ck_assert_uint_eq(cfs_flat_valid(&f, UINT32_MAX - 1), 0);
}
END_TEST

/* Dealt out one sub-partition after the other. */
static void check_interleaved(uint32_t dp, uint64_t total, uint64_t part)
{
	uint32_t cuts = (uint32_t)((total + part * dp - 1) / (part * dp));
	struct cfs_interleaved il;
	uint64_t seen = 0;

	ck_assert_int_eq(cfs_interleaved_init(&il, dp, total, cuts, part), 0);
	for (uint32_t cut = 0; cut < cuts; cut++)
		for (uint32_t r = 0; r < dp; r++) {
			uint64_t real = 0;

			for (uint64_t i = 0; i < part; i++)
				real += seen++ < total;
			ck_assert_uint_eq(cfs_interleaved_valid(&il, r, cut),
					  real);
		}
	ck_assert_int_eq(cfs_interleaved_init(&il, dp, total, cuts + 1, part),
			 -EINVAL);
	ck_assert_int_eq(cfs_interleaved_init(&il, dp, total, cuts - 1, part),
			 -EINVAL);
}

START_TEST(interleaved)
{
	struct cfs_interleaved il;

	for (uint32_t dp = 1; dp <= 7; dp++)
		for (uint64_t total = 1; total <= 60; total++)
			for (uint64_t part = 1; part <= total; part++)
				check_interleaved(dp, total, part);
	ck_assert_int_eq(cfs_interleaved_init(&il, 0, 1, 1, 1), -EINVAL);
	ck_assert_int_eq(cfs_interleaved_init(&il, 3, 1, 1, UINT64_MAX),
			 -EOVERFLOW);
	ck_assert_int_eq(cfs_interleaved_init(&il, 1, 1, 2, UINT64_MAX),
			 -EOVERFLOW);
}
END_TEST

/* Numbers that DeepSpeed itself wrote for a model of 71 + 9 elements. */
START_TEST(flat_known)
{
	static const uint64_t pad0[4] = {0, 0, 0, 1};
	static const uint64_t pad1[4] = {0, 0, 3, 4};
	static const uint64_t last[4] = {0, 0, 0, 7};
	struct cfs_flat f0, f1;

	ck_assert_int_eq(cfs_flat_init(&f0, 4, 71, 2), 0);
	ck_assert_int_eq(cfs_flat_init(&f1, 4, 9, 2), 0);
	ck_assert_uint_eq(f0.part, 18);
	ck_assert_uint_eq(f1.part, 4);
	for (uint32_t r = 0; r < 4; r++) {
		ck_assert_uint_eq(cfs_flat_padding(&f0, r), pad0[r]);
		ck_assert_uint_eq(cfs_flat_padding(&f1, r), pad1[r]);
		ck_assert_uint_eq(cfs_flat_padding_last(&f1, r), last[r]);
	}
}
END_TEST

START_TEST(param_pad)
{
	for (uint32_t size = 1; size <= 16; size *= 2) {
		for (uint64_t n = 0; n <= 64; n++) {
			uint64_t pad = 0;

			while ((n + pad) * size % 16)
				pad++;
			ck_assert_uint_eq(cfs_param_pad(n, size, false), pad);
			ck_assert_uint_eq(cfs_param_pad(n, size, true), 0);
		}
	}
}
END_TEST

/* The framework's own words: deal the parameters to dp hands, then take hand
 * after hand. */
START_TEST(round_robin)
{
	for (uint32_t dp = 1; dp <= 9; dp++) {
		for (uint32_t n = 0; n <= 40; n++) {
			uint32_t hands[9][40], len[9] = {0}, order[40];
			uint32_t at = 0;

			for (uint32_t i = 0; i < n; i++)
				hands[i % dp][len[i % dp]++] = i;
			cfs_round_robin(n, dp, order);
			for (uint32_t h = 0; h < dp; h++)
				for (uint32_t k = 0; k < len[h]; k++)
					ck_assert_uint_eq(order[at++],
							  hands[h][k]);
			ck_assert_uint_eq(at, n);
		}
	}
}
END_TEST

static void check_zero3(uint32_t n, const uint64_t *numel, uint32_t dp,
			uint64_t limit)
{
	uint32_t sub[32], count, want = 0;
	uint64_t sum = 0;

	count = cfs_zero3_subgroups(n, numel, dp, limit, sub);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t part = 0;

		while (part * dp < numel[i])
			part++;
		ck_assert_uint_eq(cfs_zero3_part(numel[i], dp), part);
		ck_assert_uint_eq(sub[i], want);
		sum += part;
		if (sum >= limit || i == n - 1) {
			want++;
			sum = 0;
		}
	}
	ck_assert_uint_eq(count, want);
}

START_TEST(zero3_random)
{
	unsigned seed = (unsigned)time(NULL);

	printf("seed %u\n", seed);
	srand(seed);
	for (int round = 0; round < 20000; round++) {
		uint64_t numel[32];
		uint32_t n = (uint32_t)rand() % 33;
		uint32_t dp = 1 + (uint32_t)rand() % 9;

		for (uint32_t i = 0; i < n; i++)
			numel[i] = (uint64_t)rand() % 50;
		check_zero3(n, numel, dp, 1 + (uint64_t)rand() % 60);
		check_zero3(n, numel, dp, 1000000000);
	}
}
END_TEST

START_TEST(zero3_known)
{
	/* emb 35, l1.weight 15, head 21 at dp 4 and sub_group_size 12 */
	static const uint64_t numel[3] = {35, 15, 21};
	uint32_t sub[3];

	ck_assert_uint_eq(cfs_zero3_subgroups(3, numel, 4, 12, sub), 2);
	ck_assert_uint_eq(sub[1], 0);
	ck_assert_uint_eq(sub[2], 1);
	ck_assert_uint_eq(cfs_zero3_part(35, 4), 9);
	ck_assert_uint_eq(cfs_zero3_part(21, 4), 6);
	ck_assert_uint_eq(cfs_zero3_subgroups(0, NULL, 4, 12, NULL), 0);
}
END_TEST

START_TEST(topology_equal)
{
	struct cfs_topology a = {.dp = 2,
				 .tp = 1,
				 .pp = 1,
				 .zero_stage = 1,
				 .optimizer = CFS_OPT_ZERO12};
	struct cfs_topology b = a;

	b.sub_group_size = 5; /* means nothing below stage 3 */
	ck_assert(cfs_topology_equal(&a, &b));
	b.round_robin = true;
	ck_assert(!cfs_topology_equal(&a, &b));
	b = a;
	b.dp = 3;
	ck_assert(!cfs_topology_equal(&a, &b));
	a.optimizer = b.optimizer = CFS_OPT_ZERO3;
	b.dp = a.dp;
	ck_assert(cfs_topology_equal(&a, &b));
	b.sub_group_size = 9;
	ck_assert(!cfs_topology_equal(&a, &b));
	ck_assert_str_eq(cfs_optimizer_class_name(CFS_OPT_BF16),
			 "BF16_Optimizer");
	ck_assert_str_eq(cfs_origin_name(CFS_FROM_CONFIG), "ds_config");
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("partition");
	TCase *tc = tcase_create("partition");

	tcase_add_test(tc, flat_exhaustive);
	tcase_add_test(tc, flat_limits);
	tcase_add_test(tc, flat_known);
	tcase_add_test(tc, interleaved);
	tcase_add_test(tc, param_pad);
	tcase_add_test(tc, round_robin);
	tcase_add_test(tc, zero3_random);
	tcase_add_test(tc, zero3_known);
	tcase_add_test(tc, topology_equal);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
