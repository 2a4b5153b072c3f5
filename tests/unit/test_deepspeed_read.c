/*
 * The DeepSpeed reader over steps made element by element (ds_make.h): every
 * byte of every tensor it finds must be the one the maker put there, and what
 * is inconsistent must be refused with the file named.
 */
#include "fs/format/deepspeed/deepspeed.h"

#include <errno.h>
#include <time.h>

#include "tests/unit/ds_make.h"
#include "store/util/error.h"

static const struct ds_made plain = {
	.dp = 2,
	.n_mp = 1,
	.cls = CFS_OPT_ZERO12,
	.stage = 1,
	.bf16 = true,
	.version = "0.19.8",
	.bad_rank = -1,
};

static int read_made(const struct ds_made *m, struct cfs_filepool *pool,
		     struct cfs_step **step, struct cfs_error *err)
{
	err->text[0] = '\0';
	return cfs_format_deepspeed.read(m->source, pool, "", step, err);
}

/* ---- contents ---- */

static void check_tensor(const struct cfs_step *step, uint32_t mp, uint32_t i,
			 uint32_t role, uint32_t p, uint32_t maker_role)
{
	const struct cfs_catalogue *cat = step->ranks[mp].catalogue;
	uint64_t numel = cfs_catalogue_param(cat, i)->numel;
	enum cfs_dtype dtype = cfs_catalogue_dtype(cat, i, role);
	struct cfs_map *map = cfs_map_new(step->files);
	struct cfs_error err = {""};
	struct cfs_reader *reader;
	uint8_t bytes[512];
	float values[64];

	ck_assert_uint_le(numel, 64);
	ck_assert_int_eq(cfs_catalogue_append(cat, i, role, 0, numel, map), 0);
	cfs_map_seal(map);
	ck_assert_int_eq(cfs_reader_open(map, step->pool, NULL, &reader, &err),
			 0);
	ck_assert_int_eq(cfs_reader_pread(reader, bytes, sizeof(bytes), 0),
			 (ssize_t)(numel * cfs_dtype_size(dtype)));
	cfs_dtype_cast(dtype, bytes, CFS_F32, values, numel);
	for (uint64_t e = 0; e < numel; e++)
		ck_assert_msg(values[e] == ds_value(maker_role, p, e),
			      "%s of %s, element %u: %f",
			      cfs_catalogue_role_name(cat, role),
			      cfs_catalogue_param(cat, i)->name, (unsigned)e,
			      (double)values[e]);
	cfs_reader_close(reader);
	cfs_map_unref(map);
}

static void check_param(const struct ds_made *m, const struct cfs_step *step,
			uint32_t mp, uint32_t i)
{
	const struct cfs_catalogue *cat = step->ranks[mp].catalogue;
	const struct cfs_param *got = cfs_catalogue_param(cat, i);
	const struct ds_param *want = &m->params[i];
	bool frozen = want->group == UINT32_MAX;

	ck_assert_str_eq(got->name, want->name);
	ck_assert_uint_eq(got->group, frozen ? CFS_GROUP_FROZEN : want->group);
	ck_assert_uint_eq(got->ndim, want->ndim);
	ck_assert_uint_eq(got->numel, want->numel);
	ck_assert_int_eq(cfs_catalogue_dtype(cat, i, CFS_ROLE_WEIGHT),
			 m->bf16 ? CFS_BF16 : CFS_F16);
	if (m->cls != CFS_OPT_ZERO3 || frozen)
		check_tensor(step, mp, i, CFS_ROLE_WEIGHT, i, 1);
	else
		ck_assert(!cfs_catalogue_has(cat, i, CFS_ROLE_WEIGHT));
	for (uint32_t role = 1; role < 4; role++) {
		ck_assert_int_eq(cfs_catalogue_has(cat, i, role), !frozen);
		if (!frozen)
			check_tensor(step, mp, i, role, i, role);
	}
}

