/*
 * What the writer makes of a small step held in memory: names, paddings,
 * orders and every element, read back from the bytes of the shown files.
 */
#include "tests/unit/deepspeed_write_fixture.h"

#include <zlib.h>

#include "fs/container/zip.h"
#include "fs/reslice/partition.h"
#include "store/util/arena.h"
#include "tests/test.h"

static const char *optim_name(char *buf, size_t size, uint32_t r)
{
	(void)snprintf(buf, size,
		       "bf16_zero_pp_rank_%u_mp_rank_00_optim_states.pt", r);
	return buf;
}

/* Every rank of stages 1, 2 or BF16_Optimizer holds what it should. */
static void check_flat(struct fixture *f, uint32_t dp,
		       enum cfs_optimizer_class cls,
		       const int64_t (*paddings)[2])
{
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree =
		shown(f, topo(dp, 1, cls));
	static const uint64_t total[2] = {ALL_G0, ALL_G1};

	ck_assert_uint_eq(tree->n_files, dp + 1);
	for (uint32_t r = 0; r < dp; r++) {
		_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
		struct cfs_node *inner, *masters, *state;
		char name[100];

		tf = shown_file(f, tree, optim_name(name, sizeof(name), r));
		inner = inner_of(tf);
		masters =
			cfs_node_get(inner, "single_partition_of_fp32_groups");
		state = cfs_node_get(
			cfs_node_get(inner, "base_optimizer_state"), "state");
		ck_assert_uint_eq(cfs_seq_node_count(masters), 2);
		for (uint32_t g = 0; g < 2; g++) {
			struct cfs_node *entry = cfs_node_get_int(state, g);
			struct cfs_flat flat;
			uint64_t n, lead, pad;

			ck_assert_int_eq(cfs_flat_init(&flat, dp, total[g], 2),
					 0);
			n = cfs_flat_valid(&flat, r);
			lead = r * flat.part;
			pad = flat.part - n;
			ck_assert_int_eq(
				int_at(cfs_node_get(inner, "group_paddings"),
				       g),
				paddings[r][g]);
			ck_assert_int_eq(
				int_at(cfs_node_get(inner, "partition_count"),
				       g),
				dp);
			check_ramp(f, cfs_seq_node_item(masters, g),
				   1000 + (float)lead, n,
				   cls == CFS_OPT_BF16 ? pad : 0);
			check_ramp(f, cfs_node_get(entry, "exp_avg"),
				   2000 + (float)lead, n, pad);
			check_ramp(f, cfs_node_get(entry, "step"), 7, 1, 0);
			ck_assert(tensor(cfs_seq_node_item(masters, g))
					  .requires_grad);
		}
	}
}

START_TEST(test_stage1_ranks)
{
	static const int64_t dp4[4][2] = {{0, 0}, {0, 0}, {0, 3}, {1, 4}};
	static const int64_t dp2[2][2] = {{0, 0}, {1, 3}};
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(1, "0.19.6");

	check_flat(f, 4, CFS_OPT_ZERO12, dp4);
	check_flat(f, 2, CFS_OPT_ZERO12, dp2);
}
END_TEST

START_TEST(test_bf16_optimizer)
{
	static const int64_t dp4[4][2] = {{0, 0}, {0, 0}, {0, 0}, {1, 7}};
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(3, "0.19.6");
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	struct cfs_node *inner, *types;
	char name[100];

	check_flat(f, 4, CFS_OPT_BF16, dp4);
	tree = shown(f, topo(4, 1, CFS_OPT_BF16));
	tf = shown_file(f, tree, optim_name(name, sizeof(name), 0));
	inner = inner_of(tf);
	ck_assert_ptr_null(cfs_node_get(inner, "zero_stage"));
	ck_assert_ptr_null(cfs_node_get(inner, "loss_scaler"));
	types = cfs_node_get(cfs_node_get(cfs_torchfile_root(tf), "ds_config"),
			     "data_types");
	ck_assert_str_eq(
		cfs_node_as_str(cfs_node_get(types, "grad_accum_dtype")),
		"fp32");
}
END_TEST

