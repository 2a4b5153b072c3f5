/*
 * A small YAML or JSON document as a tree of cJSON, its plain scalars taken for
 * numbers and truths as PyYAML takes them (YAML 1.1).  Pure: no I/O.
 */
#ifndef CFS_CONTAINER_YAML_H
#define CFS_CONTAINER_YAML_H

#include <stddef.h>

#include "store/util/base.h"

struct cJSON;
struct cfs_error;

/* More of a document is -E2BIG: aliases make much of little. */
#define CFS_YAML_NODES_MAX 16384u
#define CFS_YAML_DEPTH_MAX 64u

/*
 * The first document in @text; an empty one is null.  Of a key that comes twice
 * the last value counts, as in PyYAML.  The caller deletes *out.  -EINVAL with
 * the line in @err: no YAML, or a key that is no scalar; -ENOTSUP: a tag or a
 * merge key; -E2BIG; -ENOMEM.
 */
CFS_MUST_CHECK int cfs_yaml_read(const void *text, size_t len,
				 struct cJSON **out, struct cfs_error *err);

#endif
