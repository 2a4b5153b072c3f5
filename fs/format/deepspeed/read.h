/*
 * Reading DeepSpeed steps, in parts.  Private to fs/format/deepspeed.
 *
 *   list     names of the directory -> which files there must be
 *   files    versions, parsing, threads
 *   layout   param_shapes and the first rank's optimizer file -> units: what
 *            flat tensors there are, in which order parameters lie in them
 *   fit      whether the tensors there are can hold what param_shapes list
 *   members  which group a parameter is in, where param_shapes do not say it
 *   agree    whether all files are of one save
 *   part     one rank's optimizer file -> where its flat tensors lie
 *   build    layout + parts -> catalogue
 *   weights  model states -> weight role, frozen parameters
 *   stage0   model states of unpartitioned optimizers -> catalogue
 */
#ifndef CFS_FORMAT_DEEPSPEED_READ_H
#define CFS_FORMAT_DEEPSPEED_READ_H

#include "fs/format/deepspeed/deepspeed.h"
#include "fs/reslice/partition.h"

struct cfs_arena;

/* ---- list.c ---- */

struct cfs_ds_entry {
	char *name;
	struct cfs_ds_name parsed;
};

/* Sorted by kind, mp, dp (layers: by tp rank, layer). */
struct cfs_ds_list {
	struct cfs_ds_entry *entries;
	uint32_t n, cap;
	bool zero_dir; /* has a directory "zero": a universal checkpoint */
	bool pieces;   /* has files cut by parallel writers: NAME-w.W */
};

CFS_MUST_CHECK int cfs_ds_list_read(struct cfs_source *source, const char *path,
				    struct cfs_ds_list *out);
void cfs_ds_list_fini(struct cfs_ds_list *list);
const struct cfs_ds_entry *cfs_ds_list_find(const struct cfs_ds_list *list,
					    enum cfs_ds_kind kind, uint32_t mp,
					    uint32_t dp);
/* First entry of a kind and how many there are. */
const struct cfs_ds_entry *cfs_ds_list_kind(const struct cfs_ds_list *list,
					    enum cfs_ds_kind kind,
					    uint32_t *n_out);

/* What the names say. */
struct cfs_ds_names {
	uint32_t n_mp, n_dp; /* n_dp 0: no optimizer files */
	bool zero3, bf16;
};

/* 0; -ENOENT when one is missing in between, -EINVAL when the names contradict
 * each other, -ENOTSUP for what is not read: @err names the file. */
CFS_MUST_CHECK int cfs_ds_list_check(const struct cfs_ds_list *list,
				     struct cfs_ds_names *out,
				     struct cfs_error *err);

/* How many tensor-parallel ranks the names of layer files speak for; without
 * such files all @n_mp. */
uint32_t cfs_ds_list_tp(const struct cfs_ds_list *list, uint32_t n_mp);
/* -ENOENT unless every one of @tp ranks has the layers of a pipeline's stage,
 * as the param_shapes of its model states tell them. */
CFS_MUST_CHECK int cfs_ds_list_layers(const struct cfs_ds_list *list,
				      const struct cfs_node *model_root,
				      uint32_t tp, struct cfs_error *err);

/* ---- read_files.c ---- */

/* Fills step->ranks[].model and .optim (names, rows of the file table) and
 * the step's mode, owner, time and identity. */
CFS_MUST_CHECK int cfs_ds_files_settle(struct cfs_ds_step *step,
				       const struct cfs_ds_list *list,
				       const struct cfs_ds_names *names,
				       struct cfs_error *err);
/* ---- read_layout.c ---- */

struct cfs_ds_shape {
	const char *name; /* in the model states' tree */
	uint32_t ndim;
	const uint64_t *shape;
	uint64_t numel;
	uint64_t pos;	  /* in the unit's flat tensor (stage 3: per rank) */
	uint64_t pad;	  /* elements behind it */
	uint64_t own_pos; /* as if nothing had been shuffled */
	uint32_t param;	  /* in the catalogue, once built */
};

/* One flat tensor cut over the ranks: a group, or in stage 3 a sub-group. */
struct cfs_ds_unit {
	uint32_t group;
	uint32_t n;
	struct cfs_ds_shape *shapes; /* in flat order */
	/* own[j]: which of shapes[] is the group's j-th if round robin is on */
	uint32_t *own;
	struct cfs_flat flat;	/* stages 1 and 2, BF16_Optimizer */
	uint64_t len;		/* elements each rank holds, of each cut */
	struct cfs_node *state; /* first rank's state dict, or NULL */
	/* Interleaved: how often each rank holds a piece; else 1. */
	struct cfs_interleaved il;
	uint32_t cuts, first_cut; /* counted over the units before */
};

/* The flat tensor of one role on one rank. */
struct cfs_ds_piece {
	uint64_t off; /* bytes in the file */
	uint64_t numel;
	enum cfs_dtype dtype; /* CFS_DTYPE_NONE: the unit lacks this role */
};