START_TEST(test_mapping)
{
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(1, "0.19.6");
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree =
		shown(f, topo(4, 1, CFS_OPT_ZERO12));
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	struct cfs_node *map, *key, *value, *state;
	char name[100];
	int64_t v;

	/* rank 1 of 4: emb {17, 0}, l1 {1, 17} */
	tf = shown_file(f, tree, optim_name(name, sizeof(name), 1));
	map = cfs_seq_node_item(
		cfs_node_get(inner_of(tf), "param_slice_mappings"), 0);
	ck_assert_uint_eq(cfs_map_node_count(map), 2);
	cfs_map_node_pair(map, 1, &key, &value);
	ck_assert_str_eq(cfs_node_as_str(key), "l1.weight");
	ck_assert_ptr_nonnull(cfs_node_call_args(
		value, "deepspeed.utils.tensor_fragment", "fragment_address"));
	ck_assert_uint_eq(value->u.object->n_ops, 1);
	state = value->u.object->ops[0].a;
	ck_assert(cfs_node_as_int(cfs_node_get(state, "numel"), &v) && v == 1);
	ck_assert(cfs_node_as_int(cfs_node_get(state, "start"), &v) && v == 17);
}
END_TEST

static void check_names(const struct cfs_node *map, const char *const *names,
			uint32_t n)
{
	ck_assert_uint_eq(cfs_map_node_count(map), n);
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_node *key, *value;

		cfs_map_node_pair(map, i, &key, &value);
		ck_assert_str_eq(cfs_node_as_str(key), names[i]);
	}
}

START_TEST(test_round_robin)
{
	static const char *const order[] = {"emb.weight", "head.weight",
					    "l1.weight"};
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(1, "0.19.6");
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *model = NULL;
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf got = CFS_BUF_INIT;
	struct cfs_topology t = topo(2, 2, CFS_OPT_ZERO12);
	struct cfs_node *root, *config;
	char name[100];
	float v[36];
	bool on = false;

	t.round_robin = true;
	tree = shown(f, t);
	model = shown_file(f, tree, "mp_rank_00_model_states.pt");
	root = cfs_torchfile_root(model);
	check_names(cfs_seq_node_item(cfs_node_get(root, "param_shapes"), 0),
		    order, 3);
	config = cfs_node_get(cfs_node_get(root, "ds_config"),
			      "zero_optimization");
	ck_assert(cfs_node_as_bool(
			  cfs_node_get(config, "round_robin_gradients"), &on) &&
		  on);
	/* flat: emb 0-34, head 50-70, l1 35-49; rank 0 has 36 of them */
	tf = shown_file(f, tree, optim_name(name, sizeof(name), 0));
	elements(f,
		 cfs_seq_node_item(
			 cfs_node_get(inner_of(tf),
				      "single_partition_of_fp32_groups"),
			 0),
		 &got);
	ck_assert_uint_eq(got.len, sizeof(v));
	memcpy(v, got.data, sizeof(v));
	ck_assert(v[34] == 1034.0f && v[35] == 1050.0f);
}
END_TEST

