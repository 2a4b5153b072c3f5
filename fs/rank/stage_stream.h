/* A stream into a stage, for the files stage_*.c. */
#ifndef CFS_RANK_STAGE_STREAM_H
#define CFS_RANK_STAGE_STREAM_H

#include "fs/rank/stage_internal.h"
#include "store/util/buf.h"

enum cfs_stage_kind {
	CFS_STAGE_IS_PUT,
	CFS_STAGE_IS_FILE,
	CFS_STAGE_IS_OBJECT
};

struct cfs_stage_stream {
	struct cfs_stage *stage;
	enum cfs_stage_kind kind;
	uint32_t rank;
	char *name;	    /* for words */
	struct cfs_put put; /* a put */
	uint64_t left;	    /* a put: bytes to come */
	uint8_t *block;	    /* a put: what came and is not written */
	size_t block_len;
	struct cfs_ns_file *file; /* a file */
	uint64_t at;
	struct cfs_buf data; /* an object */
};

void cfs_stage_stream_freep(struct cfs_stage_stream **s);
/* @name: for words. */
CFS_MUST_CHECK int cfs_stage_stream_new(struct cfs_stage *stage,
					enum cfs_stage_kind kind, uint32_t rank,
					const char *name,
					struct cfs_stage_stream **out,
					struct cfs_error *err);
/* It no longer counts; frees it.  @dropped: the save has failed. */
void cfs_stage_leave(struct cfs_stage_stream *s, bool dropped);

/* stage_put.c */
CFS_MUST_CHECK int cfs_stage_put_write(struct cfs_stage_stream *s,
				       const void *data, size_t len,
				       struct cfs_error *err);
CFS_MUST_CHECK int cfs_stage_put_end(struct cfs_stage_stream *s,
				     struct cfs_error *err);
/* stage_object.c */
CFS_MUST_CHECK int cfs_stage_object_write(struct cfs_stage_stream *s,
					  const void *data, size_t len,
					  struct cfs_error *err);
CFS_MUST_CHECK int cfs_stage_object_end(struct cfs_stage_stream *s,
					struct cfs_error *err);

#endif
