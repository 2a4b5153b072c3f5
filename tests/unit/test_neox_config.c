/* What a step's own copy of GPT-NeoX's configuration tells, and when not. */
#include "fs/format/deepspeed/neox_config.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "tests/unit/ds_make.h"

static struct ds_made made;
static struct cfs_filepool *pool;

static void set_up(void)
{
	made = (struct ds_made){.dp = 1,
				.n_mp = 1,
				.cls = CFS_OPT_ZERO12,
				.stage = 1,
				.version = "0.19.8",
				.bad_rank = -1};
	ds_params(&made, 2, 1, 0);
	ds_make(&made);
	pool = cfs_filepool_new(made.source);
}

static void tear_down(void)
{
	cfs_filepool_free(pool);
	ds_unmake(&made);
}

static void put(const char *path, const char *text)
{
	ck_assert_int_eq(
		cfs_source_mem_put(made.source, path, text, strlen(text)), 0);
}

static struct cfs_step *read_step(void)
{
	struct cfs_error err = {""};
	struct cfs_step *step;

	ck_assert_msg(
		!cfs_format_deepspeed.read(made.source, pool, "", &step, &err),
		"%s", err.text);
	return step;
}

static void expect(int flag, const char *method)
{
	struct cfs_step *step = read_step();
	const struct cfs_ds_step *ds = cfs_ds_step_of(step);
	const char *got = cfs_ds_neox_config_str(ds, "pipe_partition_method");

	ck_assert_int_eq(cfs_ds_neox_config_flag(ds, "gpt_j_residual"), flag);
	ck_assert_int_eq(!got, !method);
	if (method)
		ck_assert_str_eq(got, method);
	cfs_step_unref(step);
}

START_TEST(nothing_is_not_off)
{
	expect(-1, NULL);
	put("configs/notes.txt", "gpt_j_residual: true\n");
	expect(-1, NULL);
	put("configs/neox.yml", "");
	expect(-1, NULL);
}
END_TEST

START_TEST(off_where_not_named)
{
	put("configs/neox.yml", "num_layers: 4\n");
	expect(0, NULL);
}
END_TEST

START_TEST(both_spellings_and_json)
{
	put("configs/a.yml", "\"gpt-j-residual\": true\n");
	expect(1, NULL);
	put("configs/a.yml", "{\"gpt_j_residual\": false, \"x\": [1]}");
	expect(0, NULL);
	put("configs/a.yml", "gpt_j_residual: 'true'\n");
	expect(-1, NULL);
}
END_TEST

START_TEST(several_are_one)
{
	put("configs/model.yml", "gpt-j-residual: true\n");
	put("configs/run.json", "{\"pipe-partition-method\": \"uniform\"}");
	expect(1, "uniform");
	put("configs/again.yml", "gpt_j_residual: true\n");
	expect(1, "uniform");
	put("configs/other.yml", "gpt_j_residual: false\n");
	expect(-1, NULL);
	put("configs/other.yml", "a: b: c\n");
	expect(-1, NULL);
}
END_TEST

/* Of another configuration it is another step. */
START_TEST(changes_are_seen)
{
	struct cfs_step *step, *other;

	put("configs/neox.yml", "gpt_j_residual: true\n");
	step = read_step();
	ck_assert_int_eq(cfs_step_check(step, NULL), 0);
	put("configs/neox.yml", "gpt_j_residual: false\n");
	ck_assert_int_eq(cfs_step_check(step, NULL), -ESTALE);
	other = read_step();
	ck_assert_int_eq(cfs_step_check(other, NULL), 0);
	ck_assert_uint_ne(step->identity, other->identity);
	ck_assert(cfs_format_deepspeed.looks_for("configs"));
	ck_assert(!cfs_format_deepspeed.owns("configs"));
	cfs_step_unref(step);
	cfs_step_unref(other);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("neox_config");
	TCase *t = tcase_create("neox_config");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, nothing_is_not_off);
	tcase_add_test(t, off_where_not_named);
	tcase_add_test(t, both_spellings_and_json);
	tcase_add_test(t, several_are_one);
	tcase_add_test(t, changes_are_seen);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
