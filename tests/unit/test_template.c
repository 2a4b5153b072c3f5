/*
 * Templates filled, over steps made element by element (ds_make.h): what is
 * shown is read again, and must have the step's values in the template's
 * layout.  The template's own values are others.
 */
#include "fs/format/deepspeed/template.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "store/util/buf.h"
#include "store/util/error.h"
#include "tests/unit/ds_make.h"

#define SKEW 5

static const struct ds_made plain = {
	.dp = 2,
	.n_mp = 1,
	.cls = CFS_OPT_ZERO12,
	.stage = 1,
	.version = "0.19.8",
	.bad_rank = -1,
};

/* The step at the source's root, the template below like/, the shown files
 * below out/. */
struct bed {
	struct ds_made run, like;
	struct cfs_filepool *pool;
	struct cfs_step *step, *read;
	struct cfs_tree *tree;
	uint64_t like_id;
};

static void put_copy(struct cfs_source *from, struct cfs_source *to,
		     const char *name, const char *as)
{
	_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;

	ck_assert_int_eq(cfs_source_read_small(from, name, 1 << 20, &bytes), 0);
	ck_assert_int_eq(cfs_source_mem_put(to, as, bytes.data, bytes.len), 0);
}

static int copy_one(void *arg, const char *name, const struct stat *st)
{
	struct bed *b = arg;
	char as[256];

	(void)st;
	snprintf(as, sizeof(as), "like/%s", name);
	put_copy(b->like.source, b->run.source, name, as);
	return 0;
}

static void set_up(struct bed *b)
{
	struct cfs_step *like;
	struct cfs_error err = {""};

	ds_make(&b->run);
	ds_make(&b->like);
	b->like.source->ops->readdir(b->like.source, "", copy_one, b);
	b->pool = cfs_filepool_new(b->run.source);
	ck_assert_msg(!cfs_format_deepspeed.read(b->run.source, b->pool, "",
						 &b->step, &err),
		      "%s", err.text);
	ck_assert_msg(!cfs_format_deepspeed.read(b->run.source, b->pool, "like",
						 &like, &err),
		      "%s", err.text);
	b->like_id = cfs_step_fingerprint(like);
	cfs_step_unref(like);
}

static void tear_down(struct bed *b)
{
	cfs_step_unref(b->read);
	cfs_tree_unref(b->tree);
	cfs_step_unref(b->step);
	cfs_filepool_free(b->pool);
	ds_unmake(&b->like);
	ds_unmake(&b->run);
}

static int fill(struct bed *b, bool partial, struct cfs_error *err)
{
	struct cfs_request request = CFS_REQUEST_INIT;
	char text[128];

	snprintf(text, sizeof(text),
		 "{\"like\":\"/like\",\"like_id\":\"%016llx\"%s}",
		 (unsigned long long)b->like_id,
		 partial ? ",\"partial\":true" : "");
	request.options = cfs_options_intern(text);
	err->text[0] = '\0';
	return b->step->format->fill(b->step, b->run.source, b->pool, "like",
				     &request, &b->tree, err);
}

static void put_file(struct bed *b, uint32_t row)
{
	struct cfs_error err = {""};
	struct cfs_reader *reader;
	struct cfs_map *map;
	char name[256], *bytes;
	uint64_t size;

	ck_assert_msg(!cfs_tree_map(b->tree, row, &map, &err), "%s", err.text);
	size = cfs_map_size(map);
	bytes = malloc(size);
	ck_assert_int_eq(cfs_reader_open(map, b->pool, NULL, &reader, &err), 0);
	ck_assert_int_eq(cfs_reader_pread(reader, bytes, size, 0),
			 (ssize_t)size);
	snprintf(name, sizeof(name), "out/%s", b->tree->files[row].name);
	ck_assert_int_eq(cfs_source_mem_put(b->run.source, name, bytes, size),
			 0);
	cfs_reader_close(reader);
	cfs_map_unref(map);
	free(bytes);
}

static void read_shown(struct bed *b)
{
	struct cfs_error err = {""};

	for (uint32_t i = 0; i < b->tree->n_files; i++)
		put_file(b, i);
	ck_assert_msg(!cfs_format_deepspeed.read(b->run.source, b->pool, "out",
						 &b->read, &err),
		      "%s", err.text);
}

