/* Unpartitioned optimizers: an order of parameters is taken where the files
 * prove it and refused where they do not. */
#include "fs/format/deepspeed/deepspeed.h"

#include <errno.h>

#include "store/util/error.h"
#include "tests/unit/ds_make.h"

enum form {
	FUSED,
	UNFUSED,
	TORCH
};

struct stage0 {
	struct ds_made made;
	enum form form;
	bool names;	/* param_names in param_groups */
	bool backward;	/* the optimizer lists parameters from the last */
	bool own;	/* fused: every weight has a storage of its own */
	uint32_t ones;	/* so many of the first parameters are all ones */
	uint32_t late;	/* so many elements only the last of which differ */
	bool spoiled;	/* one master is not its weight's */
	bool odd_step;	/* other steps on one parameter */
	bool last_step; /* only a group's last parameter has its step */
};

/* The parameters of group @g in the optimizer's order. */
static uint32_t in_group(const struct stage0 *z, uint32_t g, uint32_t *out)
{
	uint32_t n = ds_order(&z->made, g, false, out);

	for (uint32_t i = 0; z->backward && i < n / 2; i++) {
		uint32_t p = out[i];

		out[i] = out[n - 1 - i];
		out[n - 1 - i] = p;
	}
	return n;
}

/* A weight and its master; moments always tell parameters apart. */
static float weight(const struct stage0 *z, uint32_t p, uint64_t e)
{
	if (p < z->ones || e + 1 < z->late)
		return 1;
	return ds_value(1, p, e);
}

/* {step, exp_avg, exp_avg_sq} of one parameter, in its shape */
static struct cfs_node *param_state(struct ds_file *f, const struct stage0 *z,
				    uint32_t p, bool last)
{
	const struct ds_param *q = &f->made->params[p];
	struct cfs_node *state = cfs_node_dict(f->doc);
	int64_t step = z->odd_step && !p ? 9 : 7;
	float values[128];

	if (z->last_step && !last)
		step = 0;
	cfs_node_set_str(f->doc, state, "step", cfs_node_int(f->doc, step));
	for (uint32_t role = 2; role < 4; role++) {
		for (uint64_t e = 0; e < q->numel; e++)
			values[e] = ds_value(role, p, e);
		cfs_node_set_str(f->doc, state,
				 role == 2 ? "exp_avg" : "exp_avg_sq",
				 ds_tensor(f, CFS_F32, values, q->numel,
					   q->ndim, q->shape));
	}
	return state;
}

static struct cfs_node *master(struct ds_file *f, const struct stage0 *z,
			       uint32_t p)
{
	const struct ds_param *q = &f->made->params[p];
	float values[128];

	for (uint64_t e = 0; e < q->numel; e++)
		values[e] = weight(z, p, e) + (z->spoiled && !p ? 1 : 0);
	return ds_tensor(f, CFS_F32, values, q->numel, q->ndim, q->shape);
}

/* A group's flat tensors, and its weights as views into one storage. */
static void fused_group(struct ds_file *f, const struct stage0 *z, uint32_t g,
			struct cfs_node *states, struct cfs_node *masters,
			struct cfs_node **weights)
{
	const struct ds_made *m = f->made;
	struct cfs_node *state = cfs_node_dict(f->doc);
	uint32_t order[DS_PARAMS_MAX], n = in_group(z, g, order);
	struct ds_elem v[512];
	float values[512];
	uint8_t half[1024];
	struct cfs_map *map = cfs_map_new(m->tab);
	const struct cfs_torch_storage *s;
	uint64_t len = 0, at = 0;

	for (uint32_t i = 0; i < n; i++)
		for (uint64_t e = 0; e < m->params[order[i]].numel; e++)
			v[len++] = (struct ds_elem){order[i], e};
	for (uint64_t i = 0; i < len; i++)
		values[i] = weight(z, v[i].param, v[i].elem) +
			    (z->spoiled && !i ? 1 : 0);
	cfs_node_append(f->doc, masters,
			ds_tensor(f, CFS_F32, values, len, 1, &len));
	cfs_node_set_str(f->doc, state, "step", cfs_node_int(f->doc, 7));
	cfs_node_set_str(f->doc, state, "exp_avg", ds_flat(f, 2, v, len));
	cfs_node_set_str(f->doc, state, "exp_avg_sq", ds_flat(f, 3, v, len));
	cfs_node_set(f->doc, states, cfs_node_int(f->doc, g), state);
	for (uint64_t i = 0; i < len; i++)
		values[i] = weight(z, v[i].param, v[i].elem);
	cfs_dtype_cast(CFS_F32, values, CFS_F16, half, len);
	ck_assert_int_eq(cfs_map_add_literal(map, half, len * 2), 0);
	cfs_map_seal(map);
	s = cfs_torch_writer_storage(f->w, CFS_F16, len, map, NULL, "cpu");
	f->maps[f->n_maps++] = map;
	for (uint32_t i = 0; i < n && !z->own; i++) {
		const struct ds_param *q = &m->params[order[i]];

		weights[order[i]] = cfs_torch_writer_tensor(
			f->w, s, at, q->ndim, q->shape, false);
		at += q->numel;
	}
}

