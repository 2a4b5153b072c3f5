/*
 * The whole model of a step: each parameter once, whatever stage and rank has
 * it.  Private to fs/format/deepspeed.
 */
#ifndef CFS_FORMAT_DEEPSPEED_MODEL_H
#define CFS_FORMAT_DEEPSPEED_MODEL_H

#include "fs/format/deepspeed/family.h"
#include "fs/format/deepspeed/layer.h"

/* One parameter, or one copy of a tied one. */
struct cfs_ds_whole {
	struct cfs_ds_layer_name name; /* as the step has it */
	uint32_t group;		       /* or CFS_GROUP_FROZEN */
	uint32_t seq;		       /* in the order met, stage by stage */
	uint32_t stage, index; /* where it lies: of the first stage with it */
	struct cfs_tp_layout from, to;
	const struct cfs_rule *rule;
	bool unruled; /* none names it: the rule is "the same", for no change */
	bool uncut;   /* nobody knows how it is cut: for one rank only */
};

struct cfs_ds_model {
	const struct cfs_ds_step *step; /* borrowed */
	const struct cfs_ds_family *family;
	struct cfs_ds_patterns *patterns; /* or NULL: nothing, or not asked */
	struct cfs_model_facts facts;
	uint32_t n_layers; /* functions among them; 0: not known */
	uint32_t head;	   /* the layer behind the norm */
	uint32_t n;
	struct cfs_ds_whole *v;
	bool pipeline; /* the step's form */
	bool prefixed; /* and this one: not by layer */
	bool halves;   /* family->halves() */
};

struct cfs_ds_parallel;

/*
 * The model of @step, to be cut as @target says: by @rules, or the family's
 * where they are NULL or say nothing.  -ENOTSUP: a parameter no rule names, or
 * that cannot be cut (@err names it); -EINVAL: ranks that differ.
 */
CFS_MUST_CHECK int cfs_ds_model_read(const struct cfs_ds_step *step,
				     const struct cfs_ds_parallel *target,
				     const struct cfs_rule *rules,
				     struct cfs_ds_model *out,
				     struct cfs_error *err);
/* Does layer @layer hold anything?  What is tied is not asked for. */
bool cfs_ds_model_has_layer(const struct cfs_ds_model *model, uint32_t layer);
/* Is it of a tied layer, and not where that is the head? */
bool cfs_ds_is_once(const struct cfs_ds_model *model, const char *name);
void cfs_ds_model_fini(struct cfs_ds_model *model);

#endif
