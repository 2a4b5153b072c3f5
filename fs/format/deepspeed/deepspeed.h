/*
 * What the DeepSpeed reader finds and its writer uses.  Private to
 * fs/format/deepspeed and the verbs that print a step (show, check).
 * Rules and their sources: fs/format/DESIGN.md.
 */
#ifndef CFS_FORMAT_DEEPSPEED_H
#define CFS_FORMAT_DEEPSPEED_H

#include "fs/container/torchfile.h"
#include "fs/format/format.h"

struct cJSON;

/* A parsed file of the step. */
struct cfs_ds_file {
	char *name;		     /* base name */
	uint32_t index;		     /* in step->files */
	struct cfs_torchfile *torch; /* NULL: not parsed (yet) */
};

/* One optimizer parameter group as the source has it. */
struct cfs_ds_group {
	/* param_groups[g] of the torch optimizer, `params` included; NULL in
	 * an elastic checkpoint, which has none. */
	struct cfs_node *hyper;
	/* State entries that are not one element per parameter element
	 * (`step`, …): name -> value, in the source's order; may be empty.
	 * Taken from the first rank, found equal on all. */
	struct cfs_node *scalars; /* DICT */
	/* Names of all state entries in the source's order (sharded and
	 * not), as a LIST of STR: what order to write them in. */
	struct cfs_node *state_order;
};

/* One model-parallel rank. */
struct cfs_ds_rank {
	/* [0] for stages 0 to 2; one per dp rank in stage 3, of which only
	 * [0] is kept parsed. */
	struct cfs_ds_file *model;
	uint32_t n_model;
	struct cfs_ds_file *optim;   /* one per dp rank; none at stage 0 */
	uint32_t n_optim;	     /* only [0] is kept parsed */
	struct cfs_node *model_root; /* model[0]'s top-level dict */
	/* Its `module` if that is a tree, which model_root has by name. */
	struct cfs_node *module_tree;
	struct cfs_node *optim_root;  /* optim[0]'s outer dict, or NULL */
	struct cfs_node *optim_state; /* its inner `optimizer_state_dict` */
	struct cfs_ds_group *groups;  /* as many as the catalogue has */
	uint32_t n_groups;
	/* Which group a parameter is in was said by a rule alone. */
	bool by_rule;
};

struct cfs_ds_step {
	struct cfs_step base;
	struct cfs_ds_rank *ranks; /* base.n_ranks */
	bool elastic;		   /* optimizer state in elastic form */
	bool legacy;		   /* files are legacy streams, not zip */
	bool bf16_names;	   /* optimizer files carry the bf16_ prefix */
	bool moe;
	/* Universal, of layers or of several ranks: module and layers are
	 * made of the masters, whatever the model states hold. */
	bool only_masters;
	/* Universal, for several tensor-parallel ranks: of what they add up it
	 * may hold the share of one. */
	bool shares;
	struct cfs_node *ds_config; /* or NULL */
	struct cJSON *neox_config;  /* GPT-NeoX's own, or NULL */
	struct cfs_pickle *scratch; /* owns nodes made while reading */
	/* Of a step made of another one: what it is made of, else NULL. */
	struct cfs_ds_remodel *remodel;
};

static inline struct cfs_ds_step *cfs_ds_step_of(struct cfs_step *step)
{
	return container_of(step, struct cfs_ds_step, base);
}

/* names.c: file names, both ways. */
enum cfs_ds_kind {
	CFS_DS_OTHER,
	CFS_DS_MODEL,	    /* mp_rank_MM_model_states.pt */
	CFS_DS_MODEL_ZERO3, /* zero_pp_rank_R_mp_rank_MM_model_states.pt */
	CFS_DS_OPTIM,	  /* [bf16_]zero_pp_rank_R_mp_rank_MM_optim_states.pt */
	CFS_DS_LAYER,	  /* layer_LL-model_TT-model_states.pt */
	CFS_DS_EXPERT,	  /* mixture of experts, all spellings */
	CFS_DS_UNIVERSAL, /* below zero/ of a universal checkpoint: never
			   * parsed from a name */
};

struct cfs_ds_name {
	enum cfs_ds_kind kind;
	uint32_t dp, mp;   /* R, MM (layer: mp is TT, dp is LL) */
	bool bf16;	   /* OPTIM: has the bf16_ prefix */
	bool old_spelling; /* before 0.3.14: "…00optim_states.pt" */
	bool plain_layer;  /* LAYER: "layer_LL-model_states.pt", no TT */
};

struct cfs_ds_name cfs_ds_name_parse(const char *name);
/* Into @buf; returns @buf.  Never the old spelling. */
const char *cfs_ds_name_format(const struct cfs_ds_name *name, char *buf,
			       size_t size);

/* read.c */
int cfs_ds_read(struct cfs_source *source, struct cfs_filepool *pool,
		const char *path, struct cfs_step **step_out,
		struct cfs_error *err);
/* cfs_ds_read() with the rows of @before (or NULL) before those of the step. */
CFS_MUST_CHECK int
cfs_ds_read_beside(struct cfs_source *source, struct cfs_filepool *pool,
		   const char *path, const struct cfs_filetab *before,
		   struct cfs_step **step_out, struct cfs_error *err);
/* read_files.c */
/* The open file behind row @index; cfs_filepool_put() it. */
CFS_MUST_CHECK int cfs_ds_open(const struct cfs_step *step, uint32_t index,
			       struct cfs_file **file_out,
			       struct cfs_error *err);
/* resolve.c */
int cfs_ds_resolve(const struct cfs_step *step,
		   const struct cfs_request *request, struct cfs_resolved *out,
		   struct cfs_error *err);
/* write.c */
int cfs_ds_write(struct cfs_step *step, const struct cfs_resolved *target,
		 struct cfs_tree **tree_out, struct cfs_error *err);

/* Opens and parses file @file of the step again (stage 3 model states of ranks
 * whose tree was not kept); its version must be the one read (-ESTALE). */
CFS_MUST_CHECK int cfs_ds_parse(const struct cfs_step *step,
				const struct cfs_ds_file *file,
				struct cfs_torchfile **out,
				struct cfs_error *err);

/* In a ds_config that no engine had: what it lacks is not the default, but not
 * known. */
#define CFS_DS_CONFIG_MADE "made_by_ckptfs"

/* ds_config look-ups with DeepSpeed's defaults; @path as
 * "zero_optimization.round_robin_gradients".  NULL when absent. */
struct cfs_node *cfs_ds_config_get(const struct cfs_node *ds_config,
				   const char *path);

/* "0.16.4" <= "0.19.8": compares dotted numbers; suffixes are ignored. */
int cfs_ds_version_cmp(const char *a, const char *b);

#endif
