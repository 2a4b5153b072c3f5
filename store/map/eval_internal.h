/* The evaluation of maps, for the files of this directory only. */
#ifndef CFS_MAP_EVAL_INTERNAL_H
#define CFS_MAP_EVAL_INTERNAL_H

#include "store/map/blockcache.h"
#include "store/map/filepool.h"
#include "store/map/map_internal.h"

/* The open files of a reader; file i of the table is files[i - first]. */
struct cfs_eval_files {
	struct cfs_filepool *pool;
	struct cfs_file **files;
	uint32_t first, n;
};

/* One evaluation by one thread. */
struct cfs_eval {
	const struct cfs_eval_files *files;
	struct cfs_blockcache *cache; /* or NULL */
	struct cfs_file *touched[16]; /* read from, not yet checked */
	unsigned n_touched;
};

/*
 * Bytes [@off, @off + @len), which lie in @map.  They must not be used before
 * cfs_eval_check() has said 0.  @cached: computed blocks go through the cache.
 */
CFS_MUST_CHECK int cfs_eval_read(struct cfs_eval *ev, const struct cfs_map *map,
				 uint64_t off, uint8_t *buf, uint64_t len,
				 bool cached);
CFS_MUST_CHECK int cfs_eval_check(struct cfs_eval *ev);
/* Tells the sources that these bytes will be read soon. */
void cfs_eval_advise(const struct cfs_eval_files *files,
		     const struct cfs_map *map, uint64_t off, uint64_t len);

/* Bytes [@off, @off + @len) of a gather (gather.c). */
CFS_MUST_CHECK int cfs_eval_gather(struct cfs_eval *ev,
				   const struct cfs_expr *expr, uint64_t off,
				   uint8_t *buf, uint64_t len);
/* The bytes of the child that the first and last of those lie between. */
void cfs_eval_gather_span(const struct cfs_expr *expr, uint64_t off,
			  uint64_t len, uint64_t *start_out, uint64_t *end_out);

#endif
