/*
 * A DeepSpeed step at another topology: which files there are.  Planning looks
 * at names and counts alone; write_file.c makes each when it is asked for.
 */
#include "fs/format/deepspeed/remodel.h"
#include "fs/format/deepspeed/template.h"
#include "fs/format/deepspeed/write.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/grow.h"

#define FILES_MAX 65536u /* of optimizer states: a typo, not a job */

int cfs_ds_tree_add(struct cfs_ds_tree *t, const char *name,
		    const struct cfs_ds_plan *plan)
{
	if (!CFS_GROW(t->plans, t->n_plans, t->cap_plans))
		return -ENOMEM;
	t->plans[t->n_plans] = *plan;
	return cfs_tree_add(&t->base, name, t->base.step->mode & 07777,
			    t->n_plans++);
}

static int plan_one(struct cfs_ds_tree *t, enum cfs_ds_part part,
		    enum cfs_ds_kind kind, uint32_t mp, uint32_t dp)
{
	struct cfs_ds_step *step = cfs_ds_step_of(t->base.step);
	struct cfs_ds_name name = {.kind = kind, .dp = dp, .mp = mp};
	struct cfs_ds_plan plan = {.part = part, .mp = mp, .dp = dp};
	char buf[128];

	/* the prefix says bf16, not which class; it is the model's */
	if (kind == CFS_DS_OPTIM)
		name.bf16 = step->ranks[mp].n_optim
				    ? step->bf16_names
				    : step->base.dtype == CFS_BF16;
	return cfs_ds_tree_add(t, cfs_ds_name_format(&name, buf, sizeof(buf)),
			       &plan);
}

static int plan_rank(struct cfs_ds_tree *t, uint32_t mp)
{
	const struct cfs_topology *topo = &t->base.target.topology;
	bool zero3 = topo->zero_stage == 3;
	bool optim = topo->optimizer != CFS_OPT_NONE &&
		     topo->optimizer != CFS_OPT_STAGE0;
	int r = 0;

	for (uint32_t dp = 0; r >= 0 && dp < (zero3 ? topo->dp : 1); dp++)
		r = plan_one(t, CFS_DS_PART_MODEL,
			     zero3 ? CFS_DS_MODEL_ZERO3 : CFS_DS_MODEL, mp, dp);
	for (uint32_t dp = 0; r >= 0 && optim && dp < topo->dp; dp++)
		r = plan_one(t, CFS_DS_PART_OPTIM, CFS_DS_OPTIM, mp, dp);
	return r;
}

