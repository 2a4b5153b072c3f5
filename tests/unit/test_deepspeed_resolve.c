/* What a request becomes, over sources of every class: request, then source,
 * then ds_config, then default; and what cannot be. */
#include "fs/format/deepspeed/deepspeed.h"

#include <errno.h>

#include "store/util/error.h"
#include "tests/unit/ds_make.h"

struct source {
	struct ds_made made;
	struct cfs_filepool *pool;
	struct cfs_step *step;
};

static void source_init(struct source *s, enum cfs_optimizer_class cls,
			int stage, void (*change)(struct ds_made *))
{
	struct cfs_error err = {""};

	s->made = (struct ds_made){.dp = 3,
				   .n_mp = 1,
				   .cls = cls,
				   .stage = stage,
				   .bf16 = true,
				   .version = "0.19.8",
				   .bad_rank = -1};
	ds_params(&s->made, 6, 2, 0);
	if (change)
		change(&s->made);
	ds_make(&s->made);
	s->pool = cfs_filepool_new(s->made.source);
	ck_assert_msg(!cfs_format_deepspeed.read(s->made.source, s->pool, "",
						 &s->step, &err),
		      "%s", err.text);
}

static void source_fini(struct source *s)
{
	cfs_step_unref(s->step);
	cfs_filepool_free(s->pool);
	ds_unmake(&s->made);
}

static int resolve(const struct source *s, struct cfs_request request,
		   struct cfs_resolved *out)
{
	struct cfs_error err = {""};
	int r = cfs_format_deepspeed.resolve(s->step, &request, out, &err);

	ck_assert_int_eq(r < 0, err.text[0] != '\0');
	return r;
}

/* A request with the given items named. */
static struct cfs_request ask(uint32_t dp, int stage, int bf16, int rr,
			      uint64_t sub)
{
	struct cfs_request q = CFS_REQUEST_INIT;

	q.dp = dp;
	q.zero_stage = stage;
	q.bf16_optimizer = bf16;
	q.round_robin = rr;
	q.sub_group_size = sub;
	return q;
}

START_TEST(unnamed_keep_the_source)
{
	static const struct {
		enum cfs_optimizer_class cls;
		int stage;
	} kinds[] = {{CFS_OPT_ZERO12, 1},
		     {CFS_OPT_ZERO12, 2},
		     {CFS_OPT_BF16, 1},
		     {CFS_OPT_BF16, 0},
		     {CFS_OPT_ZERO3, 3}};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(kinds); i++) {
		struct cfs_resolved out;
		struct source s;

		source_init(&s, kinds[i].cls, kinds[i].stage, NULL);
		ck_assert_int_eq(resolve(&s, ask(0, -1, -1, -1, 0), &out), 0);
		ck_assert(cfs_topology_equal(&out.topology, &s.step->topology));
		ck_assert_int_eq(out.dp, CFS_FROM_SOURCE);
		ck_assert_int_eq(out.zero_stage, CFS_FROM_SOURCE);
		ck_assert_int_eq(resolve(&s, ask(5, -1, -1, -1, 0), &out), 0);
		ck_assert_uint_eq(out.topology.dp, 5);
		ck_assert_int_eq(out.topology.optimizer, kinds[i].cls);
		ck_assert_int_eq(out.dp, CFS_FROM_REQUEST);
		source_fini(&s);
	}
}
END_TEST

static void with_flags(struct ds_made *m)
{
	m->flag_only = true; /* round_robin_gradients in ds_config */
	m->sub_group_size = 12;
}

START_TEST(config_fills_what_the_source_lacks)
{
	struct cfs_resolved out;
	struct source s;

	source_init(&s, CFS_OPT_BF16, 1, with_flags);
	ck_assert_int_eq(resolve(&s, ask(0, 2, -1, -1, 0), &out), 0);
	ck_assert_int_eq(out.topology.optimizer, CFS_OPT_ZERO12);
	ck_assert(out.topology.round_robin);
	ck_assert_int_eq(out.round_robin, CFS_FROM_CONFIG);
	ck_assert_int_eq(resolve(&s, ask(0, 2, -1, 0, 0), &out), 0);
	ck_assert(!out.topology.round_robin);
	ck_assert_int_eq(out.round_robin, CFS_FROM_REQUEST);
	ck_assert_int_eq(resolve(&s, ask(0, 3, -1, -1, 0), &out), 0);
	ck_assert_uint_eq(out.topology.sub_group_size, 12);
	ck_assert_int_eq(out.sub_group_size, CFS_FROM_CONFIG);
	ck_assert_int_eq(resolve(&s, ask(0, 3, -1, -1, 7), &out), 0);
	ck_assert_uint_eq(out.topology.sub_group_size, 7);
	source_fini(&s);

	source_init(&s, CFS_OPT_BF16, 1, NULL);
	ck_assert_int_eq(resolve(&s, ask(0, 3, -1, -1, 0), &out), 0);
	ck_assert_uint_eq(out.topology.sub_group_size, 1000000000);
	ck_assert_int_eq(out.sub_group_size, CFS_FROM_DEFAULT);
	source_fini(&s);
}
END_TEST

