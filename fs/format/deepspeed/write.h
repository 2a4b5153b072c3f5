/*
 * Writing DeepSpeed steps, in parts: what one file's makers share.  Private to
 * fs/format/deepspeed/write*.c.
 *
 * A file is a pickle tree made of the source's own nodes (carried), new nodes,
 * and tensors whose payloads are maps over the source's files.
 */
#ifndef CFS_FORMAT_DEEPSPEED_WRITE_H
#define CFS_FORMAT_DEEPSPEED_WRITE_H

#include "fs/format/deepspeed/deepspeed.h"
#include "fs/reslice/partition.h"

struct cfs_file;

/* What a file of the tree is. */
enum cfs_ds_part {
	CFS_DS_PART_MODEL,
	CFS_DS_PART_OPTIM,
	CFS_DS_PART_LAYER,
	CFS_DS_PART_CARRIED,
	CFS_DS_PART_UNIVERSAL
};

struct cfs_ds_plan {
	enum cfs_ds_part part;
	uint32_t mp, dp; /* model-parallel rank (its row), data-parallel rank */
	uint32_t file;	 /* CARRIED: in the step's file table */
	uint32_t layer;	 /* LAYER */
	bool zero3;	 /* MODEL: as of stage 3, whatever the target's is */
	/* UNIVERSAL: universal/write.c says what these are */
	uint32_t param, role;
	const char *name; /* in the tree; set when that is sealed */
};

struct cfs_ds_tree {
	struct cfs_tree base;
	struct cfs_ds_plan *plans; /* by index, base.n_files */
	uint32_t n_plans, cap_plans;
	const char *version; /* ds_version to write, or NULL: the source's */
	bool elastic;	     /* write optimizer state in elastic form */
	int64_t lost_step;   /* elastic, and no file has it: counted; or 0 */
	/* UNIVERSAL: a reference to the step with all on one rank, or NULL */
	struct cfs_ds_step *whole;
	struct cfs_topology zero3; /* for plans that say so */
};

/* One file being made; freed when its map is. */
struct cfs_ds_out {
	const struct cfs_ds_tree *tree;
	const struct cfs_ds_step *step;
	const struct cfs_topology *topo; /* the target's */
	const struct cfs_ds_rank *rank;
	const struct cfs_catalogue *cat;
	uint32_t mp, dp;
	struct cfs_torch_writer *w;
	struct cfs_pickle *doc;
	struct cfs_file **open; /* by file table index; NULL: not opened */
	/* Files parsed for this one alone. */
	struct cfs_torchfile **parsed;
	uint32_t n_parsed, cap_parsed;
	struct cfs_error *err;
};

/* ---- write.c: planning ---- */

/* Without files yet. */
CFS_MUST_CHECK int cfs_ds_tree_new(struct cfs_step *step,
				   const struct cfs_resolved *target,
				   struct cfs_ds_tree **out);
CFS_MUST_CHECK int cfs_ds_tree_add(struct cfs_ds_tree *tree, const char *name,
				   const struct cfs_ds_plan *plan);
/* Takes the tree over. */
CFS_MUST_CHECK int cfs_ds_tree_seal(struct cfs_ds_tree *tree,
				    struct cfs_tree **out);

/* The files of @step at @target, whose ranks it has. */
CFS_MUST_CHECK int cfs_ds_write_step(struct cfs_step *step,
				     const struct cfs_resolved *target,
				     struct cfs_tree **tree_out,
				     struct cfs_error *err);

/* ---- write_file.c ---- */

extern const struct cfs_tree_ops cfs_ds_tree_ops;

/* ---- universal: plan.c, write.c ---- */

CFS_MUST_CHECK int cfs_uc_plan(struct cfs_step *step,
			       const struct cfs_resolved *target,
			       struct cfs_tree **tree_out,
			       struct cfs_error *err);
/* The root of one file below zero/. */
CFS_MUST_CHECK int cfs_uc_write(struct cfs_ds_out *out,
				const struct cfs_ds_plan *plan,
				struct cfs_node **root_out);

/* ---- write_tools.c ---- */

/* The version the files are to look like: what is written, or the source's;
 * "" when it has none. */
const char *cfs_ds_out_version(const struct cfs_ds_out *out);
/* Is the version to write at least @version?  One unknown is old. */
bool cfs_ds_out_since(const struct cfs_ds_out *out, const char *version);

/* A map over the step's files. */
struct cfs_map *cfs_ds_out_map(const struct cfs_ds_out *out);
/* A tensor over @payload, which is taken over also on failure; 1-D when @shape
 * is NULL.  NULL payload, wrong length or no memory: NULL. */
struct cfs_node *cfs_ds_out_tensor(struct cfs_ds_out *out,
				   struct cfs_map *payload,
				   enum cfs_dtype dtype, uint32_t ndim,
				   const uint64_t *shape, bool requires_grad);
