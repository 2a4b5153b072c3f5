/*
 * What a rank asks, as numbers and strings within their bounds.  No I/O and
 * no state: everything that one frame alone can have wrong is refused here.
 */
#ifndef CFS_RANK_OP_H
#define CFS_RANK_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cjson/cJSON.h>

#include "fs/format/puts.h"
#include "store/util/base.h"

struct cfs_error;

#define CFS_OP_FRAME_MAX (64u << 10) /* bytes of a frame */
#define CFS_OP_RANKS_MAX 65536u	     /* that files are made for */
#define CFS_OP_JOB_MAX	 4096u	     /* that connect */
#define CFS_OP_SLOTS_MAX 1024u	     /* that one read fills */

/* What opens a connection. */
struct cfs_op_hello {
	char *run;	 /* tidied; the caller's to free */
	const char *job; /* "" none */
	uint32_t rank, n_ranks;
	uint64_t slots, slot_bytes;
	uint32_t timeout_s;
	mode_t umask;
};

enum cfs_op_kind {
	CFS_OP_BEGIN,
	CFS_OP_PUT,
	CFS_OP_FILE,
	CFS_OP_OBJECT,
	CFS_OP_DATA,
	CFS_OP_END,
	CFS_OP_COMMIT,
	CFS_OP_FAIL,
	CFS_OP_ABORT,
	CFS_OP_LOAD,
	CFS_OP_LIST,
	CFS_OP_SLICE,
	CFS_OP_OPEN,
	CFS_OP_READ,
	CFS_OP_CLOSE,
};

/* Members that a kind does not have are 0; strings are the frame's. */
struct cfs_op {
	enum cfs_op_kind kind;
	const char *name; /* of the operation */
	uint64_t id;
	/* begin */
	const char *step, *format, *pointer;
	uint32_t dp, tp, pp;
	int zero_stage;
	bool replace;
	uint64_t save; /* the rank's count of its saves */
	/* put (without rank, file); slice: without shape */
	struct cfs_put put;
	bool has_flat;
	/* file, object, open */
	const char *file;
	/* data */
	uint64_t slot, len;
	const char *reason; /* abort, fail; or NULL */
	int r;		    /* fail: negative */
	/* list, slice, open, close: 0 none */
	uint64_t load, handle, from;
	/* read, with len */
	uint64_t off;
	uint32_t n_slots, slots[CFS_OP_SLOTS_MAX];
};

CFS_MUST_CHECK int cfs_op_hello(const cJSON *arguments,
				struct cfs_op_hello *out,
				struct cfs_error *err);
/* After an error @out has kind and name, the latter NULL where it is unknown.
 */
CFS_MUST_CHECK int cfs_op_decode(const cJSON *frame, struct cfs_op *out,
				 struct cfs_error *err);
/* "float32", …; CFS_DTYPE_NONE and NULL where there is no such. */
enum cfs_dtype cfs_op_dtype(const char *name);
const char *cfs_op_dtype_name(enum cfs_dtype dtype);

#endif
