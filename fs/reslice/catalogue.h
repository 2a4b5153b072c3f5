/*
 * The named tensors of one step and where each piece of each lies.
 *
 * A parameter's tensors are flat: element e of the row-major parameter.  Every
 * tensor (weight, master, each optimizer state) is a list of extents in files,
 * or made of other tensors when it is asked for.
 * With several model-parallel ranks each has a catalogue of its own; names and
 * shapes are then those of that rank.
 */
#ifndef CFS_RESLICE_CATALOGUE_H
#define CFS_RESLICE_CATALOGUE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/map/dtype.h"
#include "store/util/base.h"

struct cfs_error;
struct cfs_map;
struct cfs_filetab;

/* Elements [start, start + count) of a tensor lie at @offset of @file. */
struct cfs_extent {
	uint64_t start, count, offset;
	uint32_t file; /* index in the step's file table */
};

/* Role 0 and 1 are fixed, the rest are optimizer states by their own name. */
#define CFS_ROLE_WEIGHT 0u /* what the model computes with */
#define CFS_ROLE_MASTER 1u /* the optimizer's fp32 copy */
#define CFS_ROLE_STATE0 2u /* exp_avg, exp_avg_sq, momentum_buffer, … */
#define CFS_ROLES_MAX	16u

struct cfs_param {
	const char *name;
	uint64_t numel;
	uint32_t ndim;
	const uint64_t *shape;
	uint32_t group; /* optimizer group, or CFS_GROUP_FROZEN */
};
#define CFS_GROUP_FROZEN UINT32_MAX

/* Trainable parameters are numbered group by group, in the group's own order
 * (never the shuffled one); frozen ones follow. */
struct cfs_catalogue; /* opaque; sealed ones may be read by any thread */

struct cfs_catalogue *cfs_catalogue_new(void);
void cfs_catalogue_free(struct cfs_catalogue *cat);
void cfs_catalogue_freep(struct cfs_catalogue **cat);

/* Building: parameters first, then extents in any order, then seal. */
CFS_MUST_CHECK int cfs_catalogue_add_param(struct cfs_catalogue *cat,
					   const char *name, uint32_t ndim,
					   const uint64_t *shape,
					   uint32_t group, uint32_t *index_out);
/* Finds or adds an optimizer state; @role_out >= CFS_ROLE_STATE0. */
CFS_MUST_CHECK int cfs_catalogue_add_role(struct cfs_catalogue *cat,
					  const char *name, uint32_t *role_out);
CFS_MUST_CHECK int cfs_catalogue_set_dtype(struct cfs_catalogue *cat,
					   uint32_t param, uint32_t role,
					   enum cfs_dtype dtype);
CFS_MUST_CHECK int cfs_catalogue_add_extent(struct cfs_catalogue *cat,
					    uint32_t param, uint32_t role,
					    const struct cfs_extent *extent);
/*
 * For tensors that are made of others: those with a type and no extents.
 * Appends elements [start, start + count); from any thread once sealed.
 */
typedef int cfs_catalogue_make_fn(void *arg, uint32_t param, uint32_t role,
				  uint64_t start, uint64_t count,
				  struct cfs_map *map);
void cfs_catalogue_set_maker(struct cfs_catalogue *cat,
			     cfs_catalogue_make_fn *make, void *arg);
/* Sorts, merges neighbours, checks that every tensor that has an extent is
 * covered exactly once (-EINVAL; @err names the parameter and the gap). */
CFS_MUST_CHECK int cfs_catalogue_seal(struct cfs_catalogue *cat,
				      struct cfs_error *err);

uint32_t cfs_catalogue_params(const struct cfs_catalogue *cat);
const struct cfs_param *cfs_catalogue_param(const struct cfs_catalogue *cat,
					    uint32_t i);
/* -ENOENT or 0. */
int cfs_catalogue_find(const struct cfs_catalogue *cat, const char *name,
		       uint32_t *index_out);
uint32_t cfs_catalogue_roles(const struct cfs_catalogue *cat);
/* "weight", "master", "exp_avg", … */
const char *cfs_catalogue_role_name(const struct cfs_catalogue *cat,
				    uint32_t role);
uint32_t cfs_catalogue_groups(const struct cfs_catalogue *cat);
/* First parameter of a group and how many it has. */
void cfs_catalogue_group(const struct cfs_catalogue *cat, uint32_t group,
			 uint32_t *first_out, uint32_t *n_out);
bool cfs_catalogue_has(const struct cfs_catalogue *cat, uint32_t param,
		       uint32_t role);
enum cfs_dtype cfs_catalogue_dtype(const struct cfs_catalogue *cat,
				   uint32_t param, uint32_t role);
/* Extents in order of start; borrowed. */
const struct cfs_extent *cfs_catalogue_extents(const struct cfs_catalogue *cat,
					       uint32_t param, uint32_t role,
					       uint32_t *n_out);

/* Appends elements [start, start + count) of a tensor to @map. */
CFS_MUST_CHECK int cfs_catalogue_append(const struct cfs_catalogue *cat,
					uint32_t param, uint32_t role,
					uint64_t start, uint64_t count,
					struct cfs_map *map);

#endif
