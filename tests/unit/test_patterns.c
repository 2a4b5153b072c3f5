/* What universal_checkpoint_info says of a parameter, and when it does not. */
#include "fs/format/deepspeed/patterns.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "tests/test.h"

struct lists {
	struct cfs_pickle *doc;
	struct cfs_node *root, *info;
};

static void lists_open(struct lists *l)
{
	l->doc = cfs_pickle_new(NULL);
	l->root = cfs_node_dict(l->doc);
	l->info = cfs_node_dict(l->doc);
	cfs_node_set_str(l->doc, l->root, "universal_checkpoint_info", l->info);
}

static void add(struct lists *l, const char *key, const char *pattern)
{
	struct cfs_node *list = cfs_node_get(l->info, key);

	if (!list) {
		list = cfs_node_list(l->doc);
		cfs_node_set_str(l->doc, l->info, key, list);
	}
	if (pattern)
		cfs_node_append(l->doc, list, cfs_node_str(l->doc, pattern));
}

static void refuse(const struct lists *l, const char *why)
{
	struct cfs_ds_patterns *p;
	struct cfs_error err = {""};

	ck_assert_int_eq(cfs_ds_patterns_new(l->root, &p, &err), -ENOTSUP);
	ck_assert_ptr_null(p);
	ck_assert_msg(strstr(err.text, why), "%s", err.text);
}

static int kind(const struct cfs_ds_patterns *p, const char *name)
{
	const struct cfs_rule *rule;
	struct cfs_error err = {""};

	ck_assert_msg(!cfs_ds_patterns_find(p, name, &rule, &err), "%s",
		      err.text);
	return rule ? (int)rule->kind : -1;
}

#define REPLICATED "tp_replicated_parameter_patterns"
#define AVERAGE	   "parameter_to_average_patterns"
#define ROW	   "parameter_with_row_parallelism_patterns"
#define HALVES	   "parameter_with_2_sub_params_cat_dim_0"
#define VOCABULARY "vocabulary_parameter_patterns"

START_TEST(each_list)
{
	_cleanup_(cfs_ds_patterns_freep) struct cfs_ds_patterns *p = NULL;
	struct lists l;

	lists_open(&l);
	add(&l, REPLICATED, "\\d+.input_layernorm.weight");
	add(&l, REPLICATED, "\\d+.weight");
	add(&l, AVERAGE, "\\d+\\.post_\\w+\\.bias$");
	add(&l, ROW, "\\d+.mlp.dense_4h_to_h.weight");
	add(&l, HALVES, "\\d+.mlp.dense_h_to_4h.weight");
	add(&l, VOCABULARY, "(tied_modules.embed|\\d+).word_embeddings.weight");
	ck_assert_int_eq(cfs_ds_patterns_new(l.root, &p, NULL), 0);
	ck_assert_int_eq(kind(p, "12.input_layernorm.weight"), CFS_RULE_SAME);
	ck_assert_int_eq(kind(p, "12.weight"), CFS_RULE_SAME);
	ck_assert_int_eq(kind(p, "3.post_norm.bias"), CFS_RULE_MEAN);
	ck_assert_int_eq(kind(p, "3.post_norm.bias2"), -1);
	ck_assert_int_eq(kind(p, "3.mlp.dense_4h_to_h.weight"),
			 CFS_RULE_COLUMNS);
	ck_assert_int_eq(kind(p, "3.mlp.dense_h_to_4h.weight"), CFS_RULE_PARTS);
	ck_assert_int_eq(kind(p, "tied_modules.embed.word_embeddings.weight"),
			 CFS_RULE_VOCAB);
	/* from the start of the name, not to its end */
	ck_assert_int_eq(kind(p, "x3.mlp.dense_4h_to_h.weight"), -1);
	ck_assert_int_eq(kind(p, "3.mlp.dense_4h_to_h.weight_2"),
			 CFS_RULE_COLUMNS);
	ck_assert_int_eq(kind(p, "3.self_attention.dense.bias"), -1);
	ck_assert(cfs_ds_patterns_complete(p));
	cfs_pickle_free(l.doc);
}
END_TEST