static struct cfs_node *optimizer(struct ds_file *f, const struct stage0 *z,
				  struct cfs_node **weights)
{
	const struct ds_made *m = f->made;
	struct cfs_node *outer = cfs_node_dict(f->doc);
	struct cfs_node *torch = cfs_node_dict(f->doc);
	struct cfs_node *states = cfs_node_dict(f->doc);
	struct cfs_node *groups = cfs_node_list(f->doc);
	struct cfs_node *masters = cfs_node_list(f->doc);
	int64_t next = 0;

	for (uint32_t g = 0; g < m->n_groups; g++) {
		struct cfs_node *group = cfs_node_dict(f->doc);
		struct cfs_node *ids = cfs_node_list(f->doc);
		struct cfs_node *names = cfs_node_list(f->doc);
		struct cfs_node *list = cfs_node_list(f->doc);
		uint32_t order[DS_PARAMS_MAX], n = in_group(z, g, order);

		if (z->form == FUSED) {
			fused_group(f, z, g, states, masters, weights);
			cfs_node_append(f->doc, ids, cfs_node_int(f->doc, g));
		}
		for (uint32_t i = 0; i < n; i++)
			cfs_node_append(
				f->doc, names,
				cfs_node_str(f->doc, m->params[order[i]].name));
		for (uint32_t i = 0; z->form != FUSED && i < n; i++) {
			struct cfs_node *id = cfs_node_int(f->doc, next++);

			cfs_node_append(f->doc, ids, id);
			cfs_node_set(f->doc, states, id,
				     param_state(f, z, order[i], i + 1 == n));
			if (z->form == UNFUSED)
				cfs_node_append(f->doc, list,
						master(f, z, order[i]));
		}
		if (z->form == UNFUSED)
			cfs_node_append(f->doc, masters, list);
		cfs_node_set_str(f->doc, group, "lr",
				 cfs_node_float(f->doc, 0.5));
		cfs_node_set_str(f->doc, group, "params", ids);
		if (z->names)
			cfs_node_set_str(f->doc, group, "param_names", names);
		cfs_node_append(f->doc, groups, group);
	}
	cfs_node_set_str(f->doc, torch, "state", states);
	cfs_node_set_str(f->doc, torch, "param_groups", groups);
	if (z->form == TORCH)
		return torch;
	cfs_node_set_str(f->doc, outer, "optimizer_state_dict", torch);
	cfs_node_set_str(f->doc, outer,
			 z->form == FUSED ? "fp32_groups_flat" : "fp32_groups",
			 masters);
	return outer;
}

static void make(struct stage0 *z)
{
	struct cfs_node *weights[DS_PARAMS_MAX] = {NULL};
	struct ds_made *m = &z->made;
	struct cfs_node *root, *module, *opt;
	struct ds_file f;

	m->source = cfs_source_mem_new();
	m->tab = cfs_filetab_new();
	ds_file_begin(&f, m);
	root = cfs_node_dict(f.doc);
	module = cfs_node_ordereddict(f.doc);
	opt = optimizer(&f, z, weights);
	for (uint32_t p = 0; p < m->n; p++) {
		const struct ds_param *q = &m->params[p];
		float values[128];

		for (uint64_t e = 0; e < q->numel; e++)
			values[e] = weight(z, p, e);
		if (!weights[p])
			weights[p] = ds_tensor(
				&f, z->form == TORCH ? CFS_F32 : CFS_F16,
				values, q->numel, q->ndim, q->shape);
		cfs_node_set_str(f.doc, module, q->name, weights[p]);
	}
	cfs_node_set_str(f.doc, module, "tied.alias", weights[0]);
	cfs_node_set_str(f.doc, root, "module", module);
	cfs_node_set_str(f.doc, root, "buffer_names", cfs_node_list(f.doc));
	cfs_node_set_str(f.doc, root, "optimizer", opt);
	cfs_node_set_str(f.doc, root, "param_shapes", cfs_node_none(f.doc));
	cfs_node_set_str(f.doc, root, "dp_world_size", cfs_node_int(f.doc, 4));
	cfs_node_set_str(f.doc, root, "mp_world_size", cfs_node_int(f.doc, 1));
	cfs_node_set_str(f.doc, root, "ds_version",
			 cfs_node_str(f.doc, "0.19.8"));
	ds_file_end(&f, root, "mp_rank_00_model_states.pt");
}

