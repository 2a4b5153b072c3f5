/* What torch_write.c and torch_layout.c share. */
#ifndef CFS_CONTAINER_TORCH_WRITER_H
#define CFS_CONTAINER_TORCH_WRITER_H

#include "fs/container/torch_crc.h"
#include "fs/container/torch_internal.h"

/* A storage that a writer made. */
struct cfs_torch_own {
	struct cfs_torch_storage base;
	enum cfs_dtype elements; /* also where the storage is untyped */
};

struct cfs_torch_writer {
	struct cfs_pickle *doc;
	struct cfs_filetab *tab;
	char *prefix;
	struct cfs_torch_own **own; /* their payloads hold references */
	size_t n_own, cap_own;
	struct cfs_crc_table crcs;
};

#endif
