/* Sizes and options that decide how a step's state is laid out in files. */
#ifndef CFS_RESLICE_TOPOLOGY_H
#define CFS_RESLICE_TOPOLOGY_H

#include <stdbool.h>
#include <stdint.h>

/* Which class of DeepSpeed wrote, or is to read, the optimizer state. */
enum cfs_optimizer_class {
	CFS_OPT_NONE,	/* no optimizer state */
	CFS_OPT_STAGE0, /* FP16_Optimizer or a bare torch optimizer */
	CFS_OPT_ZERO12, /* DeepSpeedZeroOptimizer, stages 1 and 2 */
	CFS_OPT_BF16,	/* BF16_Optimizer (stage 1 with fp32 gradients) */
	CFS_OPT_ZERO3,	/* DeepSpeedZeroOptimizer_Stage3 */
};

const char *cfs_optimizer_class_name(enum cfs_optimizer_class cls);

struct cfs_topology {
	uint32_t dp, tp, pp;
	bool pipeline;	/* parameters lie in layer files; pp may be 1 */
	int zero_stage; /* 0 to 3 */
	enum cfs_optimizer_class optimizer;
	bool round_robin;
	uint64_t sub_group_size; /* stage 3 */
	bool param_alignment;
	bool universal; /* one file a tensor, for any of the above */
};

bool cfs_topology_equal(const struct cfs_topology *a,
			const struct cfs_topology *b);

/* Where an item of a resolved request came from; shown by explain. */
enum cfs_origin {
	CFS_FROM_REQUEST,
	CFS_FROM_SOURCE,
	CFS_FROM_CONFIG,  /* the ds_config saved in the checkpoint */
	CFS_FROM_DEFAULT, /* DeepSpeed's default */
	CFS_FROM_TEMPLATE,
};
const char *cfs_origin_name(enum cfs_origin origin);

/*
 * What a view's name asks for: -1 (or 0 for sizes) means "not named".
 * fs/view/name.c parses it; a format's resolve() completes it.
 */
struct cfs_request {
	uint32_t dp, tp;	 /* 0: not named */
	int pp;			 /* -1; 0: layers in sequence, no pipeline */
	int zero_stage;		 /* -1: not named */
	int bf16_optimizer;	 /* 1 @bf16opt, 0 @zeroopt, -1 */
	int round_robin;	 /* 1 @rr, 0 @norr, -1 */
	uint64_t sub_group_size; /* 0: not named */
	/* What a model's checkpoints do not tell: */
	uint64_t vocabulary; /* without padding; 0: not named */
	int qkv_in_parts;    /* 1 @qkvparts, 0 @qkvheads, -1 */
	int bias_sum;	     /* 1 @biassum, 0 @biassame, -1 */
	int universal;	     /* 1 @universal, -1 */
	/* What a named view says beside its items, as text that lives as long
	 * as the process (fs/format/options.h); or NULL. */
	const char *options;
};

#define CFS_REQUEST_INIT                                                       \
	{                                                                      \
		.pp = -1, .zero_stage = -1, .bf16_optimizer = -1,              \
		.round_robin = -1, .qkv_in_parts = -1, .bias_sum = -1,         \
		.universal = -1                                                \
	}

/* A completed request, with the origin of each item. */
struct cfs_resolved {
	struct cfs_topology topology;
	uint64_t vocabulary; /* as the request has them */
	int qkv_in_parts, bias_sum;
	const char *options; /* NULL: they decide nothing here */
	enum cfs_origin dp, tp, pp, zero_stage, optimizer, round_robin,
		sub_group_size;
};

#endif
