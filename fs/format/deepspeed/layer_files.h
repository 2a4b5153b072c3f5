/*
 * The layer files of one tensor-parallel rank, parsed and open.
 * Private to fs/format/deepspeed.
 */
#ifndef CFS_FORMAT_DEEPSPEED_LAYER_FILES_H
#define CFS_FORMAT_DEEPSPEED_LAYER_FILES_H

#include "fs/format/deepspeed/deepspeed.h"

struct cfs_ds_layer_file {
	uint32_t layer;
	struct cfs_torchfile *torch;
	struct cfs_file *file;
};

struct cfs_ds_layer_files {
	struct cfs_filepool *pool;
	struct cfs_ds_layer_file *v; /* ascending */
	uint32_t n;
	/* GPT-NeoX, whose embedding is used by the last layer once more. */
	bool tied;
};

/*
 * -ENOTSUP where the layers are not GPT-NeoX's: nothing tells which ones are
 * tied, and so what their parameters are called.
 */
CFS_MUST_CHECK int cfs_ds_layer_files_open(const struct cfs_ds_step *step,
					   uint32_t tp_rank,
					   struct cfs_ds_layer_files *out,
					   struct cfs_error *err);
void cfs_ds_layer_files_fini(struct cfs_ds_layer_files *files);

/* What the pipeline calls the tensor @name of a layer; -ENAMETOOLONG. */
CFS_MUST_CHECK int
cfs_ds_layer_files_name(const struct cfs_ds_layer_files *files, uint32_t layer,
			const char *name, char *buf, size_t size);

#endif