static void check_group(const struct ds_made *m, const struct cfs_ds_group *g)
{
	ck_assert_int_eq(g->hyper != NULL, !m->elastic);
	ck_assert_uint_eq(cfs_map_node_count(g->scalars), 1);
	ck_assert_ptr_nonnull(cfs_node_get(g->scalars, "step"));
	ck_assert_uint_eq(cfs_seq_node_count(g->state_order), 3);
	ck_assert_str_eq(cfs_node_as_str(cfs_seq_node_item(g->state_order, 2)),
			 "exp_avg_sq");
}

static void check_step(const struct ds_made *m, struct cfs_step *step)
{
	const struct cfs_topology *t = &step->topology;
	struct cfs_ds_step *ds = cfs_ds_step_of(step);

	ck_assert_uint_eq(t->dp, m->dp);
	ck_assert_int_eq(t->zero_stage, m->stage);
	ck_assert_int_eq(t->optimizer, m->cls);
	ck_assert_int_eq(t->param_alignment, m->align);
	ck_assert_int_eq(ds->elastic, m->elastic);
	ck_assert_int_eq(step->dtype, m->bf16 ? CFS_BF16 : CFS_F16);
	ck_assert_int_eq(step->global_steps, 7);
	ck_assert_uint_eq(step->n_ranks, m->n_mp);
	if (m->cls == CFS_OPT_ZERO12)
		ck_assert_int_eq(t->round_robin, m->round_robin);
	for (uint32_t mp = 0; mp < m->n_mp; mp++) {
		struct cfs_catalogue *cat = step->ranks[mp].catalogue;

		ck_assert_uint_eq(cfs_catalogue_params(cat), m->n);
		ck_assert_uint_eq(cfs_catalogue_groups(cat), m->n_groups);
		ck_assert_uint_eq(ds->ranks[mp].n_groups, m->n_groups);
		for (uint32_t i = 0; i < m->n; i++)
			check_param(m, step, mp, i);
		for (uint32_t g = 0; g < m->n_groups; g++)
			check_group(m, &ds->ranks[mp].groups[g]);
	}
}

static void round_trip(struct ds_made *m)
{
	struct cfs_filepool *pool;
	struct cfs_step *step;
	struct cfs_error err;

	ds_make(m);
	pool = cfs_filepool_new(m->source);
	ck_assert_int_eq(cfs_format_deepspeed.probe(m->source, ""), 1);
	ck_assert_msg(cfs_format_deepspeed.complete(m->source, "", &err) == 1,
		      "%s", err.text);
	ck_assert_msg(!read_made(m, pool, &step, &err), "%s", err.text);
	check_step(m, step);
	ck_assert_int_eq(cfs_step_check(step, &err), 0);
	cfs_step_unref(step);
	cfs_filepool_free(pool);
	ds_unmake(m);
}

START_TEST(random_layouts)
{
	static const enum cfs_optimizer_class classes[] = {
		CFS_OPT_ZERO12, CFS_OPT_ZERO12, CFS_OPT_BF16, CFS_OPT_ZERO3};
	unsigned seed = (unsigned)time(NULL);

	printf("seed %u\n", seed);
	srand(seed);
	for (int round = 0; round < 150; round++) {
		struct ds_made m = plain;
		uint32_t groups = 1 + (uint32_t)rand() % 3;

		m.cls = classes[rand() % 4];
		m.stage = m.cls == CFS_OPT_ZERO3    ? 3
			  : m.cls == CFS_OPT_ZERO12 ? 1 + rand() % 2
						    : 1;
		m.dp = 1 + (uint32_t)rand() % 5;
		m.n_mp = 1 + (uint32_t)rand() % 2;
		m.bf16 = m.cls == CFS_OPT_BF16 || rand() % 2;
		m.round_robin = m.cls == CFS_OPT_ZERO12 && rand() % 2;
		m.align = m.cls == CFS_OPT_ZERO12 && rand() % 3 == 0;
		m.elastic = m.cls == CFS_OPT_ZERO12 && rand() % 4 == 0;
		m.tied = rand() % 2;
		m.sub_group_size = m.cls == CFS_OPT_ZERO3 && rand() % 2
					   ? 1 + (uint64_t)rand() % 20
					   : 0;
		ds_params(&m, groups + (uint32_t)rand() % 6, groups,
			  (uint32_t)rand() % 3);
		/* With nothing to pad the files cannot tell. */
		m.align &= groups == 1 && m.n > 1 &&
			   m.params[1].group != UINT32_MAX;
		if (m.align) {
			m.params[0].numel = m.params[0].shape[0] = 3;
			m.params[0].ndim = 1;
		}
		round_trip(&m);
	}
}
END_TEST

