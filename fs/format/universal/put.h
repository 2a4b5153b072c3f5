/*
 * A universal checkpoint of what ranks put, in parts.  Private to
 * fs/format/universal.
 *
 *   objects  the pickles that say what no tensor does
 *   params   tensors and groups -> parameters, roles
 *   step     a step in memory, of one rank that has all
 *   model    its model states
 *   put      that step's files, which plan.c and write.c make as for a view
 */
#ifndef CFS_FORMAT_UNIVERSAL_PUT_H
#define CFS_FORMAT_UNIVERSAL_PUT_H

#include "fs/format/deepspeed/deepspeed.h"
#include "fs/format/puts_tensors.h"

/* The release whose layout is written. */
#define CFS_UC_PUT_VERSION "0.19.8"

struct cfs_uc_param {
	const char *name;
	const struct cfs_put_tensor *weight, *master; /* or NULL, not both */
	struct cfs_map *weight_map; /* the weight, or the rounded master */
	enum cfs_dtype weight_dtype;
	uint32_t group; /* or CFS_GROUP_FROZEN */
};

struct cfs_uc_putting {
	const struct cfs_puts *puts;
	const struct cfs_put_tensors *tensors;
	struct cfs_ds_step *step;
	struct cfs_torch_writer *w; /* owns @doc and what nodes point to */
	struct cfs_pickle *doc;
	/* Decoded, each a dictionary, a list (param_groups) or NULL. */
	struct cfs_node *param_groups, *ds_config, *client_state;
	struct cfs_node *optimizer_state, *universal_info;
	struct cfs_node *shared; /* second names of tied parameters */
	/* As the catalogue numbers them. */
	struct cfs_uc_param *params;
	uint32_t n_params, cap_params;
	struct cfs_error *err;
};

/* ---- put_objects.c ---- */

CFS_MUST_CHECK int cfs_uc_put_objects(struct cfs_uc_putting *p);

/* ---- put_params.c ---- */

/* The catalogue of @step, sealed. */
CFS_MUST_CHECK int cfs_uc_put_params(struct cfs_uc_putting *p);

/* ---- put_step.c ---- */

/* Makes @step, which the caller unrefs; needs the objects. */
CFS_MUST_CHECK int cfs_uc_put_step(struct cfs_uc_putting *p);
/* A tensor's whole content as a node; NULL: no memory. */
struct cfs_node *cfs_uc_put_tensor(struct cfs_uc_putting *p,
				   const struct cfs_put *like,
				   enum cfs_dtype dtype, struct cfs_map *map);

/* ---- put_model.c ---- */

CFS_MUST_CHECK int cfs_uc_put_model(struct cfs_uc_putting *p,
				    struct cfs_node **root_out);

#endif