/* @skew: of the step or of the template. */
static void expect_tensor(const struct cfs_step *step, uint32_t mp, uint32_t i,
			  uint32_t role, uint32_t made_role)
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
		ck_assert_msg(values[e] == ds_value(made_role, i, e),
			      "%s of %s, element %u: %f",
			      cfs_catalogue_role_name(cat, role),
			      cfs_catalogue_param(cat, i)->name, (unsigned)e,
			      (double)values[e]);
	cfs_reader_close(reader);
	cfs_map_unref(map);
}

static void expect_param(const struct bed *b, uint32_t mp, uint32_t i,
			 uint32_t skew)
{
	const struct cfs_catalogue *cat = b->read->ranks[mp].catalogue;
	bool frozen = b->like.params[i].group == UINT32_MAX;

	ck_assert_str_eq(cfs_catalogue_param(cat, i)->name,
			 b->like.params[i].name);
	ck_assert_int_eq(cfs_catalogue_dtype(cat, i, CFS_ROLE_WEIGHT),
			 b->like.bf16 ? CFS_BF16 : CFS_F16);
	if (b->like.cls != CFS_OPT_ZERO3 || frozen)
		expect_tensor(b->read, mp, i, CFS_ROLE_WEIGHT, 1 + skew);
	for (uint32_t role = 1; role < 4 && !frozen; role++)
		expect_tensor(b->read, mp, i, role, role + skew);
}

static void expect_layout(const struct bed *b)
{
	const struct cfs_topology *t = &b->read->topology;

	ck_assert_uint_eq(t->dp, b->like.dp);
	ck_assert_int_eq(t->optimizer, b->like.cls);
	ck_assert_int_eq(t->zero_stage, b->like.stage);
	ck_assert_int_eq(b->read->global_steps, b->step->global_steps);
	ck_assert_uint_eq(b->read->n_ranks, b->like.n_mp);
	for (uint32_t mp = 0; mp < b->read->n_ranks; mp++)
		ck_assert_uint_eq(
			cfs_catalogue_params(b->read->ranks[mp].catalogue),
			b->like.n);
}

static void random_layout(struct ds_made *m)
{
	static const enum cfs_optimizer_class classes[] = {
		CFS_OPT_ZERO12, CFS_OPT_ZERO12, CFS_OPT_BF16, CFS_OPT_ZERO3};

	m->cls = classes[rand() % 4];
	m->stage = m->cls == CFS_OPT_ZERO3    ? 3
		   : m->cls == CFS_OPT_ZERO12 ? 1 + rand() % 2
					      : 1;
	m->dp = 1 + (uint32_t)rand() % 5;
	m->bf16 = m->cls == CFS_OPT_BF16 || rand() % 2;
	m->round_robin = m->cls == CFS_OPT_ZERO12 && rand() % 2;
	m->tied = rand() % 2;
	m->sub_group_size = m->cls == CFS_OPT_ZERO3 && rand() % 2
				    ? 1 + (uint64_t)rand() % 20
				    : 0;
}

START_TEST(random_layouts)
{
	unsigned seed = (unsigned)time(NULL);

	printf("seed %u\n", seed);
	srand(seed);
	for (int round = 0; round < 100; round++) {
		struct bed b = {.run = plain, .like = plain};
		uint32_t groups = 1 + (uint32_t)rand() % 3;
		struct cfs_error err;

		random_layout(&b.run);
		random_layout(&b.like);
		b.like.skew = SKEW;
		b.run.n_mp = b.like.n_mp = 1 + (uint32_t)rand() % 2;
		ds_params(&b.run, groups + (uint32_t)rand() % 6, groups,
			  (uint32_t)rand() % 3);
		memcpy(b.like.params, b.run.params, sizeof(b.run.params));
		b.like.n = b.run.n;
		b.like.n_groups = b.run.n_groups;
		set_up(&b);
		ck_assert_msg(!fill(&b, false, &err), "%s", err.text);
		ck_assert_ptr_null(b.tree->step->note);
		ck_assert_int_eq(cfs_step_check(b.tree->step->also, NULL), 0);
		read_shown(&b);
		expect_layout(&b);
		for (uint32_t mp = 0; mp < b.read->n_ranks; mp++)
			for (uint32_t i = 0; i < b.like.n; i++)
				expect_param(&b, mp, i, 0);
		tear_down(&b);
	}
}
END_TEST

static struct bed two(void)
{
	struct bed b = {.run = plain, .like = plain};