START_TEST(test_zero3_subgroups)
{
	static const char *const sub0[] = {"emb.weight", "l1.weight"};
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(1, "0.19.6");
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *model = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf got = CFS_BUF_INIT;
	struct cfs_topology t = topo(4, 3, CFS_OPT_ZERO3);
	struct cfs_node *inner, *state, *hypers, *root, *module;
	char name[100];
	float v[13];

	t.sub_group_size = 12;
	tree = shown(f, t);
	ck_assert_uint_eq(tree->n_files, 8);
	model = shown_file(f, tree,
			   "zero_pp_rank_3_mp_rank_00_model_states.pt");
	root = cfs_torchfile_root(model);
	ck_assert_uint_eq(
		cfs_seq_node_count(cfs_node_get(root, "param_shapes")), 3);
	check_names(cfs_seq_node_item(cfs_node_get(root, "param_shapes"), 0),
		    sub0, 2);
	module = cfs_node_get(root, "module");
	ck_assert_uint_eq(cfs_map_node_count(module), N_ALL + 2);
	ck_assert_uint_eq(tensor(cfs_node_get(module, "tied")).numel, 0);
	ck_assert_uint_eq(tensor(cfs_node_get(module, "frozen")).numel, 0);
	check_ramp(f, cfs_node_get(module, "buffer"), 7, 2, 0);
	/* rank 3 of 4 has elements [6, 8) of 5: nothing */
	check_ramp(f,
		   cfs_node_get(cfs_node_get(root, "frozen_param_fragments"),
				"frozen"),
		   0, 0, 2);

	/* emb 27-34 and one of padding, l1 12-14 and one */
	tf = shown_file(f, tree, optim_name(name, sizeof(name), 3));
	inner = inner_of(tf);
	state = cfs_node_get(cfs_node_get(inner, "optimizer_state_dict"),
			     "state");
	hypers = cfs_node_get(cfs_node_get(inner, "optimizer_state_dict"),
			      "param_groups");
	elements(f,
		 cfs_seq_node_item(cfs_node_get(inner, "fp32_flat_groups"), 0),
		 &got);
	ck_assert_uint_eq(got.len, sizeof(v));
	memcpy(v, got.data, sizeof(v));
	ck_assert(v[0] == 1027.0f && v[7] == 1034.0f && v[8] == 0.0f &&
		  v[9] == 1047.0f && v[11] == 1049.0f && v[12] == 0.0f);
	ck_assert_uint_eq(cfs_map_node_count(state), 3);
	ck_assert_int_eq(
		int_at(cfs_node_get(cfs_seq_node_item(hypers, 0), "params"), 1),
		1);
	ck_assert_int_eq(
		int_at(cfs_node_get(cfs_seq_node_item(hypers, 1), "params"), 0),
		2);
	/* two sub-groups never share a step: it would count twice */
	ck_assert_ptr_ne(
		tensor(cfs_node_get(cfs_node_get_int(state, 0), "step"))
			.storage,
		tensor(cfs_node_get(cfs_node_get_int(state, 1), "step"))
			.storage);
}
END_TEST

START_TEST(test_from_zero3)
{
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(3, "0.19.6");
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree =
		shown(f, topo(2, 2, CFS_OPT_ZERO12));
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *model =
		shown_file(f, tree, "mp_rank_00_model_states.pt");
	struct cfs_node *root = cfs_torchfile_root(model);
	struct cfs_node *module = cfs_node_get(root, "module");
	_cleanup_(cfs_buf_free) struct cfs_buf got = CFS_BUF_INIT;
	struct cfs_torch_tensor head, emb, tied;
	int64_t v;

	head = tensor(cfs_node_get(module, "head.weight"));
	ck_assert_int_eq(head.dtype, CFS_BF16);
	ck_assert_uint_eq(head.ndim, 2);
	ck_assert_uint_eq(head.shape[1], 3);
	/* master 1050 …, rounded to bf16 */
	elements(f, cfs_node_get(module, "head.weight"), &got);
	for (uint32_t i = 0; i < 21; i++) {
		float master = 1050.0f + (float)i, want, have;
		uint16_t half;

		cfs_dtype_cast(CFS_F32, &master, CFS_BF16, &half, 1);
		cfs_dtype_cast(CFS_BF16, &half, CFS_F32, &want, 1);
		memcpy(&have, got.data + i * sizeof(have), sizeof(have));
		ck_assert(have == want);
	}
	emb = tensor(cfs_node_get(module, "emb.weight"));
	tied = tensor(cfs_node_get(module, "tied"));
	ck_assert_uint_eq(emb.numel, 35);
	ck_assert_ptr_eq(emb.storage, tied.storage);
	ck_assert_uint_eq(tensor(cfs_node_get(module, "frozen")).numel, 5);
	ck_assert_uint_eq(
		tensor(cfs_node_get(
			       cfs_node_get(root, "frozen_param_fragments"),
			       "frozen"))
			.numel,
		5);
	check_ramp(f, cfs_node_get(module, "buffer"), 7, 2, 0);
	ck_assert(cfs_node_as_int(cfs_node_get(root, "dp_world_size"), &v) &&
		  v == 2);
	ck_assert(cfs_node_as_int(cfs_node_get(root, "iteration"), &v) &&
		  v == 7);
}
END_TEST

