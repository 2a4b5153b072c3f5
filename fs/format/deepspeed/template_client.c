/*
 * Client state and loss scale of a template that is filled: progress of the
 * training from the step, what is configured as the template has it.
 */
#include "fs/format/deepspeed/template.h"

#include <string.h>

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

void cfs_ds_template_model_state(struct cfs_ds_step *made, uint32_t mp)
{
	const struct cfs_ds_remodel *rm = made->remodel;
	const struct cfs_ds_rank *run =
		&rm->from->ranks[cfs_ds_template_rank(rm, mp)];
	struct cfs_ds_rank *rank = &made->ranks[mp];

	rank->model_root = cfs_ds_template_client(
		made->scratch, rank->model_root, run->model_root);
	take_logits(made, mp, rank->model_root);
	take_scale(made, rank, run);
	take_scale0(made, rank, run);
}
