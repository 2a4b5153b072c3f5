/* Inside engine_dir: its state, and where refs are kept. */
#ifndef CFS_PACK_ENGINE_DIR_H
#define CFS_PACK_ENGINE_DIR_H

#include <pthread.h>

#include "store/pack/engine.h"

struct cfs_fdcache;

struct cfs_engine_dir {
	struct cfs_engine base;
	int dirfd; /* of the store; borrowed */
	int packs_fd, refs_fd;
	bool lane_named; /* the lane's own name is durable; who syncs looks */
	struct cfs_fdcache *files;
	pthread_mutex_t ref_lock; /* one replacement at a time */
};

#define CFS_ENGINE_DIR_NAME 24 /* "LLLL/NNNNNNNN.pack" */

/* Names below packs_fd, into @name, which is returned. */
const char *cfs_engine_dir_pack(struct cfs_pack_id id,
				char name[CFS_ENGINE_DIR_NAME]);
const char *cfs_engine_dir_lane(struct cfs_pack_id id,
				char name[CFS_ENGINE_DIR_NAME]);
int cfs_engine_dir_size(struct cfs_engine *engine, struct cfs_pack_id id,
			uint64_t *size_out);
int cfs_engine_dir_list(struct cfs_engine *engine, cfs_pack_fn *fn, void *arg);

int cfs_engine_dir_ref_get(struct cfs_engine *engine, const char *name,
			   struct cfs_buf *out);
int cfs_engine_dir_ref_cas(struct cfs_engine *engine, const char *name,
			   const struct cfs_buf *old,
			   const struct cfs_buf *value);

#endif
