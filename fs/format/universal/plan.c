/*
 * A step as a universal checkpoint: which files there are.
 *
 *   zero/PARAMETER/fp32.pt, exp_avg.pt, …, step.pt    whole tensors
 *   zero/optimizer_state.pt                           what all ranks share
 *   mp_rank_MM_model_states.pt                        for loaders up to stage 2
 *   zero_pp_rank_0_mp_rank_MM_model_states.pt         for those of stage 3
 *
 * Tensors are those of a step in memory with one rank that has all; the model
 * states those of the model-parallel ranks of the job that is to load them.
 * Rules: fs/format/DESIGN.md, "Universal checkpoints".
 */
#include "fs/format/universal/universal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/deepspeed/remodel.h"
#include "store/util/error.h"

/* ---- below zero/ ---- */

static int add_file(struct cfs_ds_tree *t, const char *param, const char *file,
		    uint32_t index, uint32_t role)
{
	struct cfs_ds_plan plan = {
		.part = CFS_DS_PART_UNIVERSAL, .param = index, .role = role};
	_cleanup_(cfs_freep) char *name = NULL;

	if (asprintf(&name, "zero/%s%s%s.pt", param, *param ? "/" : "", file) <
	    0) {
		name = NULL;
		return -ENOMEM;
	}
	return cfs_ds_tree_add(t, name, &plan);
}

/* The loader takes whatever lies in a parameter's directory for a tensor of
 * its shape, but for `step`. */
static int check_scalars(const struct cfs_ds_step *whole, uint32_t group,
			 struct cfs_error *err)
{
	const struct cfs_node *scalars = whole->ranks[0].groups[group].scalars;

	for (uint32_t i = 0; i < cfs_map_node_count(scalars); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(scalars, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name || strcmp(name, "step") != 0)
			return cfs_fail(err, -ENOTSUP,
					"optimizer state %s is not kept per "
					"element, and a universal checkpoint "
					"has no place for it",
					name ? name : "(no name)");
	}
	return 0;
}

static int add_param(struct cfs_ds_tree *t, uint32_t i)
{
	const struct cfs_catalogue *cat = t->whole->base.ranks[0].catalogue;
	const struct cfs_param *p = cfs_catalogue_param(cat, i);
	int r;

	r = add_file(t, p->name, "fp32", i, CFS_ROLE_MASTER);
	for (uint32_t k = CFS_ROLE_STATE0; !r && k < cfs_catalogue_roles(cat);
	     k++)
		if (cfs_catalogue_has(cat, i, k))
			r = add_file(t, p->name,
				     cfs_catalogue_role_name(cat, k), i, k);
	if (!r && p->group != CFS_GROUP_FROZEN &&
	    cfs_uc_step(&t->whole->ranks[0].groups[p->group]))
		r = add_file(t, p->name, "step", i, CFS_UC_STEP);
	return r;
}

static int add_params(struct cfs_ds_tree *t, struct cfs_error *err)
{
	const struct cfs_catalogue *cat = t->whole->base.ranks[0].catalogue;
	int r = 0;

	for (uint32_t g = 0; !r && g < cfs_catalogue_groups(cat); g++)
		r = check_scalars(t->whole, g, err);
	for (uint32_t i = 0; !r && i < cfs_catalogue_params(cat); i++) {
		const char *name = cfs_catalogue_param(cat, i)->name;

		if (strchr(name, '/') || !strcmp(name, ".") ||
		    !strcmp(name, ".."))
			return cfs_fail(err, -ENOTSUP,
					"parameter %s: no directory can be "
					"called that",
					name);
		/* frozen ones that are not in order are with the module */
		if (cfs_catalogue_has(cat, i, CFS_ROLE_MASTER) ||
		    cfs_catalogue_has(cat, i, CFS_ROLE_WEIGHT))
			r = add_param(t, i);
	}
	return r < 0 ? r : add_file(t, "", "optimizer_state", 0, CFS_UC_COMMON);
}

/* ---- model states ---- */

