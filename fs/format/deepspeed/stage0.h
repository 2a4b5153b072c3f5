/*
 * Optimizers that are not partitioned (stage 0): what the matching of states
 * to parameters and the building of the catalogue share.
 */
#ifndef CFS_FORMAT_DEEPSPEED_STAGE0_H
#define CFS_FORMAT_DEEPSPEED_STAGE0_H

#include "fs/format/deepspeed/layer_files.h"
#include "fs/format/deepspeed/read.h"

#define CFS_DS_HEAD 64 /* elements that tell most tensors apart */

/* A parameter the optimizer may own. */
struct cfs_ds_candidate {
	const char *name;
	struct cfs_torch_tensor t;
	struct cfs_file *file;
	bool taken;
	uint8_t *head; /* its first bytes, once they were read */
};

/* First elements of the master last compared with. */
struct cfs_ds_head {
	const struct cfs_torch_storage *storage;
	uint64_t offset, n;
	uint8_t bytes[CFS_DS_HEAD * 8];
};

/* What the optimizer has of one parameter. */
struct cfs_ds_owned {
	struct cfs_ds_candidate *is; /* NULL: not known yet */
	uint32_t group;
	uint64_t pos; /* fused: in the group's flat tensors */
	bool has_master;
	struct cfs_torch_tensor master; /* unfused */
	struct cfs_node *state;		/* unfused, torch */
	uint32_t param;			/* in the catalogue */
};

struct cfs_ds_stage0 {
	struct cfs_ds_step *step;
	uint32_t mp;
	struct cfs_ds_rank *rank;
	struct cfs_catalogue *cat;
	struct cfs_file *file;		       /* the model states */
	struct cfs_ds_layer_files layers;      /* of a pipeline */
	const struct cfs_node *optimizer;      /* wrapper, or the torch dict */
	const struct cfs_node *torch, *groups; /* torch dict, param_groups */
	uint32_t n_groups;
	struct cfs_ds_candidate *candidates; /* in the module's order */
	uint32_t n_candidates;
	struct cfs_ds_owned *owned; /* in the optimizer's order */
	uint32_t n_owned;
	bool fused;
	struct cfs_ds_head head;
	struct cfs_error *err;
};

/* Fills candidates and owned, each owned one with what it is; -ENOTSUP where
 * that is not certain. */
CFS_MUST_CHECK int cfs_ds_stage0_match(struct cfs_ds_stage0 *z);
/* Allocates candidates for @n tensors. */
CFS_MUST_CHECK int cfs_ds_stage0_candidates(struct cfs_ds_stage0 *z, size_t n);
/* One more candidate if @value can be one: @name lives as long as the step. */
void cfs_ds_stage0_candidate(struct cfs_ds_stage0 *z, const char *name,
			     const struct cfs_node *value,
			     struct cfs_file *file);
/* The candidates of a pipeline: what is in its layer files. */
CFS_MUST_CHECK int cfs_ds_stage0_layers(struct cfs_ds_stage0 *z);
/* The part of it for fp32_groups_flat. */
CFS_MUST_CHECK int cfs_ds_stage0_fused(struct cfs_ds_stage0 *z);

/*
 * Is the weight of @c the rounded master at element @pos of @master?  All of
 * it is compared, but of large tensors a part only, unless @whole.
 */
bool cfs_ds_stage0_fits(struct cfs_ds_stage0 *z, struct cfs_ds_candidate *c,
			const struct cfs_torch_tensor *master, uint64_t pos,
			bool whole);

/* The parameter that entry @i of a param_names is, or NULL. */
struct cfs_ds_candidate *cfs_ds_stage0_by_name(struct cfs_ds_stage0 *z,
					       const struct cfs_node *names,
					       uint32_t i);

/* The refusal of parameters @a and @b that nothing tells apart. */
CFS_MUST_CHECK int cfs_ds_stage0_unproven(struct cfs_ds_stage0 *z,
					  const char *a, const char *b,
					  bool has_master);

#endif
