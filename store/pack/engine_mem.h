/* Inside engine_mem: packs, refs, and the events a power cut chooses from. */
#ifndef CFS_PACK_ENGINE_MEM_H
#define CFS_PACK_ENGINE_MEM_H

#include <pthread.h>

#include "store/pack/engine.h"
#include "store/pack/packs.h"
#include "store/util/buf.h"

enum cfs_engine_mem_kind {
	CFS_ENGINE_MEM_CREATE,
	CFS_ENGINE_MEM_WRITE,
	CFS_ENGINE_MEM_SYNC,
	CFS_ENGINE_MEM_SYNC_FAILED,
	CFS_ENGINE_MEM_SEAL,
	CFS_ENGINE_MEM_REMOVE,
	CFS_ENGINE_MEM_REF,
};
struct cfs_engine_mem_event {
	enum cfs_engine_mem_kind kind;
	struct cfs_pack_id id;
	uint64_t off;	     /* write: offset; create: room; seal: size */
	char name[64];	     /* ref */
	struct cfs_buf data; /* write, ref */
};
struct cfs_engine_mem_pack {
	struct cfs_pack_id id;
	struct cfs_buf bytes;
	uint64_t room;
};
struct cfs_engine_mem_ref {
	char name[64];
	struct cfs_buf value;
};
struct cfs_engine_mem {
	struct cfs_engine base;
	pthread_mutex_t lock;		   /* guards everything below */
	struct cfs_engine_mem_pack *packs; /* ascending */
	size_t n_packs;
	struct cfs_engine_mem_pack *before; /* events begin after these */
	size_t n_before;
	struct cfs_engine_mem_ref *refs_before; /* as `before` */
	size_t n_refs_before;
	struct cfs_engine_mem_ref *refs;
	size_t n_refs;
	struct cfs_engine_mem_event *events;
	size_t n_events;
	uint64_t limit;
	struct {
		unsigned nth;
		int r;
	} fail[CFS_ENGINE_CALLS];
	struct cfs_place bad[4]; /* reads of any of it fail */
	size_t n_bad;
};

/* With the lock held, or nobody else there; abort() where memory ends: a twin
 * for tests need not survive that. */
struct cfs_engine_mem_pack *cfs_engine_mem_find(struct cfs_engine_mem *mem,
						struct cfs_pack_id id);
struct cfs_engine_mem_pack *cfs_engine_mem_add(struct cfs_engine_mem *mem,
					       struct cfs_pack_id id);
void cfs_engine_mem_drop(struct cfs_engine_mem *mem, struct cfs_pack_id id);
void cfs_engine_mem_put(struct cfs_engine_mem_pack *pack, const uint8_t *data,
			size_t len, uint64_t off);
void cfs_engine_mem_ref_set(struct cfs_engine_mem *mem, const char *name,
			    const struct cfs_buf *value);

#endif