/* Two stages of a pipeline: the weights are in layer files, which are watched
 * like the rest. */
START_TEST(pipeline)
{
	static const char layer[] = "layer_00-model_00-model_states.pt";
	struct ds_made m = plain;
	struct cfs_filepool *pool;
	struct cfs_step *step;
	struct cfs_error err;

	m.cls = CFS_OPT_BF16;
	m.pipeline = true;
	m.n_mp = 2;
	ds_params(&m, 5, 2, 0);
	for (uint32_t p = 0; p < m.n; p++)
		snprintf(m.params[p].name, sizeof(m.params[p].name),
			 "%u.weight", p);
	snprintf(m.params[0].name, sizeof(m.params[0].name),
		 "tied_modules.e.weight");
	round_trip(&m);
	ds_make(&m);
	pool = cfs_filepool_new(m.source);
	ck_assert_msg(!read_made(&m, pool, &step, &err), "%s", err.text);
	ck_assert_uint_eq(step->topology.pp, 2);
	ck_assert_uint_eq(step->topology.tp, 1);
	ck_assert_int_eq(cfs_source_mem_put(m.source, layer, "yy", 2), 0);
	ck_assert_int_eq(cfs_step_check(step, &err), -ESTALE);
	cfs_step_unref(step);
	cfs_filepool_free(pool);
	ds_unmake(&m);
}
END_TEST

/* ---- round robin ---- */

static bool read_round_robin(struct ds_made *m)
{
	struct cfs_filepool *pool;
	struct cfs_step *step;
	struct cfs_error err;
	bool v;

	ds_make(m);
	pool = cfs_filepool_new(m->source);
	ck_assert_msg(!read_made(m, pool, &step, &err), "%s", err.text);
	v = step->topology.round_robin;
	cfs_step_unref(step);
	cfs_filepool_free(pool);
	ds_unmake(m);
	return v;
}

/* Some releases ignored the flag in stage 1: the files tell, not ds_config. */
START_TEST(round_robin_by_evidence)
{
	struct ds_made m = plain;

	ds_params(&m, 5, 1, 0);
	m.flag_only = true;
	ck_assert(!read_round_robin(&m));
	m.no_maps = true; /* before 0.7.4 */
	m.version = "0.6.0";
	ck_assert(!read_round_robin(&m));
	m.stage = 2;
	ck_assert(read_round_robin(&m));
}
END_TEST

/* ---- refusals ---- */

static void refused(struct ds_made *m, int r, const char *text)
{
	struct cfs_filepool *pool = cfs_filepool_new(m->source);
	struct cfs_step *step;
	struct cfs_error err;

	ck_assert_int_eq(read_made(m, pool, &step, &err), r);
	ck_assert_msg(strstr(err.text, text) != NULL, "%s", err.text);
	cfs_filepool_free(pool);
}

