/* Frames of the protocol, as they go over the socket, behind one another. */
#ifndef CFS_RANK_CLIENT_FRAME_H
#define CFS_RANK_CLIENT_FRAME_H

#include <cjson/cJSON.h>

#include "store/util/base.h"

struct cfs_buf;

/* Takes @json over; NULL, or memory that lacks, makes @out->failed. */
void cfs_frame_put(struct cfs_buf *out, cJSON *json);
void cfs_frame_put_data(struct cfs_buf *out, uint64_t id, uint32_t slot,
			uint32_t len);
void cfs_frame_put_end(struct cfs_buf *out, uint64_t id);
/* Why the save failed here; it stays open until its commit. */
void cfs_frame_put_fail(struct cfs_buf *out, int r, const char *reason);
void cfs_frame_put_abort(struct cfs_buf *out, const char *reason);

/* {"op": @op} */
/* A begin that is none, for @reason. */
void cfs_frame_put_refusal(struct cfs_buf *out, uint64_t save, int r,
			   const char *reason);
cJSON *cfs_frame_op(const char *op);
/* @name: [@n numbers] */
void cfs_frame_add_u64s(cJSON *json, const char *name, const uint64_t *v,
			unsigned n);

/* Numbers and text of an answer; -EBADMSG where they are none. */
CFS_MUST_CHECK int cfs_frame_get_u64(const cJSON *json, const char *name,
				     uint64_t *out);
const char *cfs_frame_get_str(const cJSON *json, const char *name);

#endif
