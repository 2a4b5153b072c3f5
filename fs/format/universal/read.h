/*
 * Reading universal checkpoints, in parts.  Private to fs/format/universal.
 *
 *   list     which files there are
 *   read     facts, the model states' param_shapes -> parameters
 *   tensors  the files below zero/ -> extents, hyper-parameters, counts
 *
 * The step is one of DeepSpeed's with a single model-parallel rank, for its
 * writer to write.
 */
#ifndef CFS_FORMAT_UNIVERSAL_READ_H
#define CFS_FORMAT_UNIVERSAL_READ_H

#include "fs/format/deepspeed/read.h"

int cfs_uc_read(struct cfs_source *source, struct cfs_filepool *pool,
		const char *path, struct cfs_step **step_out,
		struct cfs_error *err);

/* A file of a parameter. */
struct cfs_uc_file {
	const char *name; /* below the step; of the list */
	uint32_t row;	  /* in the file table */
	uint32_t param;
	char state[64]; /* "fp32", "exp_avg", "step" */
};

struct cfs_uc_reading {
	struct cfs_ds_step *step;
	struct cfs_catalogue *cat;
	bool zero3; /* model states of stage 3 */
	/* Of each model-parallel rank; [0] is the step's. */
	struct cfs_ds_file *models;
	uint32_t n_models;
	struct cfs_uc_file *files;
	uint32_t n_files, cap_files;
	bool lost_padding; /* the model states' weights have more rows */
};

/* ---- list.c ---- */

/* Model states that count (@zero3: of stage 3), then all below zero/. */
CFS_MUST_CHECK int cfs_uc_list(const struct cfs_ds_step *step,
			       const struct cfs_ds_list *top, bool zero3,
			       struct cfs_ds_list *out);

/* ---- tensors.c ---- */

/* Roles, extents and groups of the catalogue's parameters, from the files. */
CFS_MUST_CHECK int cfs_uc_tensors_read(struct cfs_uc_reading *reading,
				       struct cfs_error *err);

#endif