START_TEST(inconsistent_ranks)
{
	static const struct {
		const char *bad, *text;
		int rank, r;
	} cases[] = {
		{"step",
		 "rank_1_mp_rank_00_optim_states.pt: optimizer state "
		 "step",
		 1, -EINVAL},
		{"length", "rank_1_mp_rank_00_optim_states.pt: exp_avg_sq", 1,
		 -EINVAL},
		{"length", "optimizer state exp_avg_sq has", 0, -ENOTSUP},
		{"hyper", "param_groups differ", 1, -EINVAL},
		{"maps", "contradict", 1, -EINVAL},
		{"count", "partition_count is 3", 0, -ENOENT},
	};

	srand(1);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		struct ds_made m = plain;

		m.bad = cases[i].bad;
		m.bad_rank = cases[i].rank;
		ds_params(&m, 4, 2, 0);
		ds_make(&m);
		refused(&m, cases[i].r, cases[i].text);
		ds_unmake(&m);
	}
}
END_TEST

/* Each fits by name and length, but is of another save. */
START_TEST(mixed_saves)
{
	static const struct {
		const char *bad, *text;
		enum cfs_optimizer_class cls;
		int rank, r;
		uint32_t n_mp;
	} cases[] = {
		{"clip",
		 "zero_pp_rank_0_mp_rank_00_optim_states.pt and "
		 "zero_pp_rank_1_mp_rank_00_optim_states.pt are not of one "
		 "save: clip_grad is 1 there and 2 here",
		 CFS_OPT_ZERO12, 1, -EINVAL, 1},
		{"clip", "clip_grad is 1", CFS_OPT_ZERO3, 1, -EINVAL, 1},
		{"alien", "alien is missing there and 1 here", CFS_OPT_ZERO12,
		 1, -EINVAL, 1},
		{"alien", "alien is 1 there and missing here", CFS_OPT_ZERO12,
		 0, -EINVAL, 1},
		{"stage", "zero_stage is 1 there and 2 here", CFS_OPT_ZERO12, 1,
		 -EINVAL, 1},
		{"shard", "ema_shard, which is not known", CFS_OPT_ZERO12, 0,
		 -ENOTSUP, 1},
		{"counter",
		 "zero_pp_rank_0_mp_rank_00_model_states.pt and "
		 "zero_pp_rank_1_mp_rank_00_model_states.pt are not of one "
		 "save: global_steps is 7 there and 8 here",
		 CFS_OPT_ZERO3, 1, -EINVAL, 1},
		{"shapes", "param_shapes is a collection of", CFS_OPT_ZERO3, 1,
		 -EINVAL, 1},
		{"stale",
		 "mp_rank_00_model_states.pt and mp_rank_01_model_states.pt "
		 "are not of one save: global_steps is 7 there and 8 here",
		 CFS_OPT_ZERO12, 1, -EINVAL, 2},
		{"whole", "two checkpoints are mixed", CFS_OPT_ZERO12, 0,
		 -EINVAL, 1},
		{"unknown state", "optimizer state qmap", CFS_OPT_ZERO12, 0,
		 -ENOTSUP, 1},
	};

	srand(1);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		struct ds_made m = plain;

		m.bad = cases[i].bad;
		m.bad_rank = cases[i].rank;
		m.cls = cases[i].cls;
		m.bf16 = false;
		m.stage = m.cls == CFS_OPT_ZERO3 ? 3 : 1;
		m.n_mp = cases[i].n_mp;
		ds_params(&m, 4, 1, 0);
		ds_make(&m);
		refused(&m, cases[i].r, cases[i].text);
		ds_unmake(&m);
	}
}
END_TEST

/* A state of no known name is a role where the ranks have different ones. */
START_TEST(unknown_states)
{
	struct ds_made m = plain;
	struct cfs_filepool *pool;
	struct cfs_step *step;
	struct cfs_error err;

	m.bad = "unknown state";
	m.bad_rank = 1;
	srand(1);
	ds_params(&m, 4, 1, 0);
	ds_make(&m);
	pool = cfs_filepool_new(m.source);
	ck_assert_msg(!read_made(&m, pool, &step, &err), "%s", err.text);
	ck_assert_uint_eq(cfs_catalogue_roles(step->ranks[0].catalogue),
			  CFS_ROLE_STATE0 + 3);
	cfs_step_unref(step);
	cfs_filepool_free(pool);
	ds_unmake(&m);
}
END_TEST