START_TEST(test_versions)
{
	static const int64_t last[4][2] = {{0, 0}, {0, 0}, {0, 0}, {1, 7}};
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(1, "0.16.3");
	_cleanup_(fixture_drop) struct fixture *old = fixture_new(1, "0.3.16");
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree_old = NULL;
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf_old = NULL;
	struct cfs_node *inner;
	char name[100];

	/* paddings as that version counted them: all on the last rank, whose
	 * slice [:4 - 7] then counts from the end */
	tree = shown(f, topo(4, 1, CFS_OPT_ZERO12));
	tf = shown_file(f, tree, optim_name(name, sizeof(name), 3));
	inner = inner_of(tf);
	for (uint32_t g = 0; g < 2; g++)
		ck_assert_int_eq(
			int_at(cfs_node_get(inner, "group_paddings"), g),
			last[3][g]);
	ck_assert_uint_eq(
		tensor(cfs_seq_node_item(cfs_node_get(inner,
						      "single_partition_of_"
						      "fp32_groups"),
					 1))
			.numel,
		1);
	ck_assert_ptr_null(cfs_node_get(inner, "param_alignment_paddings"));
	ck_assert_str_eq(cfs_node_as_str(cfs_node_get(inner, "ds_version")),
			 "0.16.3");
	/* what today's loader would refuse is raised */
	tree_old = shown(old, topo(2, 1, CFS_OPT_ZERO12));
	tf_old = shown_file(old, tree_old, optim_name(name, sizeof(name), 0));
	ck_assert_int_ge(
		cfs_ds_version_cmp(cfs_node_as_str(cfs_node_get(
					   inner_of(tf_old), "ds_version")),
				   "0.3.17"),
		0);
}
END_TEST

START_TEST(test_refusals)
{
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(1, "0.19.6");
	struct cfs_resolved target = {.topology = topo(2, 1, CFS_OPT_ZERO12)};
	struct cfs_node *hyper = f->groups[1].hyper;
	struct cfs_error err = {""};
	struct cfs_tree *tree;

	f->groups[1].hyper = NULL; /* elastic */
	ck_assert_int_eq(cfs_ds_write(&f->step.base, &target, &tree, &err),
			 -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "elastic"));
	f->groups[1].hyper = hyper;
	/* an optimizer of unknown kind: fused or not? */
	target.topology = topo(2, 0, CFS_OPT_STAGE0);
	ck_assert_int_eq(cfs_ds_write(&f->step.base, &target, &tree, &err),
			 -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "stage 0"));
}
END_TEST

/* The fixture's parameters, each with the roles that are bits of @roles[i]. */
static void replace_catalogue(struct fixture *f, const unsigned roles[N_ALL])
{
	struct cfs_catalogue *cat = cfs_catalogue_new();
	struct cfs_error err = {""};
	uint32_t k;

	for (uint32_t i = 0; i < N_ALL; i++)
		ck_assert_int_eq(cfs_catalogue_add_param(
					 cat, params[i].name, params[i].ndim,
					 params[i].shape, params[i].group, &k),
				 0);
	ck_assert_int_eq(cfs_catalogue_add_role(cat, "exp_avg", &k), 0);
	for (uint32_t i = 0; i < N_ALL; i++)
		for (k = 0; k <= CFS_ROLE_STATE0; k++) {
			struct cfs_extent e = {.count = numel_of(i)};

			if (!(roles[i] & 1u << k))
				continue;
			ck_assert_int_eq(
				cfs_catalogue_set_dtype(cat, i, k, CFS_F32), 0);
			ck_assert_int_eq(
				cfs_catalogue_add_extent(cat, i, k, &e), 0);
		}
	ck_assert_msg(!cfs_catalogue_seal(cat, &err), "%s", err.text);
	cfs_catalogue_free(f->base_rank.catalogue);
	f->base_rank.catalogue = cat;
}

static void refused(struct fixture *f, struct cfs_topology topology,
		    const char *text)
{
	struct cfs_resolved target = {.topology = topology};
	struct cfs_error err = {""};
	struct cfs_tree *tree;

	ck_assert_int_eq(cfs_ds_write(&f->step.base, &target, &tree, &err),
			 -ENOTSUP);
	ck_assert_msg(strstr(err.text, text) != NULL, "%s", err.text);
}