/* @node with a storage of its own if it is a tensor; else @node itself: one
 * `step` referred to by two parameters would count twice. */
CFS_MUST_CHECK int cfs_ds_out_fresh(struct cfs_ds_out *out,
				    struct cfs_node *node,
				    struct cfs_node **node_out);
/* torch.Size(shape) */
struct cfs_node *cfs_ds_out_size(struct cfs_ds_out *out,
				 const struct cfs_param *param);
/* The open file behind a file table index; borrowed for the build. */
CFS_MUST_CHECK int cfs_ds_out_open(void *out, uint32_t index,
				   struct cfs_file **file_out);
/* module.cls() with @state as its __dict__ */
struct cfs_node *cfs_ds_out_object(struct cfs_ds_out *out, const char *module,
				   const char *cls, struct cfs_node *state);
/* In a fresh copy: replaces the value of @key where there is one. */
void cfs_ds_out_replace(struct cfs_ds_out *out, struct cfs_node *map,
			const char *key, struct cfs_node *value);

/* ---- write_flat.c: stages 1 and 2, BF16_Optimizer ---- */

/* One parameter group as the target lays it out flat. */
struct cfs_ds_flat {
	struct cfs_flat flat;
	uint32_t group, first, n;
	uint32_t *order;  /* order[i]: i-th parameter, counted from first */
	uint64_t *offset; /* of the i-th in the flat tensor */
	uint64_t *pad;	  /* behind it */
};

CFS_MUST_CHECK int cfs_ds_flat_init(struct cfs_ds_flat *flat,
				    const struct cfs_ds_out *out,
				    uint32_t group);
void cfs_ds_flat_fini(struct cfs_ds_flat *flat);
/* What rank out->dp holds of @role, padding included. */
CFS_MUST_CHECK int cfs_ds_flat_fill(const struct cfs_ds_flat *flat,
				    const struct cfs_ds_out *out, uint32_t role,
				    uint64_t count, struct cfs_map *map);

/* ---- write_check.c ---- */

/* Is all that the files need there, and can it be used?  -ENOTSUP if not: a
 * build then fails on I/O, memory or a changed source alone. */
CFS_MUST_CHECK int cfs_ds_write_possible(const struct cfs_ds_step *step,
					 const struct cfs_topology *topo,
					 bool elastic, struct cfs_error *err);
/* write_module.c: the part of it that is about `module`. */
CFS_MUST_CHECK int cfs_ds_model_possible(const struct cfs_ds_step *step,
					 uint32_t mp,
					 const struct cfs_topology *topo,
					 struct cfs_error *err);

/* ---- the parts; each makes the root of one file ---- */

CFS_MUST_CHECK int cfs_ds_write_model(struct cfs_ds_out *out,
				      struct cfs_node *source,
				      struct cfs_node **root_out);
/* ---- write_layer.c: of a step made of another one ---- */

/* Adds what layer @number has, names behind @prefix. */
CFS_MUST_CHECK int cfs_ds_write_layer(struct cfs_ds_out *out, uint32_t number,
				      const char *prefix, struct cfs_node *map);
/* The weight of a parameter of the catalogue, or its rounded master. */
CFS_MUST_CHECK int cfs_ds_write_weight(struct cfs_ds_out *out, uint32_t param,
				       enum cfs_dtype dtype,
				       struct cfs_node **node_out);
/* In the place of a layer: names are whole. */
#define CFS_DS_NO_LAYER UINT32_MAX
/* The rule of a tensor that is no parameter, or NULL. */
const struct cfs_rule *cfs_ds_buffer_rule(const struct cfs_ds_step *step,
					  const char *name);
/* A tensor @t that is no parameter, as the target's rank @tp_rank has it. */
CFS_MUST_CHECK int cfs_ds_cut_buffer(struct cfs_ds_out *out, uint32_t layer,
				     const char *name,
				     const struct cfs_torch_tensor *t,
				     uint32_t tp_rank,
				     struct cfs_node **node_out);
/* What source rank @t of tensor parallelism calls @name in layer @number;
 * -ENOENT: nothing. */
CFS_MUST_CHECK int cfs_ds_layer_tensor(struct cfs_ds_out *out, uint32_t number,
				       uint32_t t, const char *name,
				       struct cfs_node **node_out);
/* The tree of file @row, kept as long as this file is made. */
CFS_MUST_CHECK int cfs_ds_out_parse(struct cfs_ds_out *out, uint32_t row,
				    const struct cfs_node **root);
/* The module of all layers in sequence. */
CFS_MUST_CHECK int cfs_ds_write_sequence(struct cfs_ds_out *out,
					 struct cfs_node **module_out);

/* ---- write_sequence.c: of a step made of another one, both without pipeline
 * ---- */

