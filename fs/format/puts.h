/*
 * A step that ranks put piece by piece, and the files that formats make of it.
 *
 *   puts ─▶ whole tensors (coverage proved) ─▶ files of a format, as maps
 *
 * No I/O but reading objects.  The maps' ranges are of the files that the
 * pieces lie in.
 */
#ifndef CFS_FORMAT_PUTS_H
#define CFS_FORMAT_PUTS_H

#include <stddef.h>
#include <stdint.h>

#include "store/map/dtype.h"
#include "store/util/base.h"

struct cfs_error;
struct cfs_filepool;
struct cfs_filetab;
struct cfs_map;
struct cfs_source;

#define CFS_PUT_DIMS_MAX 8

/* A slice of a tensor; include/ckptfs/rank.h, struct cfs_rank_tensor. */
struct cfs_put {
	const char *name, *role;
	enum cfs_dtype dtype;
	uint32_t ndim;
	uint64_t shape[CFS_PUT_DIMS_MAX];
	uint64_t offset[CFS_PUT_DIMS_MAX];
	uint64_t extent[CFS_PUT_DIMS_MAX];
	uint64_t flat_start, flat_count; /* of the box; count not 0 unless the
					    box is empty */
	uint32_t rank;
	uint32_t file;	   /* row of the file table */
	uint64_t file_off; /* where its bytes begin there */
	uint64_t hash;	   /* equal for equal bytes */
};

struct cfs_put_object {
	const char *name;
	const void *data; /* in memory: objects are small */
	size_t len;
};

struct cfs_puts {
	struct cfs_filetab *files;
	const struct cfs_put *puts;
	size_t n_puts;
	const struct cfs_put_object *objects;
	size_t n_objects;
	int64_t step; /* the number at the end of the step's name; -1 none */
	uint32_t dp;  /* what "dp_world_size" says */
	int zero_stage;
};

/* Checks one put by itself, before any byte of it comes: -EINVAL with the
 * tensor named.  Fills in flat_count. */
CFS_MUST_CHECK int cfs_put_check(struct cfs_put *put, struct cfs_error *err);
/* Bytes of it. */
uint64_t cfs_put_bytes(const struct cfs_put *put);

/* One file: @map is sealed, borrowed.  Non-zero stops and is returned. */
typedef int cfs_puts_file_fn(void *arg, const char *name, struct cfs_map *map);

/*
 * All files of the step, one after another.  -EINVAL: pieces that contradict
 * each other, overlap, leave a gap, or lack what the format needs; -ENOTSUP.
 * @err names the tensor, and where ranks disagree, both.
 */
CFS_MUST_CHECK int cfs_puts_universal(const struct cfs_puts *puts,
				      cfs_puts_file_fn *fn, void *arg,
				      struct cfs_error *err);
CFS_MUST_CHECK int cfs_puts_safetensors(const struct cfs_puts *puts,
					cfs_puts_file_fn *fn, void *arg,
					struct cfs_error *err);

#endif
