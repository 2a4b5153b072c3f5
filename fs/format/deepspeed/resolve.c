/* Completes a view's request: what is not named keeps the source's value, then
 * what ds_config says, then DeepSpeed's default. */
#include "fs/format/deepspeed/deepspeed.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fs/format/options.h"
#include "store/util/error.h"

/* A const step is downcast below. */
static_assert(offsetof(struct cfs_ds_step, base) == 0, "base comes first");

#define DEFAULT_SUB_GROUP_SIZE 1000000000u

struct resolving {
	const struct cfs_ds_step *step;
	const struct cfs_topology *from;
	const struct cfs_request *request;
	struct cfs_resolved *out;
	struct cfs_error *err;
};

static const struct cfs_node *config(const struct resolving *rs,
				     const char *path)
{
	return cfs_ds_config_get(rs->step->ds_config, path);
}

static int resolve_ranks(struct resolving *rs)
{
	const struct cfs_request *q = rs->request;
	struct cfs_topology *t = &rs->out->topology;

	if (q->tp) {
		t->tp = q->tp;
		rs->out->tp = CFS_FROM_REQUEST;
	}
	if (q->pp >= 0) {
		t->pipeline = q->pp > 0;
		t->pp = CFS_MAX((uint32_t)q->pp, 1u);
		rs->out->pp = CFS_FROM_REQUEST;
	}
	if (q->dp) {
		t->dp = q->dp;
		rs->out->dp = CFS_FROM_REQUEST;
	}
	return 0;
}

/* BF16_Optimizer exists at stage 1 only, so that naming it names the stage. */
static int resolve_stage(struct resolving *rs)
{
	const struct cfs_request *q = rs->request;
	struct cfs_topology *t = &rs->out->topology;

	if (q->zero_stage > 3)
		return cfs_fail(rs->err, -EINVAL,
				"zero%d: ZeRO has stages 0 to 3",
				q->zero_stage);
	if (q->zero_stage >= 0) {
		t->zero_stage = q->zero_stage;
		rs->out->zero_stage = CFS_FROM_REQUEST;
	} else if (q->bf16_optimizer == 1 &&
		   rs->from->optimizer != CFS_OPT_BF16) {
		t->zero_stage = 1;
		rs->out->zero_stage = CFS_FROM_REQUEST;
	}
	if (t->zero_stage > 1 && t->pipeline && !rs->from->pipeline &&
	    q->zero_stage < 0)
		t->zero_stage = 1;
	if (t->zero_stage > 1 && t->pipeline)
		return cfs_fail(rs->err, -EINVAL,
				"zero%d: DeepSpeed's pipeline modules take "
				"ZeRO up to stage 1",
				t->zero_stage);
	if (rs->from->optimizer == CFS_OPT_NONE && t->zero_stage)
		return cfs_fail(rs->err, -ENOTSUP,
				"zero%d: the step has no optimizer state",
				t->zero_stage);
	return 0;
}

/* grad_accum_dtype fp32 is what makes stage 1 of bf16 a BF16_Optimizer. */
static bool config_bf16_optimizer(const struct resolving *rs)
{
	const char *dtype =
		cfs_node_as_str(config(rs, "data_types.grad_accum_dtype"));
	const char *device = cfs_node_as_str(
		config(rs, "zero_optimization.offload_optimizer.device"));

	if (device && strcmp(device, "none") != 0)
		return false;
	return dtype && (!strcmp(dtype, "fp32") || !strcmp(dtype, "float32"));
}

static void set_class(struct resolving *rs, enum cfs_optimizer_class cls,
		      enum cfs_origin origin)
{
	rs->out->topology.optimizer = cls;
	rs->out->optimizer = origin;
}

static int resolve_stage1_class(struct resolving *rs)
{
	const struct cfs_topology *from = rs->from;
	bool bf16 = rs->step->base.dtype == CFS_BF16;

	if (rs->request->bf16_optimizer == 1 && !bf16)
		return cfs_fail(rs->err, -EINVAL,
				"bf16opt: the model is %s, and BF16_Optimizer "
				"is for bf16",
				cfs_dtype_name(rs->step->base.dtype));
	if (rs->request->bf16_optimizer >= 0)
		set_class(rs,
			  rs->request->bf16_optimizer ? CFS_OPT_BF16
						      : CFS_OPT_ZERO12,
			  CFS_FROM_REQUEST);
	else if (from->zero_stage == 1 || from->optimizer == CFS_OPT_BF16)
		set_class(rs, from->optimizer, CFS_FROM_SOURCE);
	else if (bf16 && config_bf16_optimizer(rs))
		set_class(rs, CFS_OPT_BF16, CFS_FROM_CONFIG);
	else
		set_class(rs, CFS_OPT_ZERO12, CFS_FROM_DEFAULT);
	return 0;
}