/* Parameters of @n distinct shapes in @groups groups, and a frozen one. */
static void params(struct stage0 *z, uint32_t n, uint32_t groups, bool frozen)
{
	ds_params(&z->made, n, groups, frozen);
	for (uint32_t p = 0; p < z->made.n; p++) {
		struct ds_param *q = &z->made.params[p];

		q->ndim = 2;
		q->shape[0] = p + 2;
		q->shape[1] = 3;
		q->numel = q->shape[0] * q->shape[1];
	}
}

static void check_values(const struct stage0 *z, const struct cfs_step *step,
			 uint32_t i, uint32_t role, uint32_t p)
{
	const struct cfs_catalogue *cat = step->ranks[0].catalogue;
	uint64_t numel = cfs_catalogue_param(cat, i)->numel;
	enum cfs_dtype dtype = cfs_catalogue_dtype(cat, i, role);
	struct cfs_map *map = cfs_map_new(step->files);
	struct cfs_reader *reader;
	uint8_t bytes[512];
	float values[128];

	ck_assert_int_eq(cfs_catalogue_append(cat, i, role, 0, numel, map), 0);
	cfs_map_seal(map);
	ck_assert_int_eq(cfs_reader_open(map, step->pool, NULL, &reader, NULL),
			 0);
	ck_assert_int_eq(cfs_reader_pread(reader, bytes, sizeof(bytes), 0),
			 (ssize_t)(numel * cfs_dtype_size(dtype)));
	cfs_dtype_cast(dtype, bytes, CFS_F32, values, numel);
	for (uint64_t e = 0; e < numel; e++)
		ck_assert(values[e] ==
			  (role < 2 ? weight(z, p, e) : ds_value(role, p, e)));
	cfs_reader_close(reader);
	cfs_map_unref(map);
}

/* 0 and every value in its place, or the refusal. */
static int read_and_check(struct stage0 *z, int64_t step_value,
			  struct cfs_error *err)
{
	struct cfs_filepool *pool;
	struct cfs_step *step;
	int r;

	make(z);
	pool = cfs_filepool_new(z->made.source);
	r = cfs_format_deepspeed.read(z->made.source, pool, "", &step, err);
	if (!r) {
		const struct cfs_catalogue *cat = step->ranks[0].catalogue;
		const struct cfs_ds_rank *rank =
			&cfs_ds_step_of(step)->ranks[0];

		ck_assert_int_eq(step->topology.optimizer, CFS_OPT_STAGE0);
		ck_assert_uint_eq(step->topology.dp, 4);
		ck_assert_uint_eq(cfs_catalogue_params(cat), z->made.n);
		for (uint32_t p = 0; p < z->made.n; p++) {
			bool frozen = z->made.params[p].group == UINT32_MAX;
			uint32_t i;

			ck_assert_int_eq(
				cfs_catalogue_find(cat, z->made.params[p].name,
						   &i),
				0);
			ck_assert_uint_eq(cfs_catalogue_param(cat, i)->group,
					  z->made.params[p].group);
			for (uint32_t role = 0; role < (frozen ? 1 : 4); role++)
				check_values(z, step, i, role, p);
		}
		for (uint32_t g = 0; g < rank->n_groups; g++) {
			int64_t v;

			ck_assert(cfs_node_as_int(
				cfs_node_get(rank->groups[g].scalars, "step"),
				&v));
			ck_assert_int_eq(v, step_value);
		}
		cfs_step_unref(step);
	}
	cfs_filepool_free(pool);
	ds_unmake(&z->made);
	return r;
}

static void same_shape(struct stage0 *z, uint64_t numel)
{
	for (uint32_t p = 0; p < z->made.n; p++) {
		struct ds_param *q = &z->made.params[p];

		q->ndim = 1;
		q->shape[0] = q->numel = numel;
	}
}

static void accepted(struct stage0 *z)
{
	struct cfs_error err = {""};

	ck_assert_msg(!read_and_check(z, 7, &err), "%s", err.text);
}

/* Refused, with the names of @a and @b and what would decide. */
static void unproven(struct stage0 *z, uint32_t a, uint32_t b)
{
	struct cfs_error err = {""};

	ck_assert_int_eq(read_and_check(z, 7, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "not certain"));
	ck_assert_ptr_nonnull(strstr(err.text, z->made.params[a].name));
	ck_assert_ptr_nonnull(strstr(err.text, z->made.params[b].name));
	ck_assert_ptr_nonnull(strstr(err.text, "param_names"));
}