	srand(1);
	ds_params(&b.run, 4, 2, 0);
	for (uint32_t i = 0; i < b.run.n; i++) {
		b.run.params[i].ndim = 1;
		b.run.params[i].numel = b.run.params[i].shape[0] = 4 + i;
	}
	memcpy(b.like.params, b.run.params, sizeof(b.run.params));
	b.like.n = b.run.n;
	b.like.n_groups = b.run.n_groups;
	b.like.dp = 3;
	b.like.skew = SKEW;
	return b;
}

static void expect_words(const struct cfs_error *err, const char *words)
{
	ck_assert_msg(strstr(err->text, words), "%s", err->text);
}

START_TEST(partial)
{
	struct bed b = two();
	struct cfs_error err;

	strcpy(b.like.params[1].name, "new.weight");
	b.like.params[2].numel = b.like.params[2].shape[0] = 9;
	set_up(&b);
	ck_assert_int_eq(fill(&b, false, &err), -EINVAL);
	expect_words(&err, "--partial");
	expect_words(&err, "1 only in the template (new.weight)");
	expect_words(&err, "1 only in the step (layer.1.weight)");
	expect_words(&err, "1 of another shape (layer.2.weight: 9, not 6)");
	ck_assert_msg(!fill(&b, true, &err), "%s", err.text);
	ck_assert_ptr_nonnull(b.tree->step->note);
	ck_assert(strstr(b.tree->step->note, "new.weight"));
	read_shown(&b);
	expect_layout(&b);
	expect_param(&b, 0, 0, 0);
	expect_param(&b, 0, 1, SKEW);
	expect_param(&b, 0, 2, SKEW);
	expect_param(&b, 0, 3, 0);
	tear_down(&b);
}
END_TEST

START_TEST(many_names)
{
	struct bed b = two();
	struct cfs_error err;

	for (uint32_t i = 0; i < b.like.n; i++)
		snprintf(b.like.params[i].name, sizeof(b.like.params[i].name),
			 "another.%u", i % 100);
	set_up(&b);
	ck_assert_int_eq(fill(&b, false, &err), -EINVAL);
	expect_words(&err, "4 only in the template (another.0,"
			   " ");
	expect_words(&err, "4 only in the step (");
	tear_down(&b);
}
END_TEST

START_TEST(changed)
{
	struct bed b = two();
	struct cfs_error err;

	set_up(&b);
	b.like_id++;
	ck_assert_int_eq(fill(&b, false, &err), -EINVAL);
	expect_words(&err, "no longer as it was");
	b.like_id--;
	ck_assert_msg(!fill(&b, false, &err), "%s", err.text);
	put_copy(b.run.source, b.run.source, "like/mp_rank_00_model_states.pt",
		 "like/mp_rank_00_model_states.pt");
	ck_assert_int_eq(cfs_step_check(b.tree->step->also, &err), -ESTALE);
	cfs_tree_unref(cfs_steal(b.tree));
	ck_assert_int_eq(
		cfs_source_mem_remove(b.run.source,
				      "like/mp_rank_00_model_states.pt"),
		0);
	ck_assert_int_eq(fill(&b, false, &err), -EINVAL);
	expect_words(&err, "template");
	tear_down(&b);
}
END_TEST

/* The values of buffer @name that is shown: 1, 2, 3 and @skew. */
static void expect_buffer(struct bed *b, const char *name, float skew)
{
	struct cfs_error err = {""};
	struct cfs_torch_tensor t;
	struct cfs_file *file;
	float values[3];
	uint64_t off;

	read_shown(b);
	ck_assert_int_eq(
		cfs_torch_tensor_get(
			cfs_node_get(cfs_node_get(cfs_ds_step_of(b->read)
							  ->ranks[0]
							  .model_root,
						  "module"),
				     name),
			&t),
		0);
	ck_assert_int_eq(t.dtype, CFS_F32);
	ck_assert_int_eq(cfs_ds_open(b->read,
				     cfs_torchfile_index(t.storage->file),
				     &file, &err),
			 0);
	ck_assert_int_eq(cfs_torch_storage_extent(t.storage, file, &off, &err),
			 0);
	ck_assert_int_eq(cfs_file_pread_all(file, values, sizeof(values),
					    off + t.storage_offset * 4),
			 0);
	cfs_filepool_put(b->pool, file);
	for (int i = 0; i < 3; i++)
		ck_assert(values[i] == (float)(i + 1) + skew);
}