/* Are these the source's ranks? */
static bool same_ranks(const struct resolving *rs)
{
	const struct cfs_topology *from = rs->from, *to = &rs->out->topology;

	return from->tp == to->tp && from->pp == to->pp && from->dp == to->dp &&
	       from->pipeline == to->pipeline && !rs->request->options;
}

/*
 * Stage 0 of bf16 was a BF16_Optimizer until 0.18.4: kept where it is, never
 * made.  In a pipeline it still is one, but the loader looks for the other's
 * keys, so that not even the framework's own files can be loaded.
 */
static int resolve_stage0_class(struct resolving *rs)
{
	const struct cfs_topology *from = rs->from;
	bool pipeline = rs->out->topology.pipeline;
	bool kept = from->optimizer == CFS_OPT_BF16 && !from->zero_stage &&
		    from->pipeline == pipeline;

	if (rs->request->bf16_optimizer == 1 && !kept)
		return cfs_fail(rs->err, -EINVAL,
				"bf16opt: BF16_Optimizer is for stage 1, not "
				"stage 0");
	if (from->optimizer != CFS_OPT_NONE && pipeline &&
	    rs->step->base.dtype == CFS_BF16 && !(kept && same_ranks(rs)))
		return cfs_fail(rs->err, -ENOTSUP,
				"zero0: DeepSpeed cannot load again what it "
				"saves of a bf16 pipeline without ZeRO; use "
				"zero1");
	if (kept && rs->request->bf16_optimizer != 0) {
		set_class(rs, CFS_OPT_BF16, CFS_FROM_SOURCE);
		return 0;
	}
	if (from->optimizer == CFS_OPT_NONE) {
		set_class(rs, CFS_OPT_NONE, CFS_FROM_SOURCE);
		return 0;
	}
	if (rs->request->bf16_optimizer == 0 && from->zero_stage == 0 &&
	    rs->request->zero_stage < 0)
		return cfs_fail(rs->err, -EINVAL,
				"zeroopt: the step is of stage 0; name the "
				"stage too (zero1, zero2)");
	set_class(rs, CFS_OPT_STAGE0,
		  from->optimizer == CFS_OPT_STAGE0 ? CFS_FROM_SOURCE
						    : CFS_FROM_DEFAULT);
	return 0;
}

static int resolve_class(struct resolving *rs)
{
	int stage = rs->out->topology.zero_stage;

	if (stage == 0)
		return resolve_stage0_class(rs);
	if (stage == 1)
		return resolve_stage1_class(rs);
	if (rs->request->bf16_optimizer == 1)
		return cfs_fail(rs->err, -EINVAL,
				"bf16opt: BF16_Optimizer is for stage 1, not "
				"stage %d",
				stage);
	/* The stage leaves no choice; it is the stage's origin. */
	set_class(rs, stage == 2 ? CFS_OPT_ZERO12 : CFS_OPT_ZERO3,
		  rs->out->zero_stage);
	return 0;
}

static int resolve_round_robin(struct resolving *rs)
{
	struct cfs_topology *t = &rs->out->topology;
	bool v;

	t->round_robin = false;
	rs->out->round_robin = CFS_FROM_DEFAULT;
	if (t->optimizer != CFS_OPT_ZERO12) {
		if (rs->request->round_robin == 1)
			return cfs_fail(rs->err, -EINVAL,
					"rr: round_robin_gradients is for "
					"DeepSpeedZeroOptimizer (stages 1 and "
					"2), not %s",
					cfs_optimizer_class_name(t->optimizer));
		return 0;
	}
	if (rs->request->round_robin >= 0) {
		t->round_robin = rs->request->round_robin;
		rs->out->round_robin = CFS_FROM_REQUEST;
	} else if (rs->from->optimizer == CFS_OPT_ZERO12) {
		t->round_robin = rs->from->round_robin;
		rs->out->round_robin = CFS_FROM_SOURCE;
	} else if (cfs_node_as_bool(
			   config(rs,
				  "zero_optimization.round_robin_gradients"),
			   &v)) {
		t->round_robin = v;
		rs->out->round_robin = CFS_FROM_CONFIG;
	}
	return 0;
}