START_TEST(missing_files)
{
	struct ds_made m = plain;
	struct cfs_error err;

	m.dp = 3;
	ds_params(&m, 4, 2, 0);
	ds_make(&m);
	cfs_source_mem_remove(m.source,
			      "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt");
	refused(&m, -ENOENT,
		"bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt is missing");
	ck_assert_int_eq(cfs_format_deepspeed.complete(m.source, "", &err), 0);
	ck_assert_ptr_nonnull(strstr(err.text, "pp_rank_2"));
	cfs_source_mem_remove(m.source,
			      "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt");
	refused(&m, -ENOENT,
		"bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt is missing");
	cfs_source_mem_remove(m.source,
			      "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt");
	refused(&m, -ENOENT,
		"bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt is missing");
	ck_assert_int_eq(cfs_format_deepspeed.complete(m.source, "", &err), 0);
	cfs_source_mem_remove(m.source, "mp_rank_00_model_states.pt");
	ck_assert_int_eq(cfs_format_deepspeed.probe(m.source, ""), 0);
	ds_unmake(&m);
}
END_TEST

START_TEST(cut_short)
{
	static const char name[] =
		"bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt";
	struct ds_made m = plain;
	struct cfs_error err;

	ds_params(&m, 4, 2, 0);
	ds_make(&m);
	ck_assert_int_eq(cfs_source_mem_put(m.source, name, "PK\3\4zzzz", 8),
			 0);
	refused(&m, -EBADMSG, name);
	ck_assert_int_eq(cfs_format_deepspeed.complete(m.source, "", &err), 0);
	ck_assert_ptr_nonnull(strstr(err.text, name));
	ck_assert_int_eq(cfs_source_mem_put(m.source, name, "", 0), 0);
	ck_assert_int_eq(cfs_format_deepspeed.complete(m.source, "", &err), 0);
	ck_assert_ptr_nonnull(strstr(err.text, "is empty"));
	ds_unmake(&m);
}
END_TEST

START_TEST(foreign_kinds)
{
	struct ds_made m = plain;

	ds_params(&m, 4, 2, 0);
	ds_make(&m);
	ck_assert_int_eq(cfs_source_mem_put(m.source,
					    "mp_rank_00_model_states.pt-0.2",
					    "x", 1),
			 0);
	refused(&m, -ENOTSUP, "pieces");
	cfs_source_mem_remove(m.source, "mp_rank_00_model_states.pt-0.2");
	ck_assert_int_eq(cfs_source_mem_put(
				 m.source,
				 "layer_0_expert_1_mp_rank_00_model_states.pt",
				 "x", 1),
			 0);
	refused(&m, -ENOTSUP, "mixture-of-experts");
	ds_unmake(&m);
}
END_TEST

/* A universal checkpoint has model states too, but is another format. */
START_TEST(universal_is_not_ours)
{
	struct ds_made m = plain;

	m.dp = 1;
	ds_params(&m, 4, 2, 0);
	ds_make(&m);
	cfs_source_mem_remove(m.source,
			      "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt");
	ck_assert_int_eq(cfs_format_deepspeed.probe(m.source, ""), 1);
	ck_assert_int_eq(cfs_source_mem_put(m.source, "zero/w/fp32.pt", "x", 1),
			 0);
	ck_assert_int_eq(cfs_format_deepspeed.probe(m.source, ""), 0);
	ds_unmake(&m);
}
END_TEST

