/*
 * safetensors: a header that names tensors, then their bytes.
 *
 *   u64 length │ JSON, padded with blanks │ tensors, without holes
 *
 * Private to fs/format/safetensors.
 */
#ifndef CFS_FORMAT_SAFETENSORS_H
#define CFS_FORMAT_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/map/dtype.h"
#include "store/util/base.h"

struct cfs_error;
struct cfs_file;
struct cfs_filepool;
struct cfs_source;
struct cfs_step;

#define CFS_ST_WEIGHTS	 "model.safetensors"
#define CFS_ST_OPTIMIZER "optimizer.safetensors"
#define CFS_ST_INDEX	 "model.safetensors.index.json"
/* What other readers accept at most. */
#define CFS_ST_HEADER_MAX 100000000u
#define CFS_ST_DIMS_MAX	  16u

/* ---- names.c ---- */

/* "BF16"; NULL: the format has none. */
const char *cfs_st_dtype_name(enum cfs_dtype dtype);
/* CFS_DTYPE_NONE: not known; CFS_DTYPE_OTHER: known, and opaque. */
enum cfs_dtype cfs_st_dtype(const char *name);
/* In optimizer.safetensors a tensor is called NAME.ROLE: no role has a dot.
 * The role's place in @name, or NULL. */
const char *cfs_st_role(const char *name);

/* ---- header.c: pure ---- */

struct cfs_st_tensor {
	char *name;
	enum cfs_dtype dtype;
	uint32_t ndim;
	uint64_t shape[CFS_ST_DIMS_MAX];
	uint64_t begin, end; /* bytes behind the header */
};

struct cfs_st_header {
	struct cfs_st_tensor *v; /* in order of begin */
	uint32_t n;
};

/* The JSON of @len bytes, of a file with @data_bytes behind it.  -EBADMSG says
 * what is wrong, -ENOTSUP names a type that is not known. */
CFS_MUST_CHECK int cfs_st_header_parse(const char *text, size_t len,
				       uint64_t data_bytes,
				       struct cfs_st_header *out,
				       struct cfs_error *err);
void cfs_st_header_fini(struct cfs_st_header *header);

/* ---- read.c ---- */

int cfs_st_read(struct cfs_source *source, struct cfs_filepool *pool,
		const char *path, struct cfs_step **step_out,
		struct cfs_error *err);
void cfs_st_step_free(struct cfs_step *step);
/* The header of an open file of @size bytes; where its tensors begin. */
CFS_MUST_CHECK int cfs_st_header_read(struct cfs_file *file, uint64_t size,
				      struct cfs_st_header *out,
				      uint64_t *data_out,
				      struct cfs_error *err);

#endif
