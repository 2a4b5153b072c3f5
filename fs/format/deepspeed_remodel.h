/*
 * A step as other model-parallel ranks would hold it: a step in memory whose
 * tensors are made of those of the one on disk, for the writer to write.
 * Private to fs/format/deepspeed*.c.
 */
#ifndef CFS_FORMAT_DEEPSPEED_REMODEL_H
#define CFS_FORMAT_DEEPSPEED_REMODEL_H

#include "fs/format/deepspeed_model.h"

struct cfs_ds_parallel {
	uint32_t tp;
	uint32_t pp;		/* 0: no pipeline, parameters in sequence */
	const uint32_t *bounds; /* pp + 1 layers; with pp only */
	const struct cfs_rule *rules; /* or NULL */
};

/* Takes a reference to @step; the new one has one of its own.  -ENOTSUP,
 * -EINVAL: @err names the parameter. */
CFS_MUST_CHECK int cfs_ds_remodel(struct cfs_ds_step *step,
				  const struct cfs_ds_parallel *target,
				  struct cfs_ds_step **out,
				  struct cfs_error *err);
/* What cfs_ds_step_free() does with such a step. */
void cfs_ds_remodel_free(struct cfs_ds_step *step);

#endif
