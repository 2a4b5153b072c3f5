/*
 * What no tensor of a parameter is, of a template that is filled: progress of
 * the training from the step, all else as the template has it.
 */
#include "fs/format/deepspeed/template.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/write.h"
#include "store/util/endian.h"
#include "store/util/error.h"

/* ---- client state ---- */

/* Keys of model states that say how a job is laid out and configured. */
static const char *const kept[] = {
	"module",
	"buffer_names",
	"optimizer",
	"param_shapes",
	"frozen_param_shapes",
	"frozen_param_fragments",
	"shared_params",
	"sparse_tensor_module_names",
	"csr_tensor_module_names",
	"dp_world_size",
	"mp_world_size",
	"num_experts",
	"ds_config",
	"ds_version",
	"universal_checkpoint_info",
	"checkpoint_parallel_dimensions",
	"args",
	"checkpoint_version",
	"checkpoint_validation_logits", /* take_logits() */
};

/* Megatron counts what it has consumed among its arguments. */
static const char *const consumed[] = {
	"iteration",
	"consumed_train_samples",
	"consumed_train_tokens",
	"consumed_valid_samples",
};

static bool is_kept(const char *key)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(kept); i++)
		if (!strcmp(kept[i], key))
			return true;
	return false;
}

/* Where the __dict__ of a pickled object is, or NULL. */
static struct cfs_node **state_slot(const struct cfs_node *node)
{
	if (!node || node->kind != CFS_NODE_OBJECT)
		return NULL;
	for (uint32_t i = node->u.object->n_ops; i-- > 0;)
		if (node->u.object->ops[i].kind == CFS_OP_BUILD)
			return &node->u.object->ops[i].a;
	return NULL;
}

/* @node, an object, with what @keys name of @from's attributes: a copy. */
static struct cfs_node *take_attributes(struct cfs_pickle *doc,
					struct cfs_node *node,
					const struct cfs_node *from,
					const char *const *keys, size_t n)
{
	struct cfs_node **slot = state_slot(node), *state, *value;

	if (!slot || !from || !cfs_node_is_map(*slot))
		return node;
	state = cfs_node_copy(doc, *slot);
	for (size_t i = 0; i < n; i++) {
		value = cfs_node_get(from, keys[i]);
		if (value && cfs_node_get(state, keys[i]))
			cfs_node_replace(doc, state, keys[i], value);
	}
	node = cfs_node_copy(doc, node);
	slot = node ? state_slot(node) : NULL;
	if (slot)
		*slot = state;
	return node;
}

static void take_args(struct cfs_pickle *doc, struct cfs_node *root,
		      const struct cfs_node *run)
{
	struct cfs_node *args = cfs_node_get(root, "args");
	struct cfs_node **from = state_slot(cfs_node_get(run, "args"));

	if (from && state_slot(args))
		cfs_node_replace(doc, root, "args",
				 take_attributes(doc, args, *from, consumed,
						 CFS_ARRAY_SIZE(consumed)));
}

static bool is_none(const struct cfs_node *node)
{
	return !node || cfs_node_is_none(node);
}

struct cfs_node *cfs_ds_template_client(struct cfs_pickle *doc,
					const struct cfs_node *like,
					const struct cfs_node *run)
{
	static const char scheduler[] = "lr_scheduler";
	struct cfs_node *root = cfs_node_copy(doc, like);

	for (uint32_t i = 0; i < cfs_map_node_count(run); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(run, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name || is_kept(name))
			continue;
		/* partial: one of both has nothing to go on from */
		if (!strcmp(name, scheduler) &&
		    is_none(value) != is_none(cfs_node_get(like, scheduler)))
			continue;
		cfs_node_replace(doc, root, name, value);
	}
	take_args(doc, root, run);
	return root;
}

/*
 * What the weights gave for some sample, on the last stage: the step's, where
 * its ranks have as much of the vocabulary; those of other weights never.
 */
static void take_logits(struct cfs_ds_step *made, uint32_t mp,
			struct cfs_node *root)
{
	static const char key[] = "checkpoint_validation_logits";
	const struct cfs_ds_remodel *rm = made->remodel;
	uint32_t tp = rm->from->base.topology.tp;
	const struct cfs_node *like =
		cfs_node_get(rm->like->ranks[mp].model_root, key);
	struct cfs_torch_tensor a, b;
	struct cfs_node *value = NULL;

	if (!like)
		return;
	if (tp == rm->tp && !cfs_torch_tensor_get(like, &a))
		value = cfs_node_get(
			rm->from->ranks[rm->from->base.n_ranks - tp + mp % tp]
				.model_root,
			key);
	if (value && (cfs_torch_tensor_get(value, &b) < 0 ||
		      a.dtype != b.dtype || a.ndim != b.ndim ||
		      memcmp(a.shape, b.shape, a.ndim * sizeof(a.shape[0]))))
		value = NULL;
	cfs_node_replace(made->scratch, root, key,
			 value ? value : cfs_node_none(made->scratch));
}

