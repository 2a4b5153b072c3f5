/* What the trees of the first ranks tell about the whole step. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"

static const struct cfs_node *first_of(const struct cfs_ds_step *step,
				       const char *key)
{
	const struct cfs_ds_rank *rank = &step->ranks[0];
	const struct cfs_node *node = cfs_node_get(rank->model_root, key);

	if (!node)
		node = cfs_node_get(rank->optim_root, key);
	if (!node)
		node = cfs_node_get(rank->optim_state, key);
	return node;
}

/* ---- what the trees tell about the whole ---- */

bool cfs_ds_config_enabled(const struct cfs_node *ds_config, const char *path)
{
	bool v;

	return cfs_node_as_bool(cfs_ds_config_get(ds_config, path), &v) && v;
}

enum cfs_dtype cfs_ds_config_dtype(const struct cfs_node *ds_config)
{
	if (cfs_ds_config_enabled(ds_config, "bf16.enabled") ||
	    cfs_ds_config_enabled(ds_config, "bfloat16.enabled"))
		return CFS_BF16;
	return cfs_ds_config_enabled(ds_config, "fp16.enabled") ? CFS_F16
								: CFS_F32;
}

static int refuse_experts(struct cfs_ds_step *step, struct cfs_error *err)
{
	for (uint32_t m = 0; m < step->base.n_ranks; m++) {
		const struct cfs_ds_rank *rank = &step->ranks[m];
		const struct cfs_node *layers =
			cfs_node_get(rank->model_root, "ds_autoep_layers");

		if (cfs_seq_node_count(
			    cfs_node_get(rank->model_root, "num_experts")) ||
		    (layers && !cfs_node_is_none(layers))) {
			step->moe = true;
			return cfs_fail(err, -ENOTSUP,
					"%s: mixture-of-experts checkpoints "
					"are not supported yet",
					rank->model[0].name);
		}
	}
	return 0;
}

static int missing_rank(const struct cfs_ds_step *step, uint32_t dp,
			struct cfs_error *err)
{
	const struct cfs_ds_rank *rank = &step->ranks[0];
	bool zero3 = rank->n_model > 1 ||
		     cfs_ds_name_parse(rank->model[0].name).kind ==
			     CFS_DS_MODEL_ZERO3;
	struct cfs_ds_name name = {
		.kind = CFS_DS_OPTIM, .dp = dp, .bf16 = step->bf16_names};
	char buf[96];

	if (zero3 && dp >= rank->n_model)
		name.kind = CFS_DS_MODEL_ZERO3;
	return cfs_fail(err, -ENOENT, "%s is missing",
			cfs_ds_name_format(&name, buf, sizeof(buf)));
}

/* Files there against what the first model states count. */
static int check_counts(struct cfs_ds_step *step, struct cfs_error *err)
{
	const struct cfs_node *root = step->ranks[0].model_root;
	const char *file = step->ranks[0].model[0].name;
	uint32_t n_dp = step->ranks[0].n_optim;
	uint64_t dp, mp;

	if (cfs_node_as_u64(cfs_node_get(root, "mp_world_size"), &mp) &&
	    mp != step->base.n_ranks)
		return cfs_fail(
			err, mp > step->base.n_ranks ? -ENOENT : -EINVAL,
			"%s: mp_world_size is %llu, but there are "
			"files of %u model-parallel ranks",
			file, (unsigned long long)mp, step->base.n_ranks);
	if (!cfs_node_as_u64(cfs_node_get(root, "dp_world_size"), &dp))
		dp = CFS_MAX(n_dp, 1);
	if (!dp || dp > 1 << 22)
		return cfs_fail(err, -EBADMSG, "%s: dp_world_size is %llu",
				file, (unsigned long long)dp);
	step->base.topology.dp = n_dp ? n_dp : (uint32_t)dp;
	if (!n_dp)
		return 0;
	if (dp > n_dp)
		return missing_rank(step, n_dp, err);
	/* Before 0.10.2 sequence-parallel ranks were not counted there. */
	if (dp < n_dp &&
	    cfs_ds_version_cmp(step->base.writer_version, "0.10.2") >= 0)
		return cfs_fail(err, -EINVAL,
				"%s: dp_world_size is %llu, but there is %s "
				"too",
				file, (unsigned long long)dp,
				step->ranks[0].optim[dp].name);
	return 0;
}

/* Stage 3 and param_shapes promise optimizer files. */
static int check_optim(struct cfs_ds_step *step, bool zero3,
		       struct cfs_error *err)
{
	if (step->ranks[0].n_optim)
		return 0;
	if (!zero3 && !cfs_node_is_seq(cfs_node_get(step->ranks[0].model_root,
						    "param_shapes")))
		return 0;
	step->bf16_names = cfs_ds_config_dtype(step->ds_config) == CFS_BF16;
	return missing_rank(step, 0, err);
}

