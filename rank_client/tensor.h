/* Slices of tensors: what the caller says, checked and made whole. */
#ifndef CFS_RANK_CLIENT_TENSOR_H
#define CFS_RANK_CLIENT_TENSOR_H

#include <cjson/cJSON.h>

#include "ckptfs/rank.h"
#include "store/util/base.h"

struct cfs_error;

/* @from, of whatever size, with flat_count filled in.  @bytes_out: of its
 * elements.  -EINVAL names the tensor. */
CFS_MUST_CHECK int cfs_tensor_take(const struct cfs_rank_tensor *from,
				   struct cfs_rank_tensor *out,
				   uint64_t *bytes_out, struct cfs_error *err);
/* Its members into @json; the shape only @with_shape. */
void cfs_tensor_tell(const struct cfs_rank_tensor *t, int with_shape,
		     cJSON *json);
/* One of a list, whole: borrows the strings of @json.  -EBADMSG. */
CFS_MUST_CHECK int cfs_tensor_read(const cJSON *json,
				   struct cfs_rank_tensor *out);

#endif