uint32_t cfs_ds_template_rank(const struct cfs_ds_remodel *rm, uint32_t mp)
{
	const struct cfs_step *run = &rm->from->base, *like = &rm->like->base;

	return run->topology.tp == like->topology.tp &&
			       run->n_ranks == like->n_ranks
		       ? mp
		       : 0;
}

/* ---- loss scaling ---- */

/* What a scaler learns; how it scales is configured. */
static const char *const learned[] = {"cur_scale", "cur_iter",
				      "last_overflow_iter", "cur_hysteresis"};

/* The facts of a rank's scaler: an object's, or stage 0's own keys. */
static const struct cfs_node *scale_of(const struct cfs_ds_rank *rank)
{
	struct cfs_node **slot =
		state_slot(cfs_node_get(rank->optim_state, "loss_scaler"));

	return slot ? *slot : cfs_node_get(rank->model_root, "optimizer");
}

static bool is_dynamic(const struct cfs_node *scale)
{
	bool on = false;

	if (!cfs_node_as_bool(cfs_node_get(scale, "dynamic"), &on))
		(void)cfs_node_as_bool(
			cfs_node_get(scale, "dynamic_loss_scale"), &on);
	return on;
}

static void take_scale(struct cfs_ds_step *made, struct cfs_ds_rank *rank,
		       const struct cfs_ds_rank *run)
{
	const struct cfs_ds_step *from = made->remodel->from;
	const struct cfs_node *scale = scale_of(run);
	bool learns = made->base.dtype == CFS_F16 &&
		      from->base.dtype == CFS_F16 && is_dynamic(scale) &&
		      is_dynamic(scale_of(rank));
	struct cfs_node *inner, *node;

	if (!rank->optim_state)
		return;
	inner = cfs_node_copy(made->scratch, rank->optim_state);
	node = cfs_node_get(inner, "loss_scaler");
	if (node && learns)
		cfs_node_replace(made->scratch, inner, "loss_scaler",
				 take_attributes(made->scratch, node, scale,
						 learned,
						 CFS_ARRAY_SIZE(learned)));
	node = cfs_node_get(run->optim_state, "overflow");
	if (node && cfs_node_get(inner, "overflow"))
		cfs_node_replace(made->scratch, inner, "overflow", node);
	rank->optim_state = inner;
}

/* The same in stage 0, which counts iterations in any case. */
static void take_scale0(struct cfs_ds_step *made, struct cfs_ds_rank *rank,
			const struct cfs_ds_rank *run)
{
	struct cfs_pickle *doc = made->scratch;
	const struct cfs_node *scale = scale_of(run);
	struct cfs_node *optim = cfs_node_get(rank->model_root, "optimizer");
	bool learns = made->base.dtype == CFS_F16 && is_dynamic(scale) &&
		      is_dynamic(optim);
	struct cfs_node *value;

	if (rank->optim_state || !cfs_node_is_map(optim))
		return;
	optim = cfs_node_copy(doc, optim);
	for (size_t i = 0; learns && i < CFS_ARRAY_SIZE(learned); i++) {
		value = cfs_node_get(scale, learned[i]);
		if (value && cfs_node_get(optim, learned[i]))
			cfs_node_replace(doc, optim, learned[i], value);
	}
	if (cfs_node_get(optim, "cur_iter")) {
		value = cfs_node_get(scale, "cur_iter");
		if (!value)
			value = cfs_node_int(
				doc, CFS_MAX(made->base.global_steps, 0));
		cfs_node_replace(doc, optim, "cur_iter", value);
	}
	cfs_node_replace(doc, rank->model_root, "optimizer", optim);
}

/* ---- groups ---- */

/* The one number of a tensor, or a number. */
static int read_number(const struct cfs_step *step, const struct cfs_node *node,
		       double *out, struct cfs_error *err)
{
	struct cfs_torch_tensor t;
	struct cfs_file *file;
	uint8_t raw[8] = {0};
	uint64_t off, size;
	uint32_t u;
	float f;
	int r;

	if (cfs_node_as_real(node, out))
		return 0;
	r = cfs_torch_tensor_get(node, &t);
	if (r < 0 || t.numel != 1 || !t.storage || !t.storage->file ||
	    (t.dtype != CFS_F32 && t.dtype != CFS_I64))
		return cfs_fail(err, -ENOTSUP,
				"the step's count of steps (`step`) is no "
				"number");
	r = cfs_ds_open(step, cfs_torchfile_index(t.storage->file), &file, err);
	if (r < 0)
		return r;
	size = cfs_dtype_size(t.dtype);
	r = cfs_torch_storage_extent(t.storage, file, &off, err);
	if (!r)
		r = cfs_file_pread_all(file, raw, size,
				       off + t.storage_offset * size);
	cfs_filepool_put(step->pool, file);
	if (r < 0)
		return r;
	u = cfs_get_le32(raw);
	memcpy(&f, &u, sizeof(f));
	*out = t.dtype == CFS_F32 ? (double)f
				  : (double)(int64_t)cfs_get_le64(raw);
	return 0;
}

