/* Elements of tensors as a verb streams over them: block by block. */
#ifndef CFS_CLI_ELEMENTS_H
#define CFS_CLI_ELEMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/map/dtype.h"
#include "store/util/base.h"

struct cfs_error;
struct cfs_filepool;
struct cfs_map;
struct cfs_reader;

/* Elements a block: bounds the memory of every verb. */
#define CFS_ELEMENTS_BLOCK 131072u

/* One tensor being read. */
struct cfs_elements {
	struct cfs_reader *reader;
	enum cfs_dtype dtype;
	uint32_t size;	    /* bytes of an element */
	uint64_t numel, at; /* elements; the next to be read */
	uint8_t *raw;	    /* the block: n elements */
	size_t n;
};

/* @map is borrowed until this returns; @pool until close. */
CFS_MUST_CHECK int cfs_elements_open(struct cfs_map *map,
				     struct cfs_filepool *pool,
				     enum cfs_dtype dtype,
				     struct cfs_elements *out,
				     struct cfs_error *err);
void cfs_elements_close(struct cfs_elements *e); /* for _cleanup_ too */
/* Reads the next block: 1, 0 at the end, or a negative errno. */
CFS_MUST_CHECK int cfs_elements_next(struct cfs_elements *e,
				     struct cfs_error *err);

/* Can elements of this type be compared as numbers? */
bool cfs_elements_is_number(enum cfs_dtype dtype);
/* @n elements as doubles; the type must satisfy the above. */
void cfs_elements_decode(enum cfs_dtype dtype, const void *raw, size_t n,
			 double *out);

/* Counts what is no finite number; nothing for types that have no such. */
void cfs_elements_count(enum cfs_dtype dtype, const void *raw, size_t n,
			uint64_t *nan, uint64_t *inf);

#endif
