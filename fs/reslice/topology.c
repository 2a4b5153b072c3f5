/* Names and comparison of topologies. */
#include "fs/reslice/topology.h"

const char *cfs_optimizer_class_name(enum cfs_optimizer_class cls)
{
	switch (cls) {
	case CFS_OPT_NONE:
		return "none";
	case CFS_OPT_STAGE0:
		return "unpartitioned";
	case CFS_OPT_ZERO12:
		return "DeepSpeedZeroOptimizer";
	case CFS_OPT_BF16:
		return "BF16_Optimizer";
	case CFS_OPT_ZERO3:
		return "DeepSpeedZeroOptimizer_Stage3";
	}
	return "?";
}

bool cfs_topology_equal(const struct cfs_topology *a,
			const struct cfs_topology *b)
{
	if (a->dp != b->dp || a->tp != b->tp || a->pp != b->pp ||
	    a->pipeline != b->pipeline || a->zero_stage != b->zero_stage ||
	    a->optimizer != b->optimizer || a->universal != b->universal)
		return false;
	/* Options count only where they decide the layout. */
	if (a->optimizer == CFS_OPT_ZERO3)
		return a->sub_group_size == b->sub_group_size;
	if (a->optimizer == CFS_OPT_ZERO12)
		return a->round_robin == b->round_robin &&
		       a->param_alignment == b->param_alignment;
	return true;
}

const char *cfs_origin_name(enum cfs_origin origin)
{
	switch (origin) {
	case CFS_FROM_REQUEST:
		return "request";
	case CFS_FROM_SOURCE:
		return "source";
	case CFS_FROM_CONFIG:
		return "ds_config";
	case CFS_FROM_DEFAULT:
		return "default";
	case CFS_FROM_TEMPLATE:
		return "template";
	}
	return "?";
}
