/* A tree's names: files, and the directories that slashes in them make. */
#include "fs/format/format.h"

#include <string.h>

#include "tests/test.h"

static void no_step(struct cfs_step *step)
{
	(void)step;
}

static void no_tree(struct cfs_tree *tree)
{
	cfs_tree_fini(tree);
}

static const struct cfs_format format = {.step_free = no_step};
static const struct cfs_tree_ops ops = {.free = no_tree};

/* '-' and '.' sort before '/', '0' behind it. */
static const char *const names[] = {"zero/a/fp32.pt", "zero/a-b/x.pt",
				    "zero/a.b/x.pt",  "zero/a0/x.pt",
				    "zero/a.pt",      "zeros",
				    "first",	      "zero/a/exp_avg.pt"};

START_TEST(below)
{
	static const char *const none[] = {"zer", "zero/a/fp32.pt", "zero/b",
					   "zeros", "z"};
	struct cfs_step step = {.format = &format, .refs = 1};
	struct cfs_resolved target = {.dp = CFS_FROM_SOURCE};
	struct cfs_tree tree;
	uint32_t row;

	ck_assert_int_eq(cfs_tree_init(&tree, &ops, &step, &target), 0);
	for (uint32_t i = 0; i < CFS_ARRAY_SIZE(names); i++)
		ck_assert_int_eq(cfs_tree_add(&tree, names[i], 0644, i), 0);
	ck_assert_int_eq(cfs_tree_seal(&tree), 0);
	row = cfs_tree_below(&tree, "zero/a");
	ck_assert_uint_lt(row, tree.n_files);
	ck_assert_str_eq(tree.files[row].name, "zero/a/exp_avg.pt");
	row = cfs_tree_below(&tree, "zero");
	ck_assert_uint_lt(row, tree.n_files);
	ck_assert_str_eq(tree.files[row].name, "zero/a-b/x.pt");
	for (size_t i = 0; i < CFS_ARRAY_SIZE(none); i++)
		ck_assert_uint_eq(cfs_tree_below(&tree, none[i]), tree.n_files);
	ck_assert_int_eq(cfs_tree_find(&tree, "zero/a.pt", &row), 0);
	cfs_tree_unref(&tree);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("tree");
	TCase *tc = tcase_create("tree");

	tcase_add_test(tc, below);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
