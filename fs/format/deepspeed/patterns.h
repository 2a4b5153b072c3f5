/*
 * What a checkpoint itself says of how tensor-parallel ranks share parameters:
 * lists of expressions in `universal_checkpoint_info` of its model states,
 * which its writer keeps for DeepSpeed's converter to universal checkpoints.
 * Private to fs/format/deepspeed.
 *
 * Rules: DeepSpeed 0.19.8 checkpoint/{constants,ds_to_universal}.py.
 */
#ifndef CFS_FORMAT_DEEPSPEED_PATTERNS_H
#define CFS_FORMAT_DEEPSPEED_PATTERNS_H

#include "fs/format/deepspeed/family.h"

struct cfs_ds_patterns;

/* Of model states @root: *out stays NULL where they say nothing.  -ENOTSUP: an
 * expression that is not understood, named in @err. */
CFS_MUST_CHECK int cfs_ds_patterns_new(const struct cfs_node *root,
				       struct cfs_ds_patterns **out,
				       struct cfs_error *err);
void cfs_ds_patterns_free(struct cfs_ds_patterns *p);
void cfs_ds_patterns_freep(struct cfs_ds_patterns **p);

/*
 * The rule of the parameter whose whole name is @name, in *@rule_out; NULL: no
 * pattern names it.  -ENOTSUP: several say different things.
 */
CFS_MUST_CHECK int cfs_ds_patterns_find(const struct cfs_ds_patterns *p,
					const char *name,
					const struct cfs_rule **rule_out,
					struct cfs_error *err);
/* Do they list what ranks have whole?  Then the converter takes what no list
 * names as cut by rows. */
bool cfs_ds_patterns_complete(const struct cfs_ds_patterns *p);

#endif
