/* What gc.c, gc_mark.c and gc_sweep.c share. */
#ifndef CFS_CORE_GC_INTERNAL_H
#define CFS_CORE_GC_INTERNAL_H

#include "store/core/store_internal.h"

/*
 * Objects that are needed, by the first 8 bytes of their digests: two that
 * agree in them keep each other alive, which is harmless.
 */
struct cfs_gc_set {
	uint64_t *slots; /* 0: free */
	size_t n, cap;
};

/* One collection.  Lock order: whatever the store has, then lock. */
struct cfs_gc {
	struct cfs_store *store;
	const struct cfs_job_control *control;
	struct cfs_gc_options options;
	struct cfs_gc_result result;
	struct cfs_error *err;

	pthread_mutex_t lock;
	struct cfs_gc_set chunks, maps; /* guarded by lock */
	/* Maps that are needed and not yet looked into; guarded by lock */
	struct cfs_digest *queue;
	size_t queue_n, queue_cap;
	int failed; /* something needed was not noted; guarded by lock */
};

/* -ECANCELED when the caller wants no more. */
int cfs_gc_tell(struct cfs_gc *gc, uint64_t done, uint64_t total,
		const char *what);

/* ---- gc_mark.c ---- */

void cfs_gc_mark_fini(struct cfs_gc *gc);
/* A cfs_touch_fn: @arg's object is needed. */
void cfs_gc_touched(void *arg, bool is_map, const struct cfs_digest *digest);
/* All that the namespace and the participant refer to. */
int cfs_gc_mark(struct cfs_gc *gc);
/* Looks into maps that were touched since. */
int cfs_gc_drain(struct cfs_gc *gc);
bool cfs_gc_is_live(struct cfs_gc *gc, bool is_map,
		    const struct cfs_digest *digest);
/* So, and nothing is left to be looked into that could say otherwise. */
bool cfs_gc_is_dead(struct cfs_gc *gc, bool is_map,
		    const struct cfs_digest *digest);

/* ---- gc_forget.c ---- */

/* Keys of dead objects go: maps, then derived chunks, then their parts and
 * the rest. */
int cfs_gc_forget_dead(struct cfs_gc *gc);

/* ---- gc_sweep.c ---- */

struct cfs_gc_pack {
	uint32_t number;
	uint64_t size, live; /* bytes; those of records that are needed */
	bool copied;	     /* some of it was */
};
struct cfs_gc_packs { /* ascending */
	struct cfs_gc_pack *v;
	size_t n, cap;
};
/* How much of each pack is needed. */
int cfs_gc_count(struct cfs_gc *gc, struct cfs_gc_packs *packs);
void cfs_gc_packs_fini(struct cfs_gc_packs *packs);
/* So much is dead that it is given back; what is needed of it is copied. */
bool cfs_gc_is_poor(const struct cfs_gc *gc, const struct cfs_gc_pack *pack);
/* Empties poor packs before @before, and removes them; sorts @packs anew. */
int cfs_gc_sweep(struct cfs_gc *gc, struct cfs_gc_packs *packs,
		 uint32_t before);

#endif
