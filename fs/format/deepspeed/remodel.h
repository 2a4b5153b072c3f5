/*
 * A step as other model-parallel ranks would hold it: a step in memory whose
 * tensors are made of those of the one on disk, for the writer to write.
 * Private to fs/format/deepspeed.
 */
#ifndef CFS_FORMAT_DEEPSPEED_REMODEL_H
#define CFS_FORMAT_DEEPSPEED_REMODEL_H

#include "fs/format/deepspeed/model.h"
#include "fs/format/options.h"

struct cfs_ds_parallel {
	uint32_t tp;
	uint32_t pp; /* 0: no pipeline, parameters in sequence */
	/* What the checkpoint does not tell; as in struct cfs_request. */
	uint64_t vocabulary;
	int qkv_in_parts, bias_sum;
	/* One rank has all that these would share, and of what they add up the
	 * share of one. */
	bool whole;
	const char *options; /* options.h, or NULL */
	/* The step that is filled: it tells the rows of vocabularies.  Or
	 * NULL. */
	const struct cfs_ds_step *like;
};

/* The layers that hold something, ascending. */
struct cfs_ds_layers {
	uint32_t *v;
	uint32_t n;
};

/* What one new rank's tensors are made of. */
struct cfs_ds_made {
	const struct cfs_ds_remodel *remodel;
	uint32_t t;
	/* by parameter; NULL: the template's own */
	const struct cfs_ds_whole **whole;
	uint32_t mp;			 /* template: the rank */
	const struct cfs_catalogue *cat; /* … and what is made */
};

struct cfs_ds_remodel {
	struct cfs_ds_step *from; /* a reference */
	struct cfs_ds_step *like; /* template.h: a reference, or NULL */
	struct cfs_options options;
	struct cfs_ds_model model;
	struct cfs_ds_layers layers;
	uint32_t tp, pp;  /* pp 0: in sequence */
	uint32_t *bounds; /* pp + 1; NULL where whole */
	bool whole;
	struct cfs_ds_made *made; /* by rank */
};

/* Takes a reference to @step; the new one has one of its own.  -ENOTSUP,
 * -EINVAL: @err names the parameter. */
CFS_MUST_CHECK int cfs_ds_remodel(struct cfs_ds_step *step,
				  const struct cfs_ds_parallel *target,
				  struct cfs_ds_step **out,
				  struct cfs_error *err);
/* `whole` of struct cfs_format. */
CFS_MUST_CHECK int cfs_ds_whole(struct cfs_step *step, struct cfs_step **out,
				struct cfs_error *err);
/* All that rank @t has of @role, at the new number of ranks. */
CFS_MUST_CHECK int cfs_ds_remodel_append(const struct cfs_ds_remodel *rm,
					 const struct cfs_ds_whole *whole,
					 uint32_t role, uint32_t t,
					 struct cfs_map *map);
/* What stage @stage calls what the source calls @name; false: it has none. */
bool cfs_ds_remodel_name(const struct cfs_ds_remodel *rm, const char *name,
			 uint32_t stage, char *buf, size_t size);
/* What parameter @param of rank @rank is made of. */
const struct cfs_ds_whole *cfs_ds_remodel_whole(const struct cfs_ds_remodel *rm,
						uint32_t rank, uint32_t param);
/* The stage that has layer @layer. */
uint32_t cfs_ds_stage_of(const struct cfs_ds_remodel *rm, uint32_t layer);
/* The file table's row of a source's layer file. */
bool cfs_ds_find_layer(const struct cfs_ds_step *step, uint32_t layer,
		       uint32_t t, uint32_t *row_out);

/* ---- remodel_ranks.c ---- */

/* The catalogue of new rank @i. */
CFS_MUST_CHECK int cfs_ds_remodel_rank(struct cfs_ds_remodel *rm, uint32_t i,
				       struct cfs_catalogue **out);

/* ---- remodel_tensors.c ---- */

/* Source rank @t of the stage that has @w. */
const struct cfs_catalogue *
cfs_ds_remodel_catalogue(const struct cfs_ds_remodel *rm,
			 const struct cfs_ds_whole *w, uint32_t t);
/* Into how many pieces parameters are cut. */
uint32_t cfs_ds_remodel_cuts(const struct cfs_ds_remodel *rm);
/* A catalogue's maker; @arg: struct cfs_ds_made. */
CFS_MUST_CHECK int cfs_ds_remodel_make(void *arg, uint32_t param, uint32_t role,
				       uint64_t start, uint64_t count,
				       struct cfs_map *map);

/* ---- remodel.c ---- */

/* What cfs_ds_step_free() does with such a step. */
void cfs_ds_remodel_free(struct cfs_ds_step *step);

#endif
