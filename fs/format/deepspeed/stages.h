/*
 * Where the stages of a pipeline begin: as asked, or as DeepSpeed would put
 * them.  Private to fs/format/deepspeed.
 *
 * Rules: DeepSpeed 0.19.8 runtime/pipe/module.py (_partition_layers).
 */
#ifndef CFS_FORMAT_DEEPSPEED_STAGES_H
#define CFS_FORMAT_DEEPSPEED_STAGES_H

#include "fs/format/deepspeed/remodel.h"

/* Is the embedding the head as well? */
bool cfs_ds_is_tied(const struct cfs_ds_model *model);

/*
 * Fills rm->bounds, of rm->pp stages.  -EINVAL: they cannot be; -ENOTSUP: the
 * source's own stages begin elsewhere than the method would put them, so that
 * it is another (@err names the options that decide).
 */
CFS_MUST_CHECK int cfs_ds_stages_find(struct cfs_ds_remodel *rm,
				      struct cfs_error *err);

#endif
