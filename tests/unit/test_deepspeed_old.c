/*
 * Steps of DeepSpeed 0.3.15: what the reader finds, which group it puts each
 * parameter in and how it knows, and what it refuses.
 */
#include "fs/format/deepspeed/deepspeed.h"

#include <errno.h>

#include "tests/unit/ds_make_old.h"

static const struct old_param neox[] = {
	{"sequential.0.word_embeddings.weight", 0, 2, {6, 4}},
	{"sequential.2.input_layernorm.weight", 1, 1, {4, 0}},
	{"sequential.2.input_layernorm.bias", 1, 1, {4, 0}},
	{"sequential.2.attention.query_key_value.weight", 0, 2, {12, 4}},
	{"sequential.2.attention.query_key_value.bias", 1, 1, {12, 0}},
	{"sequential.4.norm.scale", 1, 1, {4, 0}},
	{"sequential.5.final_linear.weight", 0, 2, {6, 4}},
	{NULL, 0, 0, {0, 0}},
};
/* No family's: only storages can tell. */
static const struct old_param other[] = {
	{"embed.weight", 0, 2, {5, 4}},	  {"norm.bias", 0, 1, {4, 0}},
	{"fc.weight", 1, 2, {3, 4}},	  {"norm.weight", 0, 1, {4, 0}},
	{"fc.slow.weight", 1, 1, {4, 0}}, {NULL, 0, 0, {0, 0}},
};

static int read_made(const struct old_made *m, struct cfs_filepool *pool,
		     struct cfs_step **step, struct cfs_error *err)
{
	err->text[0] = '\0';
	return cfs_format_deepspeed.read(m->base.source, pool, "", step, err);
}

static void check_tensor(const struct cfs_step *step, uint32_t i, uint32_t role,
			 uint32_t p)
{
	const struct cfs_catalogue *cat = step->ranks[0].catalogue;
	uint64_t numel = cfs_catalogue_param(cat, i)->numel;
	enum cfs_dtype dtype = cfs_catalogue_dtype(cat, i, role);
	struct cfs_map *map = cfs_map_new(step->files);
	struct cfs_error err = {""};
	struct cfs_reader *reader;
	uint8_t bytes[4 * OLD_ELEMS];
	float values[OLD_ELEMS];

	ck_assert_int_eq(cfs_catalogue_append(cat, i, role, 0, numel, map), 0);
	cfs_map_seal(map);
	ck_assert_int_eq(cfs_reader_open(map, step->pool, NULL, &reader, &err),
			 0);
	ck_assert_int_eq(cfs_reader_pread(reader, bytes, sizeof(bytes), 0),
			 (ssize_t)(numel * cfs_dtype_size(dtype)));
	cfs_dtype_cast(dtype, bytes, CFS_F32, values, numel);
	for (uint64_t e = 0; e < numel; e++)
		ck_assert_msg(values[e] == ds_value(CFS_MAX(role, 1), p, e),
			      "%s of %s, element %u",
			      cfs_catalogue_role_name(cat, role),
			      cfs_catalogue_param(cat, i)->name, (unsigned)e);
	cfs_reader_close(reader);
	cfs_map_unref(map);
}

static void check_step(const struct old_made *m, struct cfs_step *step)
{
	const struct cfs_catalogue *cat = step->ranks[0].catalogue;
	uint32_t i = 0;

	ck_assert_int_eq(step->topology.zero_stage, m->part[0] ? 1 : 2);
	ck_assert_int_eq(step->topology.optimizer, CFS_OPT_ZERO12);
	ck_assert_int_eq(cfs_ds_step_of(step)->elastic, !m->rigid);
	ck_assert_uint_eq(cfs_catalogue_params(cat), old_count(m));
	for (uint32_t g = 0; g < 2; g++) {
		struct old_group group;

		old_group(m, g, &group);
		for (uint32_t k = 0; k < group.n; k++, i++) {
			const struct cfs_param *p = cfs_catalogue_param(cat, i);
			uint32_t q = group.members[k];

			ck_assert_str_eq(p->name, m->params[q].name);
			ck_assert_uint_eq(p->group, g);
			for (uint32_t role = 0; role < 4; role++)
				check_tensor(step, i, role, q);
		}
	}
}

static void expect(struct old_made m)
{
	struct cfs_filepool *pool;
	struct cfs_step *step;
	struct cfs_error err;

	old_make(&m);
	pool = cfs_filepool_new(m.base.source);
	ck_assert_msg(!read_made(&m, pool, &step, &err), "%s", err.text);
	check_step(&m, step);
	cfs_step_unref(step);
	cfs_filepool_free(pool);
	old_unmake(&m);
}

