/* Copies of one tensor on two ranks: which changes are seen. */
#include "fs/format/deepspeed/replicas.h"

#include <errno.h>
#include <string.h>

#include "store/map/map.h"
#include "store/util/error.h"
#include "tests/unit/map_bed.h"

#define LARGE	  (5u << 20) /* elements of fp32: compared in windows */
#define NORM	  2048u
#define POSITIONS (4u << 20) /* still compared whole */

/* Two tensor-parallel ranks, a file each. */
struct two {
	struct cfs_source *source;
	struct cfs_ds_step step;
	struct cfs_step_rank ranks[2];
	struct cfs_ds_model model;
	struct cfs_ds_whole whole;
};

static void open_two(struct two *two, uint32_t numel, enum cfs_tp_kind kind,
		     const uint32_t *changed, uint32_t n_changed)
{
	const size_t size = (size_t)numel * 4;
	uint8_t *bytes = malloc(size);
	const uint64_t shape[] = {numel};
	uint32_t role, p;

	memset(two, 0, sizeof(*two));
	two->source = cfs_source_mem_new();
	two->step.base.files = cfs_filetab_new();
	two->step.base.pool = cfs_filepool_new(two->source);
	two->step.base.topology.tp = 2;
	two->step.base.n_ranks = 2;
	two->step.base.ranks = two->ranks;
	fill_random(bytes, size);
	for (uint32_t t = 0; t < 2; t++) {
		const char *path = t ? "one" : "zero";
		struct cfs_catalogue *cat = cfs_catalogue_new();
		struct cfs_extent e = {0, numel, 0, t};

		for (uint32_t i = 0; t && i < n_changed; i++)
			bytes[(size_t)changed[i] * 4] ^= 1;
		ck_assert_int_eq(
			cfs_source_mem_put(two->source, path, bytes, size), 0);
		ck_assert_uint_eq(
			tab_add(two->step.base.files, two->source, path), t);
		ck_assert_int_eq(cfs_catalogue_add_role(cat, "exp_avg", &role),
				 0);
		ck_assert_uint_eq(role, CFS_ROLE_STATE0);
		ck_assert_int_eq(cfs_catalogue_add_param(cat, "norm.weight", 1,
							 shape, 0, &p),
				 0);
		ck_assert_int_eq(cfs_catalogue_set_dtype(cat, p, role, CFS_F32),
				 0);
		ck_assert_int_eq(cfs_catalogue_add_extent(cat, p, role, &e), 0);
		ck_assert_int_eq(cfs_catalogue_seal(cat, NULL), 0);
		two->ranks[t].catalogue = cat;
	}
	free(bytes);
	two->whole.from.kind = kind;
	two->model.step = &two->step;
	two->model.n = 1;
	two->model.v = &two->whole;
}

static void close_two(struct two *two)
{
	cfs_catalogue_free(two->ranks[0].catalogue);
	cfs_catalogue_free(two->ranks[1].catalogue);
	cfs_filetab_unref(two->step.base.files);
	ck_assert_uint_eq(cfs_filepool_count(two->step.base.pool), 0);
	cfs_filepool_free(two->step.base.pool);
	cfs_source_free(two->source);
}

static int check(uint32_t numel, enum cfs_tp_kind kind, const uint32_t *changed,
		 uint32_t n_changed)
{
	struct cfs_error err = {""};
	struct two two;
	int r;

	open_two(&two, numel, kind, changed, n_changed);
	r = cfs_ds_check_ranks(&two.model, &err);
	if (r < 0)
		ck_assert_str_eq(err.text,
				 "parameter norm.weight: tensor-parallel ranks "
				 "0 and 1 have it whole, and their exp_avg "
				 "differ: say how to make one of them (view "
				 "add --rules)");
	close_two(&two);
	return r;
}

START_TEST(equal_copies)
{
	ck_assert_int_eq(check(NORM, CFS_TP_SAME, NULL, 0), 0);
	ck_assert_int_eq(check(LARGE, CFS_TP_SAME, NULL, 0), 0);
	ck_assert_int_eq(check(0, CFS_TP_SAME, NULL, 0), 0);
}
END_TEST

START_TEST(any_element_of_a_small_one)
{
	for (uint32_t i = 0; i < NORM; i += TEST_STEP)
		ck_assert_int_eq(check(NORM, CFS_TP_SAME, &i, 1), -ENOTSUP);
}
END_TEST

START_TEST(one_row_of_positions)
{
	const uint32_t between = POSITIONS / 15 / 2;

	ck_assert_int_eq(check(POSITIONS, CFS_TP_SAME, &between, 1), -ENOTSUP);
}
END_TEST

START_TEST(ends_of_a_large_one)
{
	const uint32_t first = 0, last = LARGE - 1;

	ck_assert_int_eq(check(LARGE, CFS_TP_SAME, &first, 1), -ENOTSUP);
	ck_assert_int_eq(check(LARGE, CFS_TP_SAME, &last, 1), -ENOTSUP);
}
END_TEST

/* Windows lie all over it: a change as long as what lies between two is seen,
 * wherever it is. */
START_TEST(a_stretch_of_a_large_one)
{
	static uint32_t changed[LARGE / 14];

	for (uint32_t at = 0; at < 14; at++) {
		uint32_t n = 0;

		while (n < LARGE / 14) {
			changed[n] = LARGE / 14 * at + n;
			n++;
		}
		ck_assert_int_eq(check(LARGE, CFS_TP_SAME, changed, n),
				 -ENOTSUP);
	}
}
END_TEST

START_TEST(what_is_cut_is_not_compared)
{
	const uint32_t i = 5;

	ck_assert_int_eq(check(NORM, CFS_TP_CUT, &i, 1), 0);
	/* shares differ, their moments do not */
	ck_assert_int_eq(check(NORM, CFS_TP_SUM, &i, 1), -ENOTSUP);
}
END_TEST

/* The same two files as ranks of two stages: rank 1 of both is looked at. */
START_TEST(tied_copies_of_every_rank)
{
	const uint32_t changed = 7;
	struct cfs_error err = {""};
	struct cfs_step_rank ranks[4];
	struct two two;

	open_two(&two, NORM, CFS_TP_CUT, &changed, 1);
	two.whole.name = (struct cfs_ds_layer_name){.form = CFS_DS_FORM_TIED,
						    .name = "norm.weight"};
	for (uint32_t i = 0; i < 4; i++)
		ranks[i] = two.ranks[0];
	two.step.base.ranks = ranks;
	two.step.base.n_ranks = 4;
	ck_assert_int_eq(cfs_ds_check_tied(&two.model, &err), 0);
	ranks[3] = two.ranks[1];
	ck_assert_int_eq(cfs_ds_check_tied(&two.model, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "tensor-parallel rank 1"));
	close_two(&two);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("replicas");
	TCase *tc = tcase_create("replicas");

	tcase_set_timeout(tc, TEST_TIMEOUT);
	tcase_add_test(tc, equal_copies);
	tcase_add_test(tc, any_element_of_a_small_one);
	tcase_add_test(tc, one_row_of_positions);
	tcase_add_test(tc, ends_of_a_large_one);
	tcase_add_test(tc, a_stretch_of_a_large_one);
	tcase_add_test(tc, what_is_cut_is_not_compared);
	tcase_add_test(tc, tied_copies_of_every_rank);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
