/* A step open for reading, and how its bytes come in: load.c, inflow.c. */
#ifndef CFS_RANK_CLIENT_LOAD_INTERNAL_H
#define CFS_RANK_CLIENT_LOAD_INTERNAL_H

#include "rank_client/rank_internal.h"

struct cfs_rank_load {
	struct cfs_rank_load *next;
	struct cfs_rank *rank;
	uint64_t id;
	char *step;
	/* the file that was read last, which is often read on */
	char *file;
	uint64_t handle, size;
	uint64_t got_bytes, asked_bytes; /* for progress */
};

/* Where bytes are to go. */
struct cfs_inflow {
	void *data;
	uint32_t memory;
	void *stream;
};

/* Exactly @len bytes at @off of what the daemon opened as @handle. */
CFS_MUST_CHECK int cfs_inflow_read(struct cfs_rank_load *load, uint64_t handle,
				   uint64_t off, uint64_t len,
				   const struct cfs_inflow *to,
				   struct cfs_error *err);

#endif