START_TEST(changed_files_are_seen)
{
	struct ds_made m = plain;
	struct cfs_filepool *pool;
	struct cfs_step *step;
	struct cfs_error err;

	ds_params(&m, 4, 2, 0);
	ds_make(&m);
	pool = cfs_filepool_new(m.source);
	ck_assert_int_eq(read_made(&m, pool, &step, &err), 0);
	ck_assert_int_eq(cfs_source_mem_put(m.source,
					    "mp_rank_00_model_states.pt", "x",
					    1),
			 0);
	ck_assert_int_eq(cfs_step_check(step, &err), -ESTALE);
	ck_assert_ptr_nonnull(strstr(err.text, "mp_rank_00_model_states.pt"));
	cfs_step_unref(step);
	cfs_filepool_free(pool);
	ds_unmake(&m);
}
END_TEST

/* ---- hostile files ---- */

static void flip(struct ds_made *m, const char *name)
{
	struct cfs_file *file;
	struct stat st;
	uint8_t *bytes;
	size_t size;

	ck_assert_int_eq(m->source->ops->open(m->source, name, &file), 0);
	ck_assert_int_eq(file->ops->stat(file, &st), 0);
	size = (size_t)st.st_size;
	bytes = malloc(size);
	ck_assert_int_eq(cfs_file_pread_all(file, bytes, size, 0), 0);
	cfs_file_close(file);
	for (int i = 1 + rand() % 6; i; i--) /* mostly in the pickle */
		bytes[(size_t)rand() % (rand() % 4 ? size / 2 : size)] =
			(uint8_t)rand();
	ck_assert_int_eq(cfs_source_mem_put(m->source, name, bytes, size), 0);
	free(bytes);
}

/* Damaged anywhere, a step is refused or read; it never brings us down. */
START_TEST(damaged)
{
	unsigned seed = (unsigned)time(NULL) ^ 0x5eed;
	static const struct {
		enum cfs_optimizer_class cls;
		int stage;
	} kinds[] = {
		{CFS_OPT_ZERO12, 2}, {CFS_OPT_BF16, 1}, {CFS_OPT_ZERO3, 3}};

	printf("seed %u\n", seed);
	srand(seed);
	for (int round = 0; round < 400; round++) {
		struct ds_made m = plain;
		struct cfs_filepool *pool;
		struct cfs_step *step;
		struct cfs_error err;
		int k = rand() % 3;

		m.cls = kinds[k].cls;
		m.stage = kinds[k].stage;
		ds_params(&m, 4, 2, 1);
		ds_make(&m);
		if (rand() % 2)
			flip(&m, m.stage == 3 ? "zero_pp_rank_0_mp_rank_00_"
						"model_states.pt"
					      : "mp_rank_00_model_states.pt");
		else
			flip(&m, rand() % 2 ? "bf16_zero_pp_rank_0_mp_rank_00_"
					      "optim_states.pt"
					    : "bf16_zero_pp_rank_1_mp_rank_00_"
					      "optim_states.pt");
		pool = cfs_filepool_new(m.source);
		if (!read_made(&m, pool, &step, &err))
			cfs_step_unref(step);
		else
			ck_assert_str_ne(err.text, "");
		cfs_filepool_free(pool);
		ds_unmake(&m);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("deepspeed_read");
	TCase *tc = tcase_create("deepspeed_read");

	tcase_set_timeout(tc, TEST_TIMEOUT);
	tcase_add_test(tc, random_layouts);
	tcase_add_test(tc, pipeline);
	tcase_add_test(tc, round_robin_by_evidence);
	tcase_add_test(tc, inconsistent_ranks);
	tcase_add_test(tc, mixed_saves);
	tcase_add_test(tc, unknown_states);
	tcase_add_test(tc, missing_files);
	tcase_add_test(tc, cut_short);
	tcase_add_test(tc, foreign_kinds);
	tcase_add_test(tc, universal_is_not_ours);
	tcase_add_test(tc, changed_files_are_seen);
	tcase_add_test(tc, damaged);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