/* One dp rank's file. */
struct cfs_ds_part {
	struct cfs_ds_piece *pieces;	/* cfs_ds_piece_of() */
	bool mapped;			/* has param_slice_mappings */
	bool maps_plain, maps_shuffled; /* which orders they agree with */
};

struct cfs_ds_layout {
	struct cfs_ds_step *step;
	uint32_t mp;
	struct cfs_ds_rank *rank;
	enum cfs_optimizer_class cls;
	uint32_t dp;
	struct cfs_arena *arena;
	uint32_t n_units, n_groups;
	struct cfs_ds_unit *units;
	const char *roles[CFS_ROLES_MAX]; /* names; [1] is the master */
	uint32_t n_roles;
	struct cfs_ds_part *parts; /* dp */
	bool aligned;		   /* some parameter is padded */
	bool interleaved;	   /* stage 1 up to 0.3.16 */
};

/* What rank @dp has of @role as its @cut-th of unit @u. */
static inline struct cfs_ds_piece *
cfs_ds_piece_of(const struct cfs_ds_layout *layout, uint32_t dp, uint32_t u,
		uint32_t cut, uint32_t role)
{
	return &layout->parts[dp]
			.pieces[(size_t)(layout->units[u].first_cut + cut) *
					layout->n_roles +
				role];
}

CFS_MUST_CHECK int cfs_ds_layout_read(struct cfs_ds_layout *layout,
				      struct cfs_error *err);
void cfs_ds_layout_fini(struct cfs_ds_layout *layout);

/* ---- read_fit.c ---- */

/* Do the first rank's tensors of unit @u hold @total elements?  Fills in how
 * they are cut; -EINVAL if they do not. */
CFS_MUST_CHECK int cfs_ds_fit(struct cfs_ds_layout *layout, uint32_t u,
			      uint64_t total, struct cfs_error *err);

/* ---- read_members.c ---- */

/* One dictionary of all groups' @shapes as a list of one each, in flat order;
 * -ENOTSUP where that is not certain. */
CFS_MUST_CHECK int cfs_ds_members(struct cfs_ds_layout *layout,
				  const struct cfs_node *shapes,
				  struct cfs_node **list_out,
				  struct cfs_error *err);
/* Once all is read: where a rule alone said who is a member, weights must be
 * the rounded masters. */
CFS_MUST_CHECK int cfs_ds_members_prove(const struct cfs_ds_step *step,
					uint32_t mp, struct cfs_error *err);

/* ---- read_unnamed.c ---- */

/* Does the rank's model file hold what its optimizer file does? */
bool cfs_ds_is_twice(const struct cfs_ds_rank *rank);
/* param_shapes as they would be, where the step has none: BF16_Optimizer in
 * stage 0 of a pipeline.  -ENOTSUP where they cannot be told. */
CFS_MUST_CHECK int cfs_ds_unnamed_shapes(const struct cfs_ds_layout *layout,
					 struct cfs_node **shapes_out,
					 struct cfs_error *err);

/* ---- read_part.c ---- */

/* fragment_address{numel, start} */
bool cfs_ds_fragment(const struct cfs_node *node, uint64_t *numel,
		     uint64_t *start);

/* ---- read_roles.c ---- */

/* Adds the names of what is sharded in unit->state to layout->roles. */
CFS_MUST_CHECK int cfs_ds_read_roles(struct cfs_ds_layout *layout,
				     struct cfs_ds_unit *unit,
				     struct cfs_error *err);
/* Its role index, or 0 when there is none. */
uint32_t cfs_ds_layout_role(const struct cfs_ds_layout *layout,
			    const char *name);
/* State dict of a unit's piece in an inner optimizer dict, or NULL. */
struct cfs_node *cfs_ds_unit_state(const struct cfs_ds_layout *layout,
				   const struct cfs_node *inner, uint32_t unit,
				   uint32_t cut);
struct cfs_node *cfs_ds_unit_master(const struct cfs_ds_layout *layout,
				    const struct cfs_node *inner, uint32_t unit,
				    uint32_t cut);
/* The list of master weights, by unit. */
struct cfs_node *cfs_ds_masters(const struct cfs_ds_layout *layout,
				const struct cfs_node *inner);
/* The torch state dict inside, or NULL. */
struct cfs_node *cfs_ds_base_state(const struct cfs_ds_layout *layout,
				   const struct cfs_node *inner);
/* Does @value of state @key hold one element per element of the unit?  1, 0,
 * or -ENOTSUP with the tensor named. */
CFS_MUST_CHECK int cfs_ds_is_sharded(const struct cfs_ds_layout *layout,
				     const struct cfs_ds_unit *unit,
				     const char *key,
				     const struct cfs_node *value,
				     struct cfs_error *err);

/* Refuses a state of no known name that might be a table all ranks have, not a
 * tensor cut over them; once all parts are read. */
CFS_MUST_CHECK int cfs_ds_prove_roles(const struct cfs_ds_layout *layout,
				      struct cfs_error *err);