static void refuse(struct old_made m, int r, const char *words)
{
	struct cfs_filepool *pool;
	struct cfs_step *step;
	struct cfs_error err;

	old_make(&m);
	pool = cfs_filepool_new(m.base.source);
	ck_assert_int_eq(read_made(&m, pool, &step, &err), r);
	ck_assert_msg(strstr(err.text, words), "%s", err.text);
	cfs_filepool_free(pool);
	old_unmake(&m);
}

/* Sub-partitions of any size, by storages and by the rule alone. */
START_TEST(interleaved)
{
	for (uint32_t dp = 1; dp <= 3; dp++)
		for (uint64_t part = 1; part <= 24; part++)
			for (int k = 0; k < 8; k++)
				expect((struct old_made){
					.params = neox,
					.dp = dp,
					.part = {part + 8, part},
					.apart = k & 1,
					.rigid = k & 2,
					.backwards = k == 4 || k == 6});
}
END_TEST

START_TEST(stage2)
{
	for (uint32_t dp = 1; dp <= 5; dp++) {
		expect((struct old_made){.params = neox, .dp = dp});
		expect((struct old_made){
			.params = neox, .dp = dp, .apart = true});
		expect((struct old_made){
			.params = other, .dp = dp, .backwards = dp & 1});
	}
}
END_TEST

/* Weights of the groups' storages are proof for any model, nothing else is. */
START_TEST(members)
{
	struct old_made m = {.params = other, .dp = 2, .part = {5, 3}};

	expect(m);
	m.backwards = true;
	expect(m);
	m.apart = true;
	refuse(m, -ENOTSUP, "which of 2 groups");
	m.backwards = false;
	refuse(m, -ENOTSUP, "which of 2 groups");
	/* here the rule says where, and what is there says no */
	m.params = neox;
	expect(m);
	m.backwards = true;
	refuse(m, -ENOTSUP, "is not the master weight");
	m.backwards = false;
	m.bad = "weight";
	refuse(m, -ENOTSUP, "sequential.2.input_layernorm.weight");
	/* storages are proof enough; nobody promised rounded masters */
	m.apart = false;
	old_make(&m);
	{
		struct cfs_filepool *pool = cfs_filepool_new(m.base.source);
		struct cfs_step *step;
		struct cfs_error err;

		ck_assert_msg(!read_made(&m, pool, &step, &err), "%s",
			      err.text);
		cfs_step_unref(step);
		cfs_filepool_free(pool);
	}
	old_unmake(&m);
}
END_TEST

/* Two groups of one length: their storages do not say which is which. */
START_TEST(alike)
{
	static const struct old_param twins[] = {
		{"a.weight", 0, 1, {8, 0}},
		{"b.weight", 1, 1, {8, 0}},
		{NULL, 0, 0, {0, 0}},
	};

	refuse((struct old_made){.params = twins, .dp = 2, .part = {4, 4}},
	       -ENOTSUP, "which of 2 groups");
	expect((struct old_made){.params = twins, .dp = 2, .part = {4, 3}});
}
END_TEST

START_TEST(malformed)
{
	static const struct old_param grown[] = {
		{"sequential.2.attention.query_key_value.weight", 0, 2, {4, 4}},
		{"sequential.2.attention.query_key_value.bias", 1, 1, {4, 0}},
		{NULL, 0, 0, {0, 0}},
	};
	struct old_made m = {
		.params = neox, .dp = 2, .part = {16, 5}, .apart = true};

	m.bad = "cut";
	refuse(m, -EINVAL, "group 0 has 2 sub-partitions, 3 on the first rank");
	m.bad = "short";
	refuse(m, -EINVAL, "group 0 has 15 elements instead of 16");
	m.rigid = true;
	refuse(m, -EINVAL, "group 0 has 15 elements instead of 16");
	/* also on the rank that settles how large they are */
	m = (struct old_made){.params = grown,
			      .dp = 1,
			      .part = {8, 2},
			      .apart = true,
			      .bad = "short"};
	refuse(m, -EINVAL, "do not hold the 16 elements");
	m.part[0] = 16;
	refuse(m, -EINVAL, "do not hold the 16 elements");
	m.bad = "cut";
	refuse(m, -EINVAL, "group 0 has no sub-partitions");
	m.part[0] = 8;
	refuse(m, -EINVAL, "num_comm_intervals_per_group");
	m.bad = "count";
	refuse(m, -EINVAL, "num_comm_intervals_per_group");
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("deepspeed_old");
	TCase *tc = tcase_create("deepspeed_old");

	tcase_set_timeout(tc, TEST_TIMEOUT);
	tcase_add_test(tc, interleaved);
	tcase_add_test(tc, stage2);
	tcase_add_test(tc, members);
	tcase_add_test(tc, alike);
	tcase_add_test(tc, malformed);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
