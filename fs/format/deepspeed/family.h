/*
 * Families of models that DeepSpeed trains by tensor and pipeline parallelism:
 * which rules their parameters follow, and how their layers are numbered.
 * Private to fs/format/deepspeed.
 */
#ifndef CFS_FORMAT_DEEPSPEED_FAMILY_H
#define CFS_FORMAT_DEEPSPEED_FAMILY_H

#include "fs/format/deepspeed/deepspeed.h"
#include "fs/reslice/rules.h"

struct cfs_ds_model;
struct cfs_ds_out;

struct cfs_ds_family {
	const char *name;
	const struct cfs_rule *rules;
	/* Is there a parameter of this name in its layer?  The family then. */
	const char *mark;
	/* The final norm's, and how many layers there are behind it. */
	const char *norm;
	uint32_t behind;
	/* The embedding's layer. */
	uint32_t embedding;
	/* One more layer, a function, where weights are not fp32. */
	bool cast;
	/* It exists in sequence (pp0) under names by layer. */
	bool sequence;
	/* A tied embedding's key; it is used by the last layer once more. */
	const char *tied_key;
	/* What is kept equal of a tied layer. */
	const char *tied_name;
	/* What of it only the embedding itself has, not the head; or NULL. */
	const char *tied_once;
	/* How its pipelines are cut unless told otherwise; and by which names:
	 * that of layer @layer's class or function, NULL: @block. */
	const char *method, *block;
	const char *(*type)(const struct cfs_ds_model *model, uint32_t layer,
			    bool tied);
	/* The method this step was cut by, or NULL: it does not say. */
	const char *(*told_method)(const struct cfs_ds_step *step);
	/* Are the first two of its groups the halves of each stage's decayed
	 * parameters, by number? */
	bool (*halves)(const struct cfs_ds_model *model);
	/* universal_checkpoint_info for the target's size; or NULL. */
	struct cfs_node *(*tell)(struct cfs_ds_out *out, struct cfs_node *info);
	/* Fills in what the model states say. */
	void (*facts)(const struct cfs_ds_step *step,
		      struct cfs_model_facts *out);
};

extern const struct cfs_ds_family cfs_ds_neox;
extern const struct cfs_ds_family cfs_ds_megatron;

/* The family of a step, or NULL. */
const struct cfs_ds_family *cfs_ds_family_of(const struct cfs_ds_step *step);

#endif
