/* Do two ranks begin the same save? */
#ifndef CFS_RANK_AGREE_H
#define CFS_RANK_AGREE_H

#include "fs/rank/op.h"
#include "fs/rank/stage.h"
#include "store/util/base.h"

/* -EINVAL: @err names both ranks and what each of them says. */
CFS_MUST_CHECK int cfs_rank_agree(const struct cfs_stage_options *options,
				  uint32_t first, const struct cfs_op *op,
				  uint32_t rank, struct cfs_error *err);

#endif