/* ---- read_part.c ---- */

/* Reads part @dp from its file: the kept tree of rank 0, else parsed. */
CFS_MUST_CHECK int cfs_ds_part_read(struct cfs_ds_layout *layout, uint32_t dp,
				    struct cfs_error *err);
/* Equal values, tensors by content; files are needed for tensors only. */
bool cfs_ds_same_value(const struct cfs_node *a, struct cfs_file *file_a,
		       const struct cfs_node *b, struct cfs_file *file_b);

/* ---- read_agree.c: are all files of one save? ---- */

/* Model states, of all ranks. */
CFS_MUST_CHECK int cfs_ds_agree_models(struct cfs_ds_step *step,
				       struct cfs_error *err);
/* Optimizer files of different model-parallel ranks. */
CFS_MUST_CHECK int cfs_ds_agree_layouts(const struct cfs_ds_layout *layouts,
					uint32_t n, struct cfs_error *err);
/* What dp rank @dp's file (@root) says beside its flat tensors. */
CFS_MUST_CHECK int cfs_ds_agree_part(const struct cfs_ds_layout *layout,
				     uint32_t dp, struct cfs_file *file0,
				     const struct cfs_node *root,
				     struct cfs_file *file,
				     struct cfs_error *err);

/* ---- read_build.c ---- */

/* Settles round robin from what all parts say, over all mp ranks. */
CFS_MUST_CHECK int cfs_ds_settle_order(struct cfs_ds_step *step,
				       const struct cfs_ds_layout *layouts,
				       uint32_t n, struct cfs_error *err);
/* Adds trainable parameters and their optimizer extents. */
CFS_MUST_CHECK int cfs_ds_build(struct cfs_ds_layout *layout,
				struct cfs_error *err);
/* Fills rank->groups: hyper-parameters, scalars, order of the state. */
CFS_MUST_CHECK int cfs_ds_groups_read(struct cfs_ds_layout *layout,
				      struct cfs_error *err);

/* ---- read_weights.c ---- */

/* Weight role of trainable parameters, then the frozen ones. */
CFS_MUST_CHECK int cfs_ds_weights_read(struct cfs_ds_step *step, uint32_t mp,
				       struct cfs_error *err);
/* Adds one whole contiguous tensor of file @row as role @role of a param. */
CFS_MUST_CHECK int cfs_ds_add_tensor(struct cfs_ds_step *step, uint32_t mp,
				     uint32_t param, uint32_t role,
				     const struct cfs_torch_tensor *tensor,
				     uint32_t row, struct cfs_file *file,
				     struct cfs_error *err);
/* Is @name a buffer, as buffer_names says? */
bool cfs_ds_is_buffer(const struct cfs_node *model_root, const char *name);

/* ---- read_layers.c ---- */

/* Weight role of a pipeline's trainable parameters, from its layer files;
 * before cfs_ds_weights_read(). */
CFS_MUST_CHECK int cfs_ds_layers_read(struct cfs_ds_step *step,
				      struct cfs_error *err);

/* ---- read_stage0.c ---- */

CFS_MUST_CHECK int cfs_ds_stage0_read(struct cfs_ds_step *step, uint32_t mp,
				      struct cfs_error *err);

/* ---- stage0_layers.c ---- */

/* Do the ranks' optimizers, all read, go together? */
CFS_MUST_CHECK int cfs_ds_stage0_agree(const struct cfs_ds_step *step,
				       struct cfs_error *err);

/* ---- read.c ---- */

/* Of a rank whose model states are parsed: a module that is a tree by name. */
CFS_MUST_CHECK int cfs_ds_flatten(struct cfs_ds_step *step, uint32_t mp);

/* ---- read_facts.c ---- */

/* ds_config, version, counts, parallel sizes; refuses what does not fit. */
CFS_MUST_CHECK int cfs_ds_read_facts(struct cfs_ds_step *step,
				     const struct cfs_ds_list *list, bool zero3,
				     struct cfs_error *err);
/* topology.zero_stage, once topology.optimizer is known. */
CFS_MUST_CHECK int cfs_ds_read_stage(struct cfs_ds_step *step,
				     struct cfs_error *err);
/* Is there a true at @path of the ds_config? */
bool cfs_ds_config_enabled(const struct cfs_node *ds_config, const char *path);
/* What the ds_config says the model computes in. */
enum cfs_dtype cfs_ds_config_dtype(const struct cfs_node *ds_config);

/* ---- read.c, deepspeed.c ---- */

/* An empty one, for a reader to fill. */
struct cfs_ds_step *cfs_ds_step_new(struct cfs_source *source,
				    struct cfs_filepool *pool,
				    const char *path);
/* Says where @own, or else @r, came from: returns @r. */
int cfs_ds_read_fail(const char *path, int r, const struct cfs_error *own,
		     struct cfs_error *err);

void cfs_ds_step_free(struct cfs_step *step);
int cfs_ds_complete(struct cfs_source *source, const char *path,
		    struct cfs_error *err);

#endif