/* Is its module that of the source, entry by entry? */
bool cfs_ds_keeps_module(const struct cfs_ds_step *step);
/* The part of cfs_ds_write_possible() that is about it. */
CFS_MUST_CHECK int cfs_ds_module_possible(const struct cfs_ds_step *step,
					  uint32_t mp, struct cfs_error *err);
/* Adds all entries. */
CFS_MUST_CHECK int cfs_ds_write_module(struct cfs_ds_out *out,
				       struct cfs_node *map);

/* ---- write_client.c: of a step made of another one ---- */

CFS_MUST_CHECK int cfs_ds_write_client(struct cfs_ds_out *out,
				       struct cfs_node *root);

/* The outer dict around what the optimizer classes make. */
CFS_MUST_CHECK int cfs_ds_write_optim(struct cfs_ds_out *out,
				      struct cfs_node **root_out);
/* Inner dicts, by class. */
CFS_MUST_CHECK int cfs_ds_write_flat(struct cfs_ds_out *out,
				     struct cfs_node **inner_out);
CFS_MUST_CHECK int cfs_ds_write_zero3(struct cfs_ds_out *out,
				      struct cfs_node **inner_out);

/* ---- write_optim.c: what the classes share ---- */

/* Makes the payload of one role of one (sub-)group. */
typedef int cfs_ds_fill_fn(void *arg, uint32_t role, struct cfs_map *map);
/* {step, exp_avg, …}: sharded entries from @fill, flat or in the shape of
 * @param; the rest from the source. */
CFS_MUST_CHECK int cfs_ds_write_state(struct cfs_ds_out *out, uint32_t group,
				      const struct cfs_param *param,
				      cfs_ds_fill_fn *fill, void *arg,
				      struct cfs_node **state_out);
/* The fp32 copy, made by @fill as the states are. */
CFS_MUST_CHECK int cfs_ds_write_master(struct cfs_ds_out *out,
				       const struct cfs_param *param,
				       cfs_ds_fill_fn *fill, void *arg,
				       struct cfs_node **node_out);
/* A param_groups entry with `params` = first … first + n - 1. */
CFS_MUST_CHECK int cfs_ds_write_hyper(struct cfs_ds_out *out, uint32_t group,
				      uint32_t first, uint32_t n,
				      struct cfs_node **hyper_out);
/* The ZeroStageEnum member of the target's stage, as this version has it. */
struct cfs_node *cfs_ds_write_stage(struct cfs_ds_out *out);
/* Does the source keep optimizer state (has a step been taken)? */
bool cfs_ds_has_state(const struct cfs_ds_out *out, uint32_t group);

/* ---- clip.c ---- */

/* clip_grad: the source's, the config's, or the release's default; NULL where
 * none is known.  Loaders of stages 1 and 2 and of BF16_Optimizer keep their
 * own without, that of stage 0 wants it. */
struct cfs_node *cfs_ds_write_clip(struct cfs_ds_out *out);
/* Would that make one? */
bool cfs_ds_knows_clip(const struct cfs_ds_step *step,
		       const struct cfs_ds_rank *rank);

/* ---- write_scaler.c ---- */

/* Adds loss_scaler, dynamic_loss_scale, overflow. */
void cfs_ds_write_scaler(struct cfs_ds_out *out, struct cfs_node *inner);
/* Adds the same facts as stage 0 keeps them. */
void cfs_ds_write_scale0(struct cfs_ds_out *out, struct cfs_node *optim);

/* ---- write_stage0.c ---- */

/* -ENOTSUP where it cannot be told what the framework would write. */
CFS_MUST_CHECK int cfs_ds_stage0_possible(const struct cfs_ds_step *step,
					  struct cfs_error *err);
/* The model states' `optimizer`. */
CFS_MUST_CHECK int cfs_ds_write_stage0(struct cfs_ds_out *out,
				       struct cfs_node **optim_out);

/* ---- write_shapes.c ---- */

/* Order of group @group's parameters at the target; @order holds its n. */
void cfs_ds_group_order(const struct cfs_ds_out *out, uint32_t n,
			uint32_t *order);
/* Stage 3: sub[i], the sub-group within its group of each trainable parameter;
 * caller frees. */
CFS_MUST_CHECK int cfs_ds_subgroups(const struct cfs_ds_out *out,
				    uint32_t **sub_out);
/* param_shapes of the target. */
CFS_MUST_CHECK int cfs_ds_write_shapes(struct cfs_ds_out *out,
				       struct cfs_node **shapes_out);

/* ---- write_config.c ---- */

/* @config with what the target changes; NULL stays NULL. */
CFS_MUST_CHECK int cfs_ds_write_config(struct cfs_ds_out *out,
				       struct cfs_node *config,
				       struct cfs_node **config_out);
/* The ds_version to write where today's loader would refuse the source's, or
 * NULL to keep it. */
const char *cfs_ds_raised_version(const struct cfs_ds_step *step,
				  const struct cfs_topology *topo);

#endif