/* What a step lacks is told when the view is planned. */
START_TEST(test_lacking)
{
	const unsigned weight = 1, master = 2, state = 4;
	unsigned roles[N_ALL];
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(1, "0.19.6");
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;

	for (uint32_t i = 0; i < N_TRAIN; i++)
		roles[i] = master | state;
	/* a frozen weight that is not contiguous has no place */
	roles[N_TRAIN] = 0;
	replace_catalogue(f, roles);
	refused(f, topo(2, 3, CFS_OPT_ZERO3),
		"parameter frozen: its weight in the model states is not "
		"contiguous");
	tree = shown(f, topo(2, 1, CFS_OPT_ZERO12)); /* passed through */
	roles[N_TRAIN] = weight;
	roles[1] = state;
	replace_catalogue(f, roles);
	refused(f, topo(2, 1, CFS_OPT_ZERO12), "l1.weight: the step has no");
	roles[1] = master;
	replace_catalogue(f, roles);
	refused(f, topo(2, 1, CFS_OPT_ZERO12),
		"l1.weight: its optimizer state exp_avg");
	roles[0] = roles[2] = master;
	replace_catalogue(f, roles);
	refused(f, topo(2, 3, CFS_OPT_ZERO3), "exp_avg of group 0");
}
END_TEST

/* A build looks at files alone, and one that went away is no absent view. */
START_TEST(test_file_gone)
{
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(1, "0.19.6");
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree =
		shown(f, topo(2, 1, CFS_OPT_ZERO12));
	struct cfs_map *map = NULL;
	struct cfs_error err = {""};
	uint32_t row;

	ck_assert_int_eq(
		cfs_tree_find(tree, "mp_rank_00_model_states.pt", &row), 0);
	ck_assert_int_eq(cfs_source_mem_remove(f->source, "s/model.pt"), 0);
	ck_assert_int_eq(cfs_tree_map(tree, row, &map, &err), -ESTALE);
	ck_assert_ptr_null(strstr(err.text, "mp_rank_00"));
}
END_TEST

START_TEST(test_elastic)
{
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(1, "0.16.4");
	struct cfs_resolved zero3 = {.topology = topo(2, 3, CFS_OPT_ZERO3)};
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	struct cfs_pickle *d = f->step.scratch;
	struct cfs_error err = {""};
	struct cfs_tree *none;
	struct cfs_node *base;
	char name[100];
	int64_t v = 0;

	f->step.elastic = true;
	for (uint32_t g = 0; g < 2; g++) {
		f->groups[g].hyper = NULL;
		f->groups[g].scalars = cfs_node_dict(d);
		cfs_node_set_str(d, f->groups[g].scalars, "step",
				 cfs_node_int(d, 7));
	}
	ck_assert_int_eq(cfs_ds_write(&f->step.base, &zero3, &none, &err),
			 -ENOTSUP);
	tree = shown(f, topo(4, 1, CFS_OPT_ZERO12));
	tf = shown_file(f, tree, optim_name(name, sizeof(name), 2));
	base = cfs_node_get(inner_of(tf), "base_optimizer_state");
	ck_assert_uint_eq(cfs_seq_node_count(base), 2);
	/* rank 2 of group 1: one element, three of padding are stripped */
	check_ramp(f, cfs_node_get(cfs_seq_node_item(base, 1), "exp_avg"), 2008,
		   1, 0);
	ck_assert(cfs_node_as_int(cfs_node_get(inner_of(tf),
					       "base_optimizer_state_step"),
				  &v) &&
		  v == 7);
}
END_TEST

/* Hyper-parameters of torch's Adam, or of DeepSpeed's FusedAdam. */
static void set_adam(struct fixture *f, bool fused)
{
	struct cfs_pickle *d = f->step.scratch;

	for (uint32_t g = 0; g < 2; g++) {
		struct cfs_node *h = cfs_node_dict(d);

		cfs_node_set_str(d, h, "betas", cfs_node_list(d));
		cfs_node_set_str(d, h, fused ? "bias_correction" : "foreach",
				 cfs_node_bool(d, true));
		cfs_node_set_str(d, h, "params", cfs_node_list(d));
		f->groups[g].hyper = h;
	}
}