START_TEST(classes)
{
	struct cfs_resolved out;
	struct source s;

	source_init(&s, CFS_OPT_ZERO12, 2, NULL);
	ck_assert_int_eq(resolve(&s, ask(0, -1, 1, -1, 0), &out), 0);
	ck_assert_int_eq(out.topology.optimizer, CFS_OPT_BF16);
	ck_assert_int_eq(out.topology.zero_stage, 1);
	ck_assert_int_eq(resolve(&s, ask(0, 1, -1, -1, 0), &out), 0);
	ck_assert_int_eq(out.topology.optimizer, CFS_OPT_ZERO12);
	ck_assert_int_eq(resolve(&s, ask(0, 3, -1, -1, 0), &out), 0);
	ck_assert_int_eq(out.topology.optimizer, CFS_OPT_ZERO3);
	ck_assert_int_eq(resolve(&s, ask(0, 0, -1, -1, 0), &out), 0);
	ck_assert_int_eq(out.topology.optimizer, CFS_OPT_STAGE0);
	source_fini(&s);

	source_init(&s, CFS_OPT_BF16, 1, NULL);
	ck_assert_int_eq(resolve(&s, ask(0, -1, 0, -1, 0), &out), 0);
	ck_assert_int_eq(out.topology.optimizer, CFS_OPT_ZERO12);
	ck_assert_int_eq(out.optimizer, CFS_FROM_REQUEST);
	ck_assert_int_eq(resolve(&s, ask(0, 1, -1, -1, 0), &out), 0);
	ck_assert_int_eq(out.topology.optimizer, CFS_OPT_BF16);
	ck_assert_int_eq(out.optimizer, CFS_FROM_SOURCE);
	source_fini(&s);
}
END_TEST

static void half(struct ds_made *m)
{
	m->bf16 = false;
}

static void pipeline(struct ds_made *m)
{
	m->pipeline = true;
	m->n_mp = 2;
}

static void half_pipeline(struct ds_made *m)
{
	half(m);
	pipeline(m);
}

/* What the loader cannot load is not made; as it lies it is shown. */
START_TEST(pipelines_without_zero)
{
	struct cfs_resolved out;
	struct source s;

	source_init(&s, CFS_OPT_BF16, 1, pipeline);
	ck_assert_int_eq(resolve(&s, ask(0, 0, -1, -1, 0), &out), -ENOTSUP);
	source_fini(&s);

	source_init(&s, CFS_OPT_BF16, 0, pipeline);
	ck_assert_int_eq(s.step->topology.zero_stage, 0);
	ck_assert_int_eq(resolve(&s, ask(0, -1, -1, -1, 0), &out), 0);
	ck_assert(cfs_topology_equal(&out.topology, &s.step->topology));
	ck_assert_int_eq(resolve(&s, ask(5, -1, -1, -1, 0), &out), -ENOTSUP);
	ck_assert_int_eq(resolve(&s, ask(0, 1, -1, -1, 0), &out), 0);
	source_fini(&s);

	source_init(&s, CFS_OPT_ZERO12, 1, half_pipeline);
	ck_assert_int_eq(resolve(&s, ask(0, 0, -1, -1, 0), &out), 0);
	ck_assert_int_eq(out.topology.optimizer, CFS_OPT_STAGE0);
	ck_assert(out.topology.pipeline);
	source_fini(&s);
}
END_TEST

