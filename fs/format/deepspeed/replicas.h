/*
 * Are copies equal that a step keeps of one tensor?  Private to
 * fs/format/deepspeed.
 */
#ifndef CFS_FORMAT_DEEPSPEED_REPLICAS_H
#define CFS_FORMAT_DEEPSPEED_REPLICAS_H

#include "fs/format/deepspeed/model.h"

/* What all tensor-parallel ranks have whole: of @model, which is going to be
 * cut for others.  -ENOTSUP: @err names the parameter and two ranks. */
CFS_MUST_CHECK int cfs_ds_check_ranks(const struct cfs_ds_model *model,
				      struct cfs_error *err);
/* What two stages of a pipeline have, likewise. */
CFS_MUST_CHECK int cfs_ds_check_tied(const struct cfs_ds_model *model,
				     struct cfs_error *err);
/* Do both maps, which this seals, make the same bytes? */
CFS_MUST_CHECK int cfs_ds_same_bytes(const struct cfs_ds_step *step,
				     struct cfs_map *a, struct cfs_map *b,
				     bool *same_out, struct cfs_error *err);

#endif