START_TEST(test_stage0)
{
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(3, "0.19.6");
	const struct cfs_topology t = topo(2, 0, CFS_OPT_STAGE0);
	struct cfs_node *optim, *state, *masters;
	struct cfs_torch_tensor head;
	int64_t v = 0;

	for (int fused = 0; fused < 2; fused++) {
		_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
		_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;

		set_adam(f, fused);
		tree = shown(f, t);
		ck_assert_uint_eq(tree->n_files, 1);
		tf = shown_file(f, tree, "mp_rank_00_model_states.pt");
		optim = cfs_node_get(cfs_torchfile_root(tf), "optimizer");
		state = cfs_node_get(
			cfs_node_get(optim, "optimizer_state_dict"), "state");
		masters = cfs_seq_node_item(
			cfs_node_get(optim, fused ? "fp32_groups_flat"
						  : "fp32_groups"),
			0);
		ck_assert(cfs_node_is_none(
			cfs_node_get(cfs_torchfile_root(tf), "param_shapes")));
		if (fused) {
			check_ramp(f, masters, 1000, ALL_G0, 0);
			check_ramp(f,
				   cfs_node_get(cfs_node_get_int(state, 1),
						"exp_avg"),
				   2000, ALL_G1, 0);
			continue;
		}
		ck_assert_uint_eq(cfs_map_node_count(state), N_TRAIN);
		head = tensor(cfs_seq_node_item(masters, 2));
		ck_assert(head.ndim == 2 && head.shape[1] == 3);
		check_ramp(f, cfs_seq_node_item(masters, 2), 1050, 21, 0);
		ck_assert(
			cfs_node_as_int(cfs_node_get(optim, "cur_iter"), &v) &&
			v == 7);
	}
}
END_TEST

START_TEST(test_crc_full)
{
	_cleanup_(fixture_drop) struct fixture *f = fixture_new(3, "0.19.6");
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree =
		shown(f, topo(2, 1, CFS_OPT_ZERO12));
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	_cleanup_(cfs_arena_freep) struct cfs_arena *arena = cfs_arena_new(0);
	struct cfs_error err = {""};
	struct cfs_zip zip;
	uint32_t row, n = 0;

	tree->crc_full = true;
	ck_assert_int_eq(
		cfs_tree_find(tree, "mp_rank_00_model_states.pt", &row), 0);
	ck_assert_msg(!cfs_tree_map(tree, row, &map, &err), "%s", err.text);
	map_bytes(map, f->step.base.pool, &bytes);
	ck_assert_int_eq(
		cfs_source_mem_put(f->source, "crc", bytes.data, bytes.len), 0);
	ck_assert_int_eq(f->source->ops->open(f->source, "crc", &file), 0);
	ck_assert_int_eq(cfs_zip_read(file, bytes.len, arena, &zip, &err), 0);
	for (uint32_t i = 0; i < zip.n_entries; i++) {
		const struct cfs_zip_entry *e = &zip.entries[i];
		uint64_t off;

		ck_assert_int_eq(
			cfs_zip_payload(file, bytes.len, e, &off, &err), 0);
		ck_assert_uint_eq(e->crc,
				  crc32(0, bytes.data + off, (uInt)e->usize));
		n += e->usize > 0 && e->crc != 0;
	}
	ck_assert_uint_gt(n, N_TRAIN);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("deepspeed_write");
	TCase *tc = tcase_create("write");

	tcase_add_test(tc, test_stage1_ranks);
	tcase_add_test(tc, test_bf16_optimizer);
	tcase_add_test(tc, test_mapping);
	tcase_add_test(tc, test_round_robin);
	tcase_add_test(tc, test_zero3_subgroups);
	tcase_add_test(tc, test_from_zero3);
	tcase_add_test(tc, test_versions);
	tcase_add_test(tc, test_refusals);
	tcase_add_test(tc, test_lacking);
	tcase_add_test(tc, test_file_gone);
	tcase_add_test(tc, test_elastic);
	tcase_add_test(tc, test_stage0);
	tcase_add_test(tc, test_crc_full);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
