/*
 * Families of models that DeepSpeed trains by tensor and pipeline parallelism:
 * which rules their parameters follow, and how their layers are numbered.
 * Private to fs/format/deepspeed.
 */
#ifndef CFS_FORMAT_DEEPSPEED_FAMILY_H
#define CFS_FORMAT_DEEPSPEED_FAMILY_H

#include "fs/format/deepspeed/deepspeed.h"
#include "fs/reslice/rules.h"

struct cfs_ds_family {
	const char *name;
	const struct cfs_rule *rules;
	/* Is there a parameter of this name in its layer?  The family then. */
	const char *mark;
	/* The final norm's, and how many layers there are behind it. */
	const char *norm;
	uint32_t behind;
	/* A tied embedding's key; it is used by the last layer once more. */
	const char *tied_key;
	/* What is kept equal of a tied layer. */
	const char *tied_name;
	/* How its pipelines are cut unless told otherwise; and by which names:
	 * that of layer @layer of @n's class or function, NULL: @block. */
	const char *method, *block;
	const char *(*type)(uint32_t layer, uint32_t n, bool tied);
	/* Fills in what the model states say. */
	void (*facts)(const struct cfs_ds_step *step,
		      struct cfs_model_facts *out);
};

extern const struct cfs_ds_family cfs_ds_neox;

/* The family of a step, or NULL. */
const struct cfs_ds_family *cfs_ds_family_of(const struct cfs_ds_step *step);

#endif
