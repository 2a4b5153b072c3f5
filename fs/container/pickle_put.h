/* Single values in protocol 2; internal to pickle_write.c. */
#ifndef CFS_CONTAINER_PICKLE_PUT_H
#define CFS_CONTAINER_PICKLE_PUT_H

#include <stdint.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_error;
struct cfs_node;

void cfs_pickle_put_memo(struct cfs_buf *out, uint32_t index);
void cfs_pickle_put_get(struct cfs_buf *out, uint32_t index);
/* What has no children: numbers, text, bytes, names, (). */
CFS_MUST_CHECK int cfs_pickle_put_leaf(struct cfs_buf *out,
				       const struct cfs_node *node,
				       struct cfs_error *err);

#endif