static bool is_tensor(const struct cfs_node *node)
{
	struct cfs_torch_tensor t;

	return node && !cfs_torch_tensor_get(node, &t);
}

/* Where a group keeps its count; apex does so beside the hyper-parameters, and
 * DeepSpeed leaves a 0 there for good. */
static struct cfs_node *count_of(const struct cfs_ds_group *g)
{
	struct cfs_node *step = cfs_node_get(g->scalars, "step");

	return step ? step : cfs_node_get(g->hyper, "step");
}

struct filling {
	struct cfs_ds_step *made;
	uint32_t mp, group;
	const struct cfs_ds_group *from; /* the step's; NULL: none yet */
	struct cfs_error *err;
};

static int differ(const struct filling *f, const char *what)
{
	return cfs_fail(f->err, -ENOTSUP,
			"group %u of the template joins parameters of groups "
			"that differ in %s",
			f->group, what);
}

static int check_same(const struct filling *f, const struct cfs_ds_group *other)
{
	const struct cfs_step *run = &f->made->remodel->from->base;
	const struct cfs_node *lr = cfs_node_get(f->from->hyper, "lr");
	double a = 0, b = 0;
	int r = 0;

	if (lr && !cfs_node_equal(lr, cfs_node_get(other->hyper, "lr")))
		return differ(f, "their rate (lr)");
	if (!count_of(f->from) != !count_of(other))
		return differ(f, "their count of steps");
	if (count_of(other)) {
		r = read_number(run, count_of(f->from), &a, f->err);
		if (!r)
			r = read_number(run, count_of(other), &b, f->err);
	}
	return !r && (a < b || a > b) ? differ(f, "their count of steps") : r;
}

/* The step's group that a template's takes from: all of them must agree. */
static int find_group(struct filling *f)
{
	const struct cfs_ds_remodel *rm = f->made->remodel;
	const struct cfs_ds_made *made = &rm->made[f->mp];
	uint32_t first, n, tp = rm->from->base.topology.tp;
	const struct cfs_ds_group *last = NULL;

	cfs_catalogue_group(made->cat, f->group, &first, &n);
	for (uint32_t i = first; i < first + n; i++) {
		const struct cfs_ds_whole *w = made->whole[i];
		const struct cfs_ds_group *g;
		int r;

		if (!w || w->group == CFS_GROUP_FROZEN)
			continue;
		g = &rm->from->ranks[w->stage * tp].groups[w->group];
		if (g == last)
			continue;
		last = g;
		if (!f->from)
			f->from = g;
		r = check_same(f, g);
		if (r < 0)
			return r;
	}
	return 0;
}

/* As the template keeps it: a number, or a tensor, which the writer makes. */
static int take_count(const struct filling *f, const struct cfs_node *like,
		      struct cfs_node **value_out)
{
	struct cfs_node *have = count_of(f->from);
	double v;
	int r;

	if (!have)
		return cfs_fail(f->err, -ENOTSUP,
				"the step does not say how many steps its "
				"optimizer took");
	*value_out = have;
	if (is_tensor(like) || !is_tensor(have))
		return 0;
	r = read_number(&f->made->remodel->from->base, have, &v, f->err);
	if (!r)
		*value_out = cfs_node_int(f->made->scratch, (int64_t)v);
	return r;
}

static int take_scalars(const struct filling *f, struct cfs_ds_group *g)
{
	struct cfs_pickle *doc = f->made->scratch;
	struct cfs_node *copy = cfs_node_copy(doc, g->scalars);

	for (uint32_t i = 0; i < cfs_map_node_count(g->scalars); i++) {
		struct cfs_node *key, *value;
		const char *name;
		int r = 0;

		cfs_map_node_pair(g->scalars, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name)
			continue;
		if (!strcmp(name, "step"))
			r = take_count(f, value, &value);
		else
			value = cfs_node_get(f->from->scalars, name);
		if (r < 0)
			return r;
		if (!value)
			return cfs_fail(f->err, -ENOTSUP,
					"optimizer state %s of group %u: the "
					"template keeps it, the step has none",
					name, f->group);
		cfs_node_replace(doc, copy, name, value);
	}
	g->scalars = copy;
	return 0;
}

