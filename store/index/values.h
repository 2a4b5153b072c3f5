/* Limits that the decoders of values share; private to store/index. */
#ifndef CFS_INDEX_VALUES_H
#define CFS_INDEX_VALUES_H

#include <stdbool.h>
#include <stdint.h>

#define FILE_BYTES_MAX	(UINT64_C(1) << 62)
#define CHUNK_BYTES_MAX (4u << 20) /* FORMAT.md, "Chunk" */

struct cfs_extent;

/* Within its chunk and within a file of @size bytes, and not empty. */
bool cfs_values_extent_ok(const struct cfs_extent *e, uint64_t size);

#endif