static int resolve_sub_groups(struct resolving *rs)
{
	struct cfs_topology *t = &rs->out->topology;
	double v;

	t->sub_group_size = DEFAULT_SUB_GROUP_SIZE;
	rs->out->sub_group_size = CFS_FROM_DEFAULT;
	if (t->zero_stage != 3) {
		if (rs->request->sub_group_size)
			return cfs_fail(
				rs->err, -EINVAL,
				"sub%llu: sub_group_size is for stage "
				"3, not stage %d",
				(unsigned long long)rs->request->sub_group_size,
				t->zero_stage);
		return 0;
	}
	if (rs->request->sub_group_size) {
		t->sub_group_size = rs->request->sub_group_size;
		rs->out->sub_group_size = CFS_FROM_REQUEST;
	} else if (rs->from->optimizer == CFS_OPT_ZERO3) {
		t->sub_group_size = rs->from->sub_group_size;
		rs->out->sub_group_size = CFS_FROM_SOURCE;
	} else if (cfs_node_as_real(
			   config(rs, "zero_optimization.sub_group_size"),
			   &v) &&
		   v >= 1 && v < 1e18) {
		t->sub_group_size = (uint64_t)v;
		rs->out->sub_group_size = CFS_FROM_CONFIG;
	}
	return 0;
}

/* There is no item for it: source, then ds_config of a release that knows. */
static void resolve_alignment(struct resolving *rs)
{
	struct cfs_topology *t = &rs->out->topology;
	bool v;

	if (t->optimizer != CFS_OPT_ZERO12)
		t->param_alignment = false;
	else if (rs->from->optimizer != CFS_OPT_ZERO12)
		t->param_alignment =
			cfs_ds_version_cmp(rs->step->base.writer_version,
					   "0.19.7") >= 0 &&
			cfs_node_as_bool(
				config(rs,
				       "zero_optimization.parameter_alignment"),
				&v) &&
			v;
}

/* How many ranks there will be, of which stage, is the loading job's. */
static int resolve_universal(struct resolving *rs)
{
	const struct cfs_request *q = rs->request;
	struct cfs_topology *t = &rs->out->topology;

	t->universal = q->universal > 0;
	if (!t->universal)
		return 0;
	if (q->dp || q->zero_stage >= 0 || q->bf16_optimizer >= 0 ||
	    q->round_robin >= 0 || q->sub_group_size)
		return cfs_fail(rs->err, -EINVAL,
				"universal: such a checkpoint is of no data-"
				"parallel size, ZeRO stage or order; only tpN "
				"and ppN go with it");
	if (t->optimizer == CFS_OPT_NONE)
		return cfs_fail(rs->err, -ENOTSUP,
				"universal: the step has no optimizer state");
	return 0;
}

/* Kept where other ranks have to be made, or other stages. */
static int resolve_options(struct resolving *rs)
{
	_cleanup_(cfs_options_fini) struct cfs_options o = {.old = -1};
	const struct cfs_topology *to = &rs->out->topology;
	const char *text = rs->request->options;
	int r;

	if (!text)
		return 0;
	r = cfs_options_parse(text, &o, rs->err);
	if (r < 0)
		return r;
	if (cfs_options_of_stages(&o) && !to->pipeline)
		return cfs_fail(rs->err, -EINVAL,
				"boundaries and partition methods are for "
				"pipelines: name one (ppN)");
	if (o.bounds && o.n_bounds != to->pp + 1)
		return cfs_fail(rs->err, -EINVAL,
				"--boundaries: %u numbers, and %u stages have "
				"%u",
				o.n_bounds, to->pp, to->pp + 1);
	if (to->universal || cfs_options_of_stages(&o) ||
	    to->tp != rs->from->tp || to->pp != rs->from->pp ||
	    to->pipeline != rs->from->pipeline)
		rs->out->options = text;
	return 0;
}

int cfs_ds_resolve(const struct cfs_step *step,
		   const struct cfs_request *request, struct cfs_resolved *out,
		   struct cfs_error *err)
{
	struct cfs_resolved resolved = {
		.topology = step->topology,
		.vocabulary = request->vocabulary,
		.qkv_in_parts = request->qkv_in_parts,
		.bias_sum = request->bias_sum,
		.dp = CFS_FROM_SOURCE,
		.tp = CFS_FROM_SOURCE,
		.pp = CFS_FROM_SOURCE,
		.zero_stage = CFS_FROM_SOURCE,
	};
	struct resolving rs = {
		.step = (const struct cfs_ds_step *)(const void *)step,
		.from = &step->topology,
		.request = request,
		.out = &resolved,
		.err = err,
	};
	int r;

	r = resolve_ranks(&rs);
	if (!r)
		r = resolve_stage(&rs);
	if (!r)
		r = resolve_class(&rs);
	if (!r)
		r = resolve_round_robin(&rs);
	if (!r)
		r = resolve_sub_groups(&rs);
	if (!r)
		r = resolve_universal(&rs);
	if (!r)
		r = resolve_options(&rs);
	if (r < 0)
		return r;
	resolve_alignment(&rs);
	*out = resolved;
	return 0;
}