START_TEST(fused)
{
	struct stage0 z = {.form = FUSED};
	struct cfs_error err = {""};

	params(&z, 6, 3, true);
	ck_assert_msg(!read_and_check(&z, 7, &err), "%s", err.text);
	z.spoiled = true;
	ck_assert_int_eq(read_and_check(&z, 7, &err), -ENOTSUP);
}
END_TEST

START_TEST(unfused)
{
	struct stage0 z = {.form = UNFUSED};
	struct cfs_error err = {""};

	params(&z, 6, 2, true);
	ck_assert_msg(!read_and_check(&z, 7, &err), "%s", err.text);
	/* Equal shapes: the contents tell. */
	same_shape(&z, 5);
	ck_assert_msg(!read_and_check(&z, 7, &err), "%s", err.text);
	z.spoiled = true;
	ck_assert_int_eq(read_and_check(&z, 7, &err), -ENOTSUP);
}
END_TEST

START_TEST(torch_optimizer)
{
	struct stage0 z = {.form = TORCH};
	struct cfs_error err = {""};

	params(&z, 6, 2, true); /* shapes differ: one way only */
	ck_assert_msg(!read_and_check(&z, 7, &err), "%s", err.text);
	z.last_step = true; /* FusedAdam in fp32 */
	ck_assert_msg(!read_and_check(&z, 7, &err), "%s", err.text);
	z.last_step = false;
	z.odd_step = true;
	ck_assert_int_eq(read_and_check(&z, 7, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "step"));
}
END_TEST

START_TEST(ambiguous)
{
	struct stage0 z = {.form = TORCH};
	struct cfs_error err = {""};

	params(&z, 6, 2, false);
	z.made.params[1].shape[0] = z.made.params[4].shape[0];
	z.made.params[1].numel = z.made.params[4].numel;
	ck_assert_int_eq(read_and_check(&z, 7, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "not certain"));
	z.names = true;
	ck_assert_msg(!read_and_check(&z, 7, &err), "%s", err.text);
}
END_TEST

/* fp32, one group of all parameters: the module's order is no proof. */
START_TEST(order_of_one_group)
{
	struct stage0 z = {.form = TORCH};

	params(&z, 6, 1, false);
	accepted(&z);
	z.backward = true; /* other shapes: certain in any order */
	accepted(&z);
	same_shape(&z, 5);
	unproven(&z, 0, 1);
	z.backward = false;
	unproven(&z, 0, 1);
	z.names = true;
	accepted(&z);
	z.backward = true;
	accepted(&z);
}
END_TEST

START_TEST(same_masters)
{
	struct stage0 z = {.form = UNFUSED};
	struct cfs_error err = {""};

	params(&z, 6, 1, true);
	same_shape(&z, 100);
	z.late = 100; /* alike but for the last element */
	accepted(&z);
	z.backward = true;
	accepted(&z);
	z.ones = 1; /* one of them: no other is like it */
	accepted(&z);
	z.ones = 2;
	unproven(&z, 0, 1);
	z.backward = false;
	unproven(&z, 0, 1);
	z.names = true;
	accepted(&z);
	z.backward = true;
	accepted(&z);
	z.spoiled = true; /* names do not excuse other contents */
	ck_assert_int_eq(read_and_check(&z, 7, &err), -ENOTSUP);
}
END_TEST

START_TEST(fused_views)
{
	struct stage0 z = {.form = FUSED};

	params(&z, 6, 1, false);
	same_shape(&z, 70);
	z.ones = 3; /* offsets tell, whatever the contents */
	accepted(&z);
	z.backward = true;
	accepted(&z);
}
END_TEST

/* Weights that were saved one by one, beside flat masters. */
START_TEST(fused_copies)
{
	struct stage0 z = {.form = FUSED, .own = true};

	params(&z, 6, 2, true);
	accepted(&z);
	z.backward = true;
	accepted(&z);
	same_shape(&z, 80);
	z.late = 80;
	accepted(&z);
	z.ones = 2;
	unproven(&z, 0, 1);
	/* All ones of two lengths: either may be first. */
	params(&z, 6, 1, false);
	z.late = 0;
	unproven(&z, 0, 1);
	z.names = true;
	accepted(&z);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("deepspeed_stage0");
	TCase *tc = tcase_create("deepspeed_stage0");

	tcase_add_test(tc, fused);
	tcase_add_test(tc, unfused);
	tcase_add_test(tc, torch_optimizer);
	tcase_add_test(tc, ambiguous);
	tcase_add_test(tc, order_of_one_group);
	tcase_add_test(tc, same_masters);
	tcase_add_test(tc, fused_views);
	tcase_add_test(tc, fused_copies);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