static void read_parallel(struct cfs_ds_step *step,
			  const struct cfs_ds_list *list)
{
	struct cfs_topology *t = &step->base.topology;
	const struct cfs_node *dims =
		first_of(step, "checkpoint_parallel_dimensions");
	uint64_t tp = 0, pp = 0;
	const struct cfs_ds_entry *layers;
	uint32_t n;

	t->tp = step->base.n_ranks;
	t->pp = 1;
	layers = cfs_ds_list_kind(list, CFS_DS_LAYER, &n);
	if (cfs_node_as_u64(cfs_node_get(dims, "tp_degree"), &tp) &&
	    cfs_node_as_u64(cfs_node_get(dims, "pp_degree"), &pp) && tp &&
	    pp == step->base.n_ranks / tp && !(step->base.n_ranks % tp)) {
		t->tp = (uint32_t)tp;
		t->pp = (uint32_t)pp;
	} else if (layers) {
		/* Sorted by tp rank: the last entry has the highest. */
		uint32_t ranks = layers[n - 1].parsed.mp + 1;

		if (!(step->base.n_ranks % ranks)) {
			t->tp = ranks;
			t->pp = step->base.n_ranks / ranks;
		}
	}
	/* A pipeline's model states have no module. */
	t->pipeline = t->pp > 1 || cfs_node_is_none(first_of(step, "module"));
}

int cfs_ds_read_facts(struct cfs_ds_step *step, const struct cfs_ds_list *list,
		      bool zero3, struct cfs_error *err)
{
	const struct cfs_node *steps = first_of(step, "global_steps");
	int64_t v;
	int r;

	step->ds_config = cfs_node_get(step->ranks[0].model_root, "ds_config");
	if (!step->ds_config)
		step->ds_config =
			cfs_node_get(step->ranks[0].optim_root, "ds_config");
	if (!cfs_node_is_map(step->ds_config))
		step->ds_config = NULL;
	step->base.writer_version =
		cfs_node_as_str(first_of(step, "ds_version"));
	if (cfs_node_as_int(steps, &v) && v >= 0)
		step->base.global_steps = v;
	step->legacy = cfs_torchfile_is_legacy(step->ranks[0].model[0].torch);
	step->base.dtype = cfs_ds_config_dtype(step->ds_config);
	r = refuse_experts(step, err);
	if (!r)
		r = check_optim(step, zero3, err);
	if (!r)
		r = check_counts(step, err);
	if (!r)
		read_parallel(step, list);
	return r;
}

/* ZeroStageEnum(2), or by name as newer Pythons may pickle it, or 2. */
static bool stage_of(const struct cfs_node *node, uint64_t *out)
{
	static const char *const names[] = {"disabled", "optimizer_states",
					    "gradients", "weights"};
	const struct cfs_node *args;
	const char *name;

	if (cfs_node_as_u64(node, out))
		return *out <= 3;
	if (!node || node->kind != CFS_NODE_OBJECT)
		return false;
	args = node->u.object->args;
	if (cfs_node_as_u64(cfs_seq_node_item(args, 0), out))
		return *out <= 3;
	name = cfs_node_as_str(cfs_seq_node_item(args, 1));
	for (uint64_t i = 0; name && i < CFS_ARRAY_SIZE(names); i++) {
		if (!strcmp(name, names[i])) {
			*out = i;
			return true;
		}
	}
	return false;
}

int cfs_ds_read_stage(struct cfs_ds_step *step, struct cfs_error *err)
{
	struct cfs_topology *t = &step->base.topology;
	const struct cfs_ds_rank *rank = &step->ranks[0];
	const struct cfs_node *node =
		cfs_node_get(rank->optim_state, "zero_stage");
	uint64_t stage;

	t->zero_stage = 1;
	if (t->optimizer == CFS_OPT_BF16) {
		/* Stage 0 of bf16 had this class until 0.18.4. */
		node = cfs_ds_config_get(step->ds_config,
					 "zero_optimization.stage");
		if (step->ds_config &&
		    (!node || (cfs_node_as_u64(node, &stage) && !stage)))
			t->zero_stage = 0;
		return 0;
	}
	if (t->optimizer == CFS_OPT_ZERO3) {
		t->zero_stage = 3;
		return 0;
	}
	/* Stage 1 of its own, which says so only in its elastic form. */
	if (cfs_node_get(rank->optim_state,
			 "local_sub_partitions_of_fp32_groups")) {
		t->zero_stage = 1;
		return 0;
	}
	/* Until 0.5.10 or so the optimizer said 2 in stage 1 as well. */
	if ((!stage_of(cfs_ds_config_get(step->ds_config,
					 "zero_optimization.stage"),
		       &stage) ||
	     stage < 1 || stage > 2) &&
	    (!stage_of(node, &stage) || stage < 1 || stage > 2))
		return cfs_fail(err, -EBADMSG, "%s: zero_stage cannot be read",
				rank->optim[0].name);
	t->zero_stage = (int)stage;
	return 0;
}
