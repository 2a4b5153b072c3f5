/*
 * The optimizer without ZeRO, inside the model states.  Three forms:
 *
 *   fp32             the torch state dict: one entry a parameter
 *   16 bit, fused    one flat tensor a group (DeepSpeed's, apex's FusedAdam)
 *   16 bit, unfused  one entry a parameter, masters beside them
 *
 * Which of the two 16-bit forms the framework uses follows from the optimizer,
 * known here by its hyper-parameters; one that is not is refused.
 */
#include "fs/format/deepspeed/write.h"

#include <errno.h>

#include "store/util/error.h"

enum form {
	BARE,
	FUSED,
	UNFUSED
};

static bool has(const struct cfs_node *hyper, const char *key)
{
	return cfs_node_get(hyper, key) != NULL;
}

static int form_of(const struct cfs_ds_step *step, enum form *out)
{
	const struct cfs_ds_rank *rank = &step->ranks[0];
	const struct cfs_node *hyper =
		rank->n_groups ? rank->groups[0].hyper : NULL;
	const struct cfs_node *optim =
		cfs_node_get(rank->model_root, "optimizer");

	if (step->base.dtype != CFS_F16 && step->base.dtype != CFS_BF16)
		*out = BARE;
	else if (has(optim, "fp32_groups_flat"))
		*out = FUSED;
	else if (has(optim, "fp32_groups"))
		*out = UNFUSED;
	else if (!has(hyper, "betas") || has(hyper, "max_coeff"))
		return -ENOTSUP; /* no Adam */
	else if (has(hyper, "bias_correction") && !has(hyper, "amsgrad"))
		*out = FUSED;
	else if (has(hyper, "foreach") || has(hyper, "amsgrad"))
		*out = UNFUSED;
	else
		return -ENOTSUP;
	return 0;
}

int cfs_ds_stage0_possible(const struct cfs_ds_step *step,
			   struct cfs_error *err)
{
	const char *version = step->base.writer_version;
	enum form form;

	if (step->base.dtype == CFS_BF16 &&
	    (!version || cfs_ds_version_cmp(version, "0.18.5") < 0))
		return cfs_fail(err, -ENOTSUP,
				"%s: before DeepSpeed 0.18.5 bf16 without ZeRO "
				"is BF16_Optimizer; use @bf16opt",
				step->base.path);
	if (form_of(step, &form) < 0)
		return cfs_fail(err, -ENOTSUP,
				"%s: cannot tell whether DeepSpeed fuses this "
				"optimizer, and so how stage 0 stores it",
				step->base.path);
	if (form == FUSED && !cfs_ds_knows_clip(step, &step->ranks[0]))
		return cfs_fail(err, -ENOTSUP,
				"%s: no file says what gradients are clipped "
				"to (gradient_clipping in ds_config), which "
				"stage 0 stores; use @zero1",
				step->base.path);
	return 0;
}

/* Parameters first … first + n - 1, behind each other. */
struct span {
	const struct cfs_ds_out *out;
	uint32_t first, n;
};

static int fill_span(void *arg, uint32_t role, struct cfs_map *map)
{
	const struct span *s = arg;

	for (uint32_t i = s->first; i < s->first + s->n; i++) {
		int r = cfs_catalogue_append(
			s->out->cat, i, role, 0,
			cfs_catalogue_param(s->out->cat, i)->numel, map);

		if (r < 0)
			return r;
	}
	return 0;
}

/* What is collected over groups; n counts the entries of state. */
struct stage0 {
	struct cfs_node *state, *hypers, *masters;
	uint32_t n;
};

/* One entry of the state with its master: a parameter's, or a group's. */
static int add_entry(struct cfs_ds_out *out, uint32_t group, enum form form,
		     struct span *span, struct cfs_node *masters,
		     struct stage0 *s)
{
	const struct cfs_param *param =
		form == FUSED ? NULL
			      : cfs_catalogue_param(out->cat, span->first);
	struct cfs_node *node;
	int r;

	if (form != BARE) {
		r = cfs_ds_write_master(out, param, fill_span, span, &node);
		if (r < 0)
			return r;
		cfs_node_append(out->doc, masters, node);
	}
	if (cfs_ds_has_state(out, group)) {
		r = cfs_ds_write_state(out, group, param, fill_span, span,
				       &node);
		if (r < 0)
			return r;
		cfs_node_set(out->doc, s->state, cfs_node_int(out->doc, s->n),
			     node);
	}
	s->n++;
	return 0;
}

static int add_group(struct cfs_ds_out *out, uint32_t group, enum form form,
		     struct stage0 *s)
{
	struct cfs_node *masters = s->masters, *hyper;
	struct span span = {.out = out};
	uint32_t first, n, before = s->n, step;
	int r = 0;

	cfs_catalogue_group(out->cat, group, &first, &n);
	step = form == FUSED ? n : 1;
	if (form == UNFUSED) {
		masters = cfs_node_list(out->doc);
		cfs_node_append(out->doc, s->masters, masters);
	}
	for (uint32_t i = first; r >= 0 && i < first + n; i += step) {
		span.first = i;
		span.n = step;
		r = add_entry(out, group, form, &span, masters, s);
	}
	if (r >= 0)
		r = cfs_ds_write_hyper(out, group, before, s->n - before,
				       &hyper);
	if (r < 0)
		return r;
	cfs_node_append(out->doc, s->hypers, hyper);
	return 0;
}

int cfs_ds_write_stage0(struct cfs_ds_out *out, struct cfs_node **optim_out)
{
	struct cfs_pickle *doc = out->doc;
	struct stage0 s = {.state = cfs_node_dict(doc),
			   .hypers = cfs_node_list(doc),
			   .masters = cfs_node_list(doc)};
	struct cfs_node *base = cfs_node_dict(doc), *optim;
	enum form form;
	int r;

	r = form_of(out->step, &form);
	for (uint32_t g = 0; r >= 0 && g < cfs_catalogue_groups(out->cat); g++)
		r = add_group(out, g, form, &s);
	if (r < 0)
		return r;
	cfs_node_set_str(doc, base, "state", s.state);
	cfs_node_set_str(doc, base, "param_groups", s.hypers);
	*optim_out = base;
	if (form == BARE)
		return base ? 0 : -ENOMEM;
	optim = cfs_node_dict(doc);
	/* bf16 has no gradient scaling; the unfused class counts all the same
	 */
	if (form == UNFUSED || out->step->base.dtype == CFS_F16)
		cfs_ds_write_scale0(out, optim);
	cfs_node_set_str(doc, optim, "optimizer_state_dict", base);
	cfs_node_set_str(doc, optim,
			 form == FUSED ? "fp32_groups_flat" : "fp32_groups",
			 s.masters);
	if (form == FUSED)
		cfs_node_set_str(doc, optim, "clip_grad",
				 cfs_ds_write_clip(out));
	*optim_out = optim;
	return optim ? 0 : -ENOMEM;
}
