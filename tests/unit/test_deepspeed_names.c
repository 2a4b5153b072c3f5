/* File names, ds_config look-ups and version numbers of DeepSpeed. */
#include "fs/format/deepspeed/deepspeed.h"

#include <string.h>

#include "tests/test.h"

struct name_case {
	const char *text;
	struct cfs_ds_name name;
};

static const struct name_case cases[] = {
	{"mp_rank_00_model_states.pt",
	 {CFS_DS_MODEL, 0, 0, false, false, false}},
	{"mp_rank_07_model_states.pt",
	 {CFS_DS_MODEL, 0, 7, false, false, false}},
	{"mp_rank_123_model_states.pt",
	 {CFS_DS_MODEL, 0, 123, false, false, false}},
	{"zero_pp_rank_0_mp_rank_00_model_states.pt",
	 {CFS_DS_MODEL_ZERO3, 0, 0, false, false, false}},
	{"zero_pp_rank_63_mp_rank_12_optim_states.pt",
	 {CFS_DS_OPTIM, 63, 12, false, false, false}},
	{"bf16_zero_pp_rank_5_mp_rank_00_optim_states.pt",
	 {CFS_DS_OPTIM, 5, 0, true, false, false}},
	{"layer_00-model_00-model_states.pt",
	 {CFS_DS_LAYER, 0, 0, false, false, false}},
	{"layer_07-model_states.pt",
	 {.kind = CFS_DS_LAYER, .dp = 7, .plain_layer = true}},
	{"layer_101-model_03-model_states.pt",
	 {CFS_DS_LAYER, 101, 3, false, false, false}},
};

START_TEST(both_ways)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		struct cfs_ds_name n = cfs_ds_name_parse(cases[i].text);
		char buf[96];

		ck_assert_int_eq(n.kind, cases[i].name.kind);
		ck_assert_uint_eq(n.dp, cases[i].name.dp);
		ck_assert_uint_eq(n.mp, cases[i].name.mp);
		ck_assert_int_eq(n.bf16, cases[i].name.bf16);
		ck_assert_int_eq(n.plain_layer, cases[i].name.plain_layer);
		ck_assert_str_eq(cfs_ds_name_format(&n, buf, sizeof(buf)),
				 cases[i].text);
	}
}
END_TEST

START_TEST(old_and_expert_spellings)
{
	struct cfs_ds_name n;

	n = cfs_ds_name_parse("zero_pp_rank_3_mp_rank_01optim_states.pt");
	ck_assert_int_eq(n.kind, CFS_DS_OPTIM);
	ck_assert(n.old_spelling);
	ck_assert_uint_eq(n.dp, 3);
	ck_assert_uint_eq(n.mp, 1);
	n = cfs_ds_name_parse("layer_2_expert_5_mp_rank_00_model_states.pt");
	ck_assert_int_eq(n.kind, CFS_DS_EXPERT);
	n = cfs_ds_name_parse("expert_5_mp_rank_00_model_states.pt");
	ck_assert_int_eq(n.kind, CFS_DS_EXPERT);
	n = cfs_ds_name_parse("expp_rank_1_mp_rank_00_optim_states.pt");
	ck_assert_int_eq(n.kind, CFS_DS_EXPERT);
}
END_TEST

START_TEST(others)
{
	static const char *const names[] = {
		"",
		"latest",
		"mp_rank_0_model_states.pt",
		"mp_rank_00_model_states.pt.tmp",
		"mp_rank_00_model_states.p",
		"mp_rank_000_model_states.pt",
		"mp_rank_-1_model_states.pt",
		"mp_rank__model_states.pt",
		"mp_rank_99999999999_model_states.pt",
		"bf16_zero_pp_rank_0_mp_rank_00_model_states.pt",
		"zero_pp_rank_01_mp_rank_00_optim_states.pt",
		"zero_pp_rank__mp_rank_00_optim_states.pt",
		"layer_1-model_00-model_states.pt",
		"rng_state_0.pth",
		"zero_to_fp32.py",
	};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(names); i++)
		ck_assert_msg(cfs_ds_name_parse(names[i]).kind == CFS_DS_OTHER,
			      "%s", names[i]);
}
END_TEST

START_TEST(versions)
{
	ck_assert_int_lt(cfs_ds_version_cmp("0.16.4", "0.19.8"), 0);
	ck_assert_int_gt(cfs_ds_version_cmp("0.10.0", "0.9.5"), 0);
	ck_assert_int_eq(cfs_ds_version_cmp("0.16.5", "0.16.5"), 0);
	ck_assert_int_eq(cfs_ds_version_cmp("0.16.5+7a1e2f3", "0.16.5"), 0);
	ck_assert_int_eq(cfs_ds_version_cmp("0.16", "0.16.0"), 0);
	ck_assert_int_lt(cfs_ds_version_cmp("0.16", "0.16.1"), 0);
	ck_assert_int_gt(cfs_ds_version_cmp("1.0", "0.99.99"), 0);
	ck_assert_int_lt(cfs_ds_version_cmp(NULL, "0.0.1"), 0);
	ck_assert_int_eq(cfs_ds_version_cmp(NULL, NULL), 0);
	ck_assert_int_lt(cfs_ds_version_cmp("", "0.3.14"), 0);
	ck_assert_int_gt(cfs_ds_version_cmp("99999999999999999999999.0", "2"),
			 0);
}
END_TEST

START_TEST(config)
{
	struct cfs_pickle *doc = cfs_pickle_new(NULL);
	struct cfs_node *root = cfs_node_dict(doc);
	struct cfs_node *zero = cfs_node_dict(doc);
	int64_t v;

	cfs_node_set_str(doc, root, "zero_optimization", zero);
	cfs_node_set_str(doc, zero, "stage", cfs_node_int(doc, 2));
	cfs_node_set_str(doc, root, "fp16", cfs_node_bool(doc, true));
	ck_assert(cfs_node_as_int(
		cfs_ds_config_get(root, "zero_optimization.stage"), &v));
	ck_assert_int_eq(v, 2);
	ck_assert_ptr_null(cfs_ds_config_get(root, "zero_optimization.none"));
	ck_assert_ptr_null(cfs_ds_config_get(root, "fp16.enabled"));
	ck_assert_ptr_null(cfs_ds_config_get(root, "nothing.at.all"));
	ck_assert_ptr_null(cfs_ds_config_get(NULL, "zero_optimization"));
	ck_assert_ptr_null(cfs_ds_config_get(
		root, "a_key_much_longer_than_any_that_deepspeed_has_in_its_"
		      "configuration_files.x"));
	cfs_pickle_free(doc);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("deepspeed_names");
	TCase *tc = tcase_create("deepspeed_names");

	tcase_add_test(tc, both_ways);
	tcase_add_test(tc, old_and_expert_spellings);
	tcase_add_test(tc, others);
	tcase_add_test(tc, versions);
	tcase_add_test(tc, config);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