static int add_model(struct cfs_ds_tree *t, uint32_t mp, bool zero3)
{
	struct cfs_ds_plan plan = {
		.part = CFS_DS_PART_MODEL, .mp = mp, .zero3 = zero3};
	struct cfs_ds_name name = {
		.kind = zero3 ? CFS_DS_MODEL_ZERO3 : CFS_DS_MODEL, .mp = mp};
	char buf[128];

	return cfs_ds_tree_add(t, cfs_ds_name_format(&name, buf, sizeof(buf)),
			       &plan);
}

/* What stages up to 2 write, and what stage 3 does.  A pipeline has no stage
 * 3. */
static void topologies(const struct cfs_topology *to, struct cfs_topology *flat,
		       struct cfs_topology *zero3)
{
	*flat = *to;
	flat->round_robin = flat->param_alignment = false;
	if (to->optimizer == CFS_OPT_STAGE0 || to->optimizer == CFS_OPT_ZERO3) {
		flat->zero_stage = to->zero_stage ? 2 : 1;
		flat->optimizer = CFS_OPT_ZERO12;
	}
	*zero3 = *flat;
	zero3->zero_stage = 3;
	zero3->optimizer = CFS_OPT_ZERO3;
	if (!zero3->sub_group_size)
		zero3->sub_group_size = 1000000000;
}

static int add_models(struct cfs_ds_tree *t)
{
	int r = 0;

	for (uint32_t mp = 0; !r && mp < t->base.step->n_ranks; mp++) {
		r = add_model(t, mp, false);
		if (!r && !t->base.target.topology.pipeline)
			r = add_model(t, mp, true);
	}
	return r;
}

/* ---- all ---- */

/* @step with the model-parallel ranks asked for, and with one that has all. */
static int make_steps(struct cfs_ds_step *step,
		      const struct cfs_resolved *target,
		      struct cfs_ds_step **ranks, struct cfs_ds_step **whole,
		      struct cfs_error *err)
{
	const struct cfs_topology *from = &step->base.topology;
	const struct cfs_topology *to = &target->topology;
	struct cfs_ds_parallel parallel = {.tp = to->tp,
					   .pp = to->pipeline ? to->pp : 0,
					   .vocabulary = target->vocabulary,
					   .qkv_in_parts = target->qkv_in_parts,
					   .bias_sum = target->bias_sum,
					   .options = target->options};
	int r = 0;

	if (from->tp == to->tp && from->pp == to->pp &&
	    from->pipeline == to->pipeline && !target->options &&
	    !step->only_masters)
		*ranks = cfs_ds_step_of(cfs_step_ref(&step->base));
	else
		r = cfs_ds_remodel(step, &parallel, ranks, err);
	if (r < 0)
		return r;
	parallel.pp = to->pipeline;
	parallel.whole = true;
	r = cfs_ds_remodel(step, &parallel, whole, err);
	if (r < 0)
		cfs_step_unref(&cfs_steal(*ranks)->base);
	return r;
}

static int check(const struct cfs_ds_step *ranks,
		 const struct cfs_topology *flat,
		 const struct cfs_topology *zero3, struct cfs_error *err)
{
	int r = cfs_ds_write_possible(ranks, flat, false, err);

	return r < 0 || flat->pipeline
		       ? r
		       : cfs_ds_write_possible(ranks, zero3, false, err);
}

int cfs_uc_plan(struct cfs_step *step, const struct cfs_resolved *target,
		struct cfs_tree **tree_out, struct cfs_error *err)
{
	struct cfs_resolved shown = *target;
	struct cfs_ds_step *ranks = NULL, *whole = NULL;
	struct cfs_topology zero3;
	struct cfs_ds_tree *t = NULL;
	int r;

	topologies(&target->topology, &shown.topology, &zero3);
	r = make_steps(cfs_ds_step_of(step), target, &ranks, &whole, err);
	if (r < 0)
		return r;
	r = check(ranks, &shown.topology, &zero3, err);
	if (!r)
		r = cfs_ds_tree_new(&ranks->base, &shown, &t);
	cfs_step_unref(&ranks->base);
	if (r) {
		cfs_step_unref(&whole->base);
		return r;
	}
	t->whole = whole;
	t->zero3 = zero3;
	r = add_params(t, err);
	if (!r)
		r = add_models(t);
	if (r < 0) {
		cfs_tree_unref(&t->base);
		return r;
	}
	return cfs_ds_tree_seal(t, tree_out);
}