/* Running statistics are the step's, in the template's type. */
START_TEST(buffers)
{
	struct bed b = two();
	struct cfs_error err;

	b.run.buffer_bf16 = true;
	set_up(&b);
	ck_assert_msg(!fill(&b, false, &err), "%s", err.text);
	expect_buffer(&b, "a.buffer", 0);
	tear_down(&b);
	b = two();
	b.run.buffer = "another.buffer";
	set_up(&b);
	ck_assert_int_eq(fill(&b, false, &err), -EINVAL);
	expect_words(&err, "1 only in the template (a.buffer)");
	expect_words(&err, "1 only in the step (another.buffer)");
	ck_assert_msg(!fill(&b, true, &err), "%s", err.text);
	expect_buffer(&b, "a.buffer", SKEW);
	tear_down(&b);
}
END_TEST

/* Constants of the model are the template's where its type is another. */
START_TEST(constants)
{
	struct bed b = two();
	struct cfs_error err;

	b.run.buffer = b.like.buffer = "rotary.inv_freq";
	b.run.buffer_bf16 = true;
	set_up(&b);
	ck_assert_msg(!fill(&b, false, &err), "%s", err.text);
	expect_buffer(&b, "rotary.inv_freq", SKEW);
	tear_down(&b);
	b = two();
	b.run.buffer = "rotary.inv_freq";
	b.like.buffer = "alibi.slopes";
	set_up(&b);
	ck_assert_msg(!fill(&b, false, &err), "%s", err.text);
	tear_down(&b);
}
END_TEST

START_TEST(scalars)
{
	struct bed b = two();
	struct cfs_error err;

	b.run.params[1].ndim = b.like.params[1].ndim = 0;
	b.run.params[1].numel = b.like.params[1].numel = 1;
	set_up(&b);
	ck_assert_msg(!fill(&b, false, &err), "%s", err.text);
	read_shown(&b);
	expect_param(&b, 0, 1, 0);
	tear_down(&b);
}
END_TEST

START_TEST(no_optimizer)
{
	struct bed b = two();
	struct cfs_ds_group *groups;
	struct cfs_ds_step *run;
	struct cfs_error err;

	set_up(&b);
	run = cfs_ds_step_of(b.step);
	groups = run->ranks[0].groups;
	run->ranks[0].groups = NULL;
	ck_assert_int_eq(fill(&b, false, &err), -ENOTSUP);
	expect_words(&err, "the step has none");
	run->ranks[0].groups = groups;
	tear_down(&b);
}
END_TEST

/* All ranks' where rows are cut, any rank's where columns are. */
START_TEST(rows)
{
	static const struct {
		enum cfs_rule_kind kind;
		uint64_t hidden, want;
	} cases[] = {
		{CFS_RULE_VOCAB, 0, 8},	  {CFS_RULE_VOCAB_COLUMNS, 0, 4},
		{CFS_RULE_OUTPUT, 3, 8},  {CFS_RULE_OUTPUT, 6, 4},
		{CFS_RULE_COLUMNS, 6, 0},
	};
	struct bed b = two();

	b.run.n_mp = b.like.n_mp = 2;
	b.run.params[0].ndim = 2;
	b.run.params[0].shape[0] = 4;
	b.run.params[0].shape[1] = 3;
	b.run.params[0].numel = 12;
	set_up(&b);
	ck_assert_uint_eq(b.step->topology.tp, 2);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		const struct cfs_rule rule = {"*", cases[i].kind, 0, NULL,
					      false};
		const struct cfs_ds_model model = {
			.facts = {.hidden = cases[i].hidden,
				  .output_columns = -1}};
		const struct cfs_ds_whole w = {
			.name = cfs_ds_layer_parse(b.run.params[0].name),
			.rule = &rule};

		ck_assert_uint_eq(cfs_ds_template_rows(cfs_ds_step_of(b.step),
						       &model, &w),
				  cases[i].want);
	}
	tear_down(&b);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("template");
	TCase *tc = tcase_create("template");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, random_layouts);
	tcase_add_test(tc, partial);
	tcase_add_test(tc, many_names);
	tcase_add_test(tc, changed);
	tcase_add_test(tc, buffers);
	tcase_add_test(tc, constants);
	tcase_add_test(tc, scalars);
	tcase_add_test(tc, no_optimizer);
	tcase_add_test(tc, rows);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