START_TEST(nothing_told)
{
	_cleanup_(cfs_ds_patterns_freep) struct cfs_ds_patterns *p = NULL;
	struct lists l;

	ck_assert_int_eq(cfs_ds_patterns_new(NULL, &p, NULL), 0);
	ck_assert_ptr_null(p);
	ck_assert(!cfs_ds_patterns_complete(p));
	ck_assert_int_eq(kind(p, "weight"), -1);
	lists_open(&l);
	add(&l, VOCABULARY, "\\d+.lm_head.weight");
	add(&l, HALVES, NULL);
	ck_assert_int_eq(cfs_ds_patterns_new(l.root, &p, NULL), 0);
	/* one rank alone has no list of what ranks have whole */
	ck_assert(!cfs_ds_patterns_complete(p));
	cfs_pickle_free(l.doc);
}
END_TEST

START_TEST(what_is_not_understood)
{
	static const char *const bad[] = {
		"(?:a|b)",     "a\\b",	      "a(",
		"a\\",	       "[\\w.]+norm", "((a{1,2000}){1,2000}){1,2000}",
		"[[:alpha:]]", "[a"};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(bad); i++) {
		struct lists l;

		lists_open(&l);
		add(&l, ROW, bad[i]);
		refuse(&l, ROW);
		cfs_pickle_free(l.doc);
	}
}
END_TEST

START_TEST(other_geometry)
{
	struct lists l;

	lists_open(&l);
	add(&l, "parameter_with_sub_params", NULL); /* empty: none */
	add(&l, "affine_map", "x");
	refuse(&l, "affine_map");
	cfs_pickle_free(l.doc);
}
END_TEST

START_TEST(two_lists_name_it)
{
	_cleanup_(cfs_ds_patterns_freep) struct cfs_ds_patterns *p = NULL;
	const struct cfs_rule *rule;
	struct cfs_error err = {""};
	struct lists l;

	lists_open(&l);
	add(&l, REPLICATED, "\\d+.dense.bias");
	add(&l, REPLICATED, "\\d+.dense.b");
	add(&l, ROW, "\\d+.dense");
	ck_assert_int_eq(cfs_ds_patterns_new(l.root, &p, NULL), 0);
	ck_assert_int_eq(kind(p, "3.dense.weight"), CFS_RULE_COLUMNS);
	ck_assert_int_eq(cfs_ds_patterns_find(p, "3.dense.bias", &rule, &err),
			 -ENOTSUP);
	ck_assert(strstr(err.text, REPLICATED));
	ck_assert(strstr(err.text, ROW));
	cfs_pickle_free(l.doc);
}
END_TEST

/* From the beginning of a name, whichever of several it is. */
START_TEST(alternatives)
{
	_cleanup_(cfs_ds_patterns_freep) struct cfs_ds_patterns *p = NULL;
	struct lists l;

	lists_open(&l);
	add(&l, ROW, "zz\\.weight|up\\.weight");
	add(&l, REPLICATED, "[^a-c.]+\\.norm|[]x]-y");
	ck_assert_int_eq(cfs_ds_patterns_new(l.root, &p, NULL), 0);
	ck_assert_int_eq(kind(p, "up.weight"), CFS_RULE_COLUMNS);
	ck_assert_int_eq(kind(p, "a.up.weight"), -1);
	ck_assert_int_eq(kind(p, "d.norm"), CFS_RULE_SAME);
	ck_assert_int_eq(kind(p, "a.norm"), -1);
	ck_assert_int_eq(kind(p, "]-y"), CFS_RULE_SAME);
	cfs_pickle_free(l.doc);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("patterns");
	TCase *tc = tcase_create("patterns");

	tcase_add_test(tc, each_list);
	tcase_add_test(tc, nothing_told);
	tcase_add_test(tc, what_is_not_understood);
	tcase_add_test(tc, alternatives);
	tcase_add_test(tc, other_geometry);
	tcase_add_test(tc, two_lists_name_it);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
