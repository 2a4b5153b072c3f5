/*
 * What gradients are clipped to.  Stage 3 stores it nowhere; then it is what
 * the engine was configured with, or its release's default: 0 (off) up to
 * 0.19.2, 1 from 0.19.3 on.  GPT-NeoX's own configuration does not tell: it
 * hands on only what differs from its own default of 1, so that under older
 * releases 1 there means 0.
 */
#include "fs/format/deepspeed/write.h"

/* The last release whose default is known. */
#define LAST_KNOWN "0.19.8"

static struct cfs_node *stated(const struct cfs_ds_step *step,
			       const struct cfs_ds_rank *rank)
{
	struct cfs_node *clip = cfs_node_get(rank->optim_state, "clip_grad");

	/* stage 0 keeps it in the model states, or not at all */
	if (!clip)
		clip = cfs_node_get(cfs_node_get(rank->model_root, "optimizer"),
				    "clip_grad");
	if (!clip)
		clip = cfs_ds_config_get(step->ds_config, "gradient_clipping");
	return clip;
}

static bool has_default(const struct cfs_ds_step *step, double *out)
{
	const char *version = step->base.writer_version;

	if (!step->ds_config || !version ||
	    cfs_node_get(step->ds_config, CFS_DS_CONFIG_MADE) ||
	    cfs_ds_version_cmp(version, LAST_KNOWN) > 0)
		return false;
	*out = cfs_ds_version_cmp(version, "0.19.3") < 0 ? 0.0 : 1.0;
	return true;
}

bool cfs_ds_knows_clip(const struct cfs_ds_step *step,
		       const struct cfs_ds_rank *rank)
{
	double unused;

	return stated(step, rank) || has_default(step, &unused);
}

struct cfs_node *cfs_ds_write_clip(struct cfs_ds_out *out)
{
	struct cfs_node *clip = stated(out->step, out->rank);
	double value;

	if (!clip && has_default(out->step, &value))
		clip = cfs_node_float(out->doc, value);
	return clip;
}
