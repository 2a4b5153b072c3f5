/*
 * Loss scaling.  ZeRO pickles its scaler object, stage 0 writes some of the
 * same facts as plain values; bf16 and fp32 have a scaler that does nothing.
 */
#include "fs/format/deepspeed/write.h"

#include <string.h>

/* What a stage 0 source says, or NULL. */
static struct cfs_node *source0(const struct cfs_ds_out *out)
{
	return out->rank->optim_state
		       ? NULL
		       : cfs_node_get(out->rank->model_root, "optimizer");
}

/* An item of the fp16 section of the config, or @otherwise. */
static struct cfs_node *fp16_item(const struct cfs_ds_out *out,
				  const char *path, struct cfs_node *otherwise)
{
	struct cfs_node *have = cfs_ds_config_get(out->step->ds_config, path);

	return have ? have : otherwise;
}

static struct cfs_node *or_int(struct cfs_ds_out *out, struct cfs_node *node,
			       int64_t otherwise)
{
	return node ? node : cfs_node_int(out->doc, otherwise);
}

static struct cfs_node *static_scaler(struct cfs_ds_out *out,
				      struct cfs_node *scale)
{
	struct cfs_node *state = cfs_node_dict(out->doc);

	cfs_node_set_str(out->doc, state, "cur_scale",
			 scale ? scale : cfs_node_float(out->doc, 1.0));
	cfs_node_set_str(out->doc, state, "dynamic",
			 cfs_node_bool(out->doc, false));
	return cfs_ds_out_object(out, "deepspeed.runtime.fp16.loss_scaler",
				 "LossScaler", state);
}

/* DynamicLossScaler with what stage 0 kept; the rest as it starts. */
static struct cfs_node *dynamic_scaler(struct cfs_ds_out *out,
				       const struct cfs_node *src)
{
	struct cfs_pickle *doc = out->doc;
	struct cfs_node *s = cfs_node_dict(doc), *shift, *factor;

	shift = fp16_item(out, "fp16.hysteresis", cfs_node_int(doc, 2));
	factor = cfs_node_get(src, "scale_factor");
	cfs_node_set_str(doc, s, "cur_scale", cfs_node_get(src, "cur_scale"));
	cfs_node_set_str(doc, s, "dynamic", cfs_node_bool(doc, true));
	cfs_node_set_str(doc, s, "cur_iter",
			 or_int(out, cfs_node_get(src, "cur_iter"), 0));
	cfs_node_set_str(
		doc, s, "last_overflow_iter",
		or_int(out, cfs_node_get(src, "last_overflow_iter"), -1));
	cfs_node_set_str(doc, s, "scale_factor",
			 factor ? factor : cfs_node_float(doc, 2.0));
	cfs_node_set_str(doc, s, "scale_window",
			 or_int(out, cfs_node_get(src, "scale_window"), 1000));
	cfs_node_set_str(
		doc, s, "min_scale",
		fp16_item(out, "fp16.min_loss_scale", cfs_node_int(doc, 1)));
	cfs_node_set_str(doc, s, "delayed_shift", shift);
	cfs_node_set_str(doc, s, "cur_hysteresis", shift);
	cfs_node_set_str(doc, s, "consecutive_hysteresis",
			 fp16_item(out, "fp16.consecutive_hysteresis",
				   cfs_node_bool(doc, false)));
	cfs_node_set_str(doc, s, "raise_error_at_min_scale",
			 cfs_node_bool(doc, true));
	cfs_node_set_str(doc, s, "dtype",
			 cfs_node_global(doc, "torch", "float16"));
	return cfs_ds_out_object(out, "deepspeed.runtime.fp16.loss_scaler",
				 "DynamicLossScaler", s);
}

void cfs_ds_write_scaler(struct cfs_ds_out *out, struct cfs_node *inner)
{
	const struct cfs_node *src = out->rank->optim_state;
	const struct cfs_node *from0 = source0(out);
	struct cfs_node *scaler = cfs_node_get(src, "loss_scaler");
	struct cfs_node *overflow = cfs_node_get(src, "overflow");
	bool dynamic = false;

	if (!cfs_node_as_bool(cfs_node_get(src, "dynamic_loss_scale"),
			      &dynamic))
		(void)cfs_node_as_bool(
			cfs_node_get(from0, "dynamic_loss_scale"), &dynamic);
	if (!scaler && dynamic && cfs_node_get(from0, "cur_scale"))
		scaler = dynamic_scaler(out, from0);
	if (!scaler)
		scaler = static_scaler(
			out, out->step->base.dtype == CFS_F16
				     ? cfs_node_get(from0, "cur_scale")
				     : NULL);
	cfs_node_set_str(out->doc, inner, "loss_scaler", scaler);
	cfs_node_set_str(out->doc, inner, "dynamic_loss_scale",
			 cfs_node_bool(out->doc, dynamic));
	cfs_node_set_str(out->doc, inner, "overflow",
			 overflow ? overflow : cfs_node_bool(out->doc, false));
}

void cfs_ds_write_scale0(struct cfs_ds_out *out, struct cfs_node *optim)
{
	static const char *const kept[] = {"last_overflow_iter", "scale_factor",
					   "scale_window"};
	struct cfs_node *src = source0(out), *value;
	int64_t steps = CFS_MAX(out->step->base.global_steps, 0);
	bool dynamic = false;

	/* the scaler object and stage 0 name their facts alike */
	if (src) {
		(void)cfs_node_as_bool(cfs_node_get(src, "dynamic_loss_scale"),
				       &dynamic);
	} else {
		src = cfs_node_state(
			cfs_node_get(out->rank->optim_state, "loss_scaler"));
		(void)cfs_node_as_bool(cfs_node_get(src, "dynamic"), &dynamic);
	}
	value = cfs_node_get(src, "cur_scale");
	cfs_node_set_str(out->doc, optim, "dynamic_loss_scale",
			 cfs_node_bool(out->doc, dynamic));
	cfs_node_set_str(out->doc, optim, "cur_scale",
			 value ? value : cfs_node_float(out->doc, 1.0));
	cfs_node_set_str(out->doc, optim, "cur_iter",
			 or_int(out, cfs_node_get(src, "cur_iter"), steps));
	for (size_t i = 0; dynamic && i < CFS_ARRAY_SIZE(kept); i++) {
		value = cfs_node_get(src, kept[i]);
		if (value)
			cfs_node_set_str(out->doc, optim, kept[i], value);
	}
}