/* The rate is where a schedule has led to; all else is configured. */
static int take_hyper(const struct filling *f, struct cfs_ds_group *g)
{
	struct cfs_pickle *doc = f->made->scratch;
	struct cfs_node *hyper = cfs_node_copy(doc, g->hyper);
	struct cfs_node *lr = cfs_node_get(f->from->hyper, "lr"), *count;
	int r;

	if (lr && cfs_node_get(hyper, "lr"))
		cfs_node_replace(doc, hyper, "lr", lr);
	count = cfs_node_get(hyper, "step");
	if (count && !cfs_node_get(g->scalars, "step")) {
		r = take_count(f, count, &count);
		if (r < 0)
			return r;
		cfs_node_replace(doc, hyper, "step", count);
	}
	g->hyper = hyper;
	return 0;
}

static int take_groups(struct cfs_ds_step *made, uint32_t mp,
		       struct cfs_error *err)
{
	const struct cfs_ds_rank *like = &made->remodel->like->ranks[mp];
	struct cfs_ds_group *groups =
		calloc((size_t)like->n_groups + 1, sizeof(*groups));
	int r = 0;

	made->ranks[mp].groups = groups;
	if (!groups)
		return -ENOMEM;
	for (uint32_t g = 0; !r && g < like->n_groups; g++) {
		struct filling f = {made, mp, g, NULL, err};

		groups[g] = like->groups[g];
		r = find_group(&f);
		if (r < 0 || !f.from)
			continue;
		r = take_hyper(&f, &groups[g]);
		if (!r)
			r = take_scalars(&f, &groups[g]);
	}
	return r;
}

/* A job that saved before its first step has not shown what it keeps. */
static int check_taken(const struct cfs_ds_step *made, uint32_t mp,
		       struct cfs_error *err)
{
	const struct cfs_ds_rank *like = &made->remodel->like->ranks[mp];
	const struct cfs_ds_rank *run = &made->remodel->from->ranks[0];
	bool took = false;

	for (uint32_t g = 0; g < run->n_groups; g++)
		took |= cfs_seq_node_count(run->groups[g].state_order) != 0;
	for (uint32_t g = 0; took && g < like->n_groups; g++) {
		uint32_t first, n;

		cfs_catalogue_group(made->base.ranks[mp].catalogue, g, &first,
				    &n);
		if (n && !cfs_seq_node_count(like->groups[g].state_order))
			return cfs_fail(err, -ENOTSUP,
					"the template was saved before its "
					"optimizer took a step: save it after "
					"one");
	}
	return 0;
}

int cfs_ds_template_state(struct cfs_ds_step *made, struct cfs_error *err)
{
	const struct cfs_ds_remodel *rm = made->remodel;
	int r = 0;

	for (uint32_t m = 0; !r && m < made->base.n_ranks; m++) {
		const struct cfs_ds_rank *run =
			&rm->from->ranks[cfs_ds_template_rank(rm, m)];
		struct cfs_ds_rank *rank = &made->ranks[m];

		*rank = rm->like->ranks[m];
		rank->groups = NULL;
		r = take_groups(made, m, err);
		if (!r)
			r = check_taken(made, m, err);
		if (r < 0)
			return r;
		rank->model_root = cfs_ds_template_client(
			made->scratch, rank->model_root, run->model_root);
		take_logits(made, m, rank->model_root);
		take_scale(made, rank, run);
		take_scale0(made, rank, run);
	}
	return cfs_pickle_failed(made->scratch) ? -ENOMEM : r;
}

/* ---- as a file is made ---- */

int cfs_ds_template_scalar(struct cfs_ds_out *out, uint32_t group,
			   const char *name, struct cfs_node **value)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *like = cfs_node_get(
		rm->like->ranks[out->mp].groups[group].scalars, name);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_torch_tensor t;
	uint8_t raw[4];
	double v;
	uint32_t u;
	float f;
	int r;

	if (is_tensor(*value) || !is_tensor(like) ||
	    !cfs_node_as_real(*value, &v))
		return 0;
	r = cfs_torch_tensor_get(like, &t);
	if (!r && (t.dtype != CFS_F32 || t.numel != 1))
		r = -ENOTSUP;
	if (r < 0)
		return r;
	f = (float)v;
	memcpy(&u, &f, sizeof(u));
	cfs_put_le32(raw, u);
	map = cfs_ds_out_map(out);
	r = map ? cfs_map_add_literal(map, raw, sizeof(raw)) : -ENOMEM;
	if (r < 0)
		return r;
	*value = cfs_ds_out_tensor(out, cfs_steal(map), CFS_F32, t.ndim,
				   t.shape, t.requires_grad);
	return *value ? 0 : -ENOMEM;
}
