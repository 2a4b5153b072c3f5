/*
 * Universal checkpoints of DeepSpeed: a directory per parameter, a file per
 * tensor, whole.  Private to fs/format.
 */
#ifndef CFS_FORMAT_UNIVERSAL_H
#define CFS_FORMAT_UNIVERSAL_H

#include "fs/format/deepspeed/write.h"

/* What a file below zero/ holds: a role of the catalogue, or one of these. */
#define CFS_UC_STEP   UINT32_MAX       /* the optimizer's count */
#define CFS_UC_COMMON (UINT32_MAX - 1) /* optimizer_state.pt */

/* Of a step's group, or NULL where its optimizer has none. */
struct cfs_node *cfs_uc_step(const struct cfs_ds_group *group);

#endif