/* Layer files do not depend on the topology. */
static int plan_carried(struct cfs_ds_tree *t)
{
	const struct cfs_filetab *files = t->base.step->files;

	for (uint32_t i = 0; i < cfs_filetab_count(files); i++) {
		const char *path = cfs_filetab_path(files, i);
		const char *slash = strrchr(path, '/');
		const char *name = slash ? slash + 1 : path;
		struct cfs_ds_plan plan = {.part = CFS_DS_PART_CARRIED,
					   .file = i};
		int r;

		if (cfs_ds_name_parse(name).kind != CFS_DS_LAYER)
			continue;
		r = cfs_ds_tree_add(t, name, &plan);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * An elastic checkpoint has no param_groups, so only elastic files can be made
 * of it.  Of those the loader takes the ones whose step is a plain number
 * (DeepSpeed's and apex's Adam), and keeps the engine's hyper-parameters.
 */
static bool can_stay_elastic(const struct cfs_ds_step *step,
			     const struct cfs_topology *topo)
{
	if (!step->elastic || topo->optimizer != CFS_OPT_ZERO12)
		return false;
	for (uint32_t i = 0; i < step->base.n_ranks; i++)
		for (uint32_t g = 0; g < step->ranks[i].n_groups; g++) {
			const struct cfs_ds_group *group =
				&step->ranks[i].groups[g];
			const struct cfs_node *n =
				cfs_node_get(group->scalars, "step");
			int64_t v;

			if (group->hyper || (n && !cfs_node_as_int(n, &v)))
				return false;
		}
	return true;
}

/*
 * FusedAdam once kept its step in param_groups alone, which elastic files do
 * not have.  It counts the steps that were not skipped, and those are known;
 * an Adam that started at 1 again would correct its bias wrongly.
 */
static int64_t lost_step_of(const struct cfs_ds_step *step)
{
	const struct cfs_ds_rank *rank = &step->ranks[0];
	int64_t skipped = 0;
	uint32_t role;

	if (!rank->n_groups || cfs_node_get(rank->groups[0].scalars, "step") ||
	    cfs_node_get(rank->optim_state, "base_optimizer_state_step"))
		return 0;
	for (role = CFS_ROLE_STATE0;
	     role < cfs_catalogue_roles(step->base.ranks[0].catalogue); role++)
		if (!strcmp(cfs_catalogue_role_name(
				    step->base.ranks[0].catalogue, role),
			    "exp_avg_sq"))
			break;
	if (role == cfs_catalogue_roles(step->base.ranks[0].catalogue))
		return 0;
	(void)cfs_node_as_int(cfs_node_get(rank->model_root, "skipped_steps"),
			      &skipped);
	return CFS_MAX(step->base.global_steps - skipped, 0);
}

/* A pipeline made of something else: layer by layer. */
static int plan_layers(struct cfs_ds_tree *t)
{
	const struct cfs_ds_remodel *rm = cfs_ds_step_of(t->base.step)->remodel;
	int r = 0;

	for (uint32_t i = 0; rm->pp && !r && i < rm->layers.n; i++) {
		uint32_t stage = cfs_ds_stage_of(rm, rm->layers.v[i]);

		for (uint32_t k = 0; !r && k < rm->tp; k++) {
			struct cfs_ds_name name = {.kind = CFS_DS_LAYER,
						   .dp = rm->layers.v[i],
						   .mp = k};
			struct cfs_ds_plan plan = {.part = CFS_DS_PART_LAYER,
						   .mp = stage * rm->tp + k,
						   .layer = rm->layers.v[i]};
			char buf[128];

			r = cfs_ds_tree_add(
				t, cfs_ds_name_format(&name, buf, sizeof(buf)),
				&plan);
		}
	}
	return r;
}

int cfs_ds_tree_new(struct cfs_step *step, const struct cfs_resolved *target,
		    struct cfs_ds_tree **out)
{
	struct cfs_ds_tree *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	r = cfs_tree_init(&t->base, &cfs_ds_tree_ops, step, target);
	if (r < 0) {
		free(t);
		return r;
	}
	t->version =
		cfs_ds_raised_version(cfs_ds_step_of(step), &target->topology);
	*out = t;
	return 0;
}

int cfs_ds_tree_seal(struct cfs_ds_tree *t, struct cfs_tree **out)
{
	int r = cfs_tree_seal(&t->base);

	if (r < 0) {
		cfs_tree_unref(&t->base);
		return r;
	}
	for (uint32_t i = 0; i < t->base.n_files; i++)
		t->plans[t->base.files[i].index].name = t->base.files[i].name;
	*out = &t->base;
	return 0;
}

int cfs_ds_write_step(struct cfs_step *step, const struct cfs_resolved *target,
		      struct cfs_tree **tree_out, struct cfs_error *err)
{
	const struct cfs_ds_remodel *rm = cfs_ds_step_of(step)->remodel;
	bool elastic =
		can_stay_elastic(cfs_ds_step_of(step), &target->topology);
	struct cfs_ds_tree *t;
	int r;

	if ((uint64_t)target->topology.dp * step->n_ranks > FILES_MAX)
		return cfs_fail(err, -EINVAL,
				"dp%u: more than %u files of %u model-parallel "
				"ranks",
				target->topology.dp, FILES_MAX, step->n_ranks);
	r = cfs_ds_write_possible(cfs_ds_step_of(step), &target->topology,
				  elastic, err);
	if (!r)
		r = cfs_ds_tree_new(step, target, &t);
	if (r)
		return r;
	t->elastic = elastic;
	t->lost_step = elastic ? lost_step_of(cfs_ds_step_of(step)) : 0;
	for (uint32_t mp = 0; r >= 0 && mp < step->n_ranks; mp++)
		r = plan_rank(t, mp);
	if (r >= 0)
		r = !rm	       ? plan_carried(t)
		    : rm->like ? cfs_ds_template_plan(t)
			       : plan_layers(t);
	if (r < 0) {
		cfs_tree_unref(&t->base);
		return r;
	}
	return cfs_ds_tree_seal(t, tree_out);
}

int cfs_ds_write(struct cfs_step *step, const struct cfs_resolved *target,
		 struct cfs_tree **tree_out, struct cfs_error *err)
{
	const struct cfs_topology *from = &step->topology;
	const struct cfs_topology *to = &target->topology;
	const struct cfs_ds_parallel parallel = {
		.tp = to->tp,
		.pp = to->pipeline ? to->pp : 0,
		.vocabulary = target->vocabulary,
		.qkv_in_parts = target->qkv_in_parts,
		.bias_sum = target->bias_sum,
		.options = target->options};
	struct cfs_ds_step *made;
	int r;

	if (to->universal)
		return cfs_uc_plan(step, target, tree_out, err);
	if (from->tp == to->tp && from->pp == to->pp &&
	    from->pipeline == to->pipeline && !target->options &&
	    !cfs_ds_step_of(step)->only_masters)
		return cfs_ds_write_step(step, target, tree_out, err);
	r = cfs_ds_remodel(cfs_ds_step_of(step), &parallel, &made, err);
	if (r < 0)
		return r;
	r = cfs_ds_write_step(&made->base, target, tree_out, err);
	cfs_step_unref(&made->base); /* the tree has its own */
	return r;
}
