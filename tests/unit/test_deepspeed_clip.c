/* What gradients were clipped to, by who says it. */
#include "fs/format/deepspeed/write.h"

#include "tests/test.h"

struct place {
	struct cfs_ds_step step;
	struct cfs_ds_rank rank;
	struct cfs_pickle *doc;
};

static void place_init(struct place *p, const char *version)
{
	*p = (struct place){0};
	p->doc = cfs_pickle_new(NULL);
	ck_assert_ptr_nonnull(p->doc);
	p->step.base.writer_version = version;
	p->step.ranks = &p->rank;
	p->step.ds_config = cfs_node_dict(p->doc);
}

/* -1: nobody knows. */
static double clip(struct place *p)
{
	struct cfs_ds_out out = {
		.step = &p->step, .rank = &p->rank, .doc = p->doc};
	const struct cfs_node *node = cfs_ds_write_clip(&out);
	double value;

	ck_assert_int_eq(cfs_ds_knows_clip(&p->step, &p->rank), node != NULL);
	if (!node)
		return -1;
	ck_assert(cfs_node_as_real(node, &value));
	return value;
}

static void place_fini(struct place *p)
{
	cfs_pickle_free(p->doc);
}

START_TEST(by_release)
{
	static const struct {
		const char *version;
		double clip;
	} releases[] = {
		{"0.4.0", 0},  {"0.16.5", 0},  {"0.19.2", 0},  {"0.19.3", 1},
		{"0.19.8", 1}, {"0.19.9", -1}, {"0.20.0", -1}, {NULL, -1},
	};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(releases); i++) {
		struct place p;

		place_init(&p, releases[i].version);
		ck_assert_double_eq(clip(&p), releases[i].clip);
		p.step.ds_config = NULL;
		ck_assert_double_eq(clip(&p), -1);
		place_fini(&p);
	}
}
END_TEST

START_TEST(by_files)
{
	struct cfs_node *optimizer, *inner;
	struct place p;

	place_init(&p, "0.19.8");
	cfs_node_set_str(p.doc, p.step.ds_config, "gradient_clipping",
			 cfs_node_float(p.doc, 0.5));
	ck_assert_double_eq(clip(&p), 0.5);
	optimizer = cfs_node_dict(p.doc);
	cfs_node_set_str(p.doc, optimizer, "clip_grad",
			 cfs_node_float(p.doc, 0.25));
	p.rank.model_root = cfs_node_dict(p.doc);
	cfs_node_set_str(p.doc, p.rank.model_root, "optimizer", optimizer);
	ck_assert_double_eq(clip(&p), 0.25);
	inner = cfs_node_dict(p.doc);
	cfs_node_set_str(p.doc, inner, "clip_grad", cfs_node_int(p.doc, 2));
	p.rank.optim_state = inner;
	ck_assert_double_eq(clip(&p), 2);
	place_fini(&p);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("deepspeed_clip");
	TCase *tc = tcase_create("deepspeed_clip");

	tcase_add_test(tc, by_release);
	tcase_add_test(tc, by_files);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