START_TEST(impossible)
{
	struct cfs_request q = CFS_REQUEST_INIT;
	struct cfs_resolved out;
	struct source s;

	source_init(&s, CFS_OPT_ZERO12, 1, NULL);
	ck_assert_int_eq(resolve(&s, ask(0, 2, 1, -1, 0), &out), -EINVAL);
	ck_assert_int_eq(resolve(&s, ask(0, 3, 1, -1, 0), &out), -EINVAL);
	ck_assert_int_eq(resolve(&s, ask(0, 0, 1, -1, 0), &out), -EINVAL);
	ck_assert_int_eq(resolve(&s, ask(0, 4, -1, -1, 0), &out), -EINVAL);
	ck_assert_int_eq(resolve(&s, ask(0, 3, -1, 1, 0), &out), -EINVAL);
	ck_assert_int_eq(resolve(&s, ask(0, 1, 1, 1, 0), &out), -EINVAL);
	ck_assert_int_eq(resolve(&s, ask(0, 2, -1, -1, 9), &out), -EINVAL);
	q.tp = 2;
	ck_assert_int_eq(resolve(&s, q, &out), 0);
	ck_assert_uint_eq(out.topology.tp, 2);
	q.tp = 1;
	q.pp = 4;
	ck_assert_int_eq(resolve(&s, q, &out), 0);
	ck_assert_uint_eq(out.topology.pp, 4);
	q.pp = 1;
	ck_assert_int_eq(resolve(&s, q, &out), 0);
	source_fini(&s);

	source_init(&s, CFS_OPT_ZERO12, 1, half);
	ck_assert_int_eq(resolve(&s, ask(0, -1, 1, -1, 0), &out), -EINVAL);
	source_fini(&s);

	source_init(&s, CFS_OPT_BF16, 1, pipeline);
	ck_assert_int_eq(resolve(&s, ask(0, 2, -1, -1, 0), &out), -EINVAL);
	ck_assert_int_eq(resolve(&s, ask(4, 1, 0, -1, 0), &out), 0);
	source_fini(&s);
}
END_TEST

START_TEST(universal)
{
	struct cfs_request q = CFS_REQUEST_INIT, bad;
	struct cfs_resolved out;
	struct source s;

	source_init(&s, CFS_OPT_ZERO12, 1, NULL);
	q.universal = 1;
	ck_assert_int_eq(resolve(&s, q, &out), 0);
	ck_assert(out.topology.universal);
	ck_assert(!cfs_topology_equal(&out.topology, &s.step->topology));
	bad = q;
	bad.dp = 2;
	ck_assert_int_eq(resolve(&s, bad, &out), -EINVAL);
	bad = q;
	bad.zero_stage = 1;
	ck_assert_int_eq(resolve(&s, bad, &out), -EINVAL);
	bad = q;
	bad.round_robin = 0;
	ck_assert_int_eq(resolve(&s, bad, &out), -EINVAL);
	source_fini(&s);
}
END_TEST

/* They are kept only where they decide something. */
START_TEST(options)
{
	static const char bounds[] = "{\"boundaries\":[0,1,2]}";
	static const char method[] = "{\"partition_method\":\"uniform\"}";
	static const char rules[] =
		"{\"rules\":[{\"name\":\"*\",\"is\":\"same\"}]}";
	struct cfs_request q = CFS_REQUEST_INIT;
	struct cfs_resolved out;
	struct source s;

	source_init(&s, CFS_OPT_BF16, 1, pipeline);
	q.options = rules;
	ck_assert_int_eq(resolve(&s, q, &out), 0);
	ck_assert_ptr_null(out.options);
	q.options = method;
	ck_assert_int_eq(resolve(&s, q, &out), 0);
	ck_assert_ptr_eq(out.options, method);
	q.options = bounds;
	ck_assert_int_eq(resolve(&s, q, &out), 0);
	ck_assert_ptr_eq(out.options, bounds);
	q.pp = 1;
	ck_assert_int_eq(resolve(&s, q, &out), -EINVAL);
	q.pp = 0;
	ck_assert_int_eq(resolve(&s, q, &out), -EINVAL);
	q.options = rules;
	ck_assert_int_eq(resolve(&s, q, &out), 0);
	ck_assert_ptr_eq(out.options, rules);
	q.options = "{\"turbo\":1}";
	ck_assert_int_eq(resolve(&s, q, &out), -EINVAL);
	source_fini(&s);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("deepspeed_resolve");
	TCase *tc = tcase_create("deepspeed_resolve");

	tcase_add_test(tc, unnamed_keep_the_source);
	tcase_add_test(tc, config_fills_what_the_source_lacks);
	tcase_add_test(tc, classes);
	tcase_add_test(tc, pipelines_without_zero);
	tcase_add_test(tc, impossible);
	tcase_add_test(tc, universal);
	tcase_add_test(tc, options);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
