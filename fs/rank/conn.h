/* One rank's connection, on the thread that serves it. */
#ifndef CFS_RANK_CONN_H
#define CFS_RANK_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "fs/daemon/control.h"
#include "fs/rank/access.h"
#include "fs/rank/job.h"
#include "fs/rank/op.h"
#include "fs/rank/ring.h"
#include "store/util/error.h"

struct cfs_rank_loads;
struct cfs_stage_stream;
struct cfs_workers;

#define CFS_CONN_STREAMS 64u /* open at once */

struct cfs_conn_stream {
	uint64_t id;
	struct cfs_stage_stream *stream; /* NULL: the place is free */
	bool put;			 /* ends by itself */
	uint64_t left;			 /* bytes that may still come */
	char *name;
};

struct cfs_conn {
	const struct cfs_session *session;
	struct cfs_verb_context *context;
	struct cfs_access_user user;
	struct cfs_ring ring;
	struct cfs_rank_member member;
	bool may_write;
	struct cfs_error why_not; /* it may not */
	/* of the save */
	struct cfs_conn_stream streams[CFS_CONN_STREAMS];
	uint64_t last_id;
	uint64_t noted_bytes; /* that the save remembers of its puts */
	uint64_t save;	      /* the rank's number of it */
	bool told_failed;     /* that it has */
	struct cfs_rank_loads *loads;
	struct cfs_workers *workers; /* borrowed: they decode */
};

/* 0 or -EPIPE, …: the connection is over. */
CFS_MUST_CHECK int cfs_conn_say(struct cfs_conn *conn, cJSON *frame); /* owns */
/* {"r": …, "error": …}, and what @result (owned; or NULL) has besides. */
CFS_MUST_CHECK int cfs_conn_answer(struct cfs_conn *conn, int r,
				   const struct cfs_error *err, cJSON *result);

/* ---- streams.c: operations of a save ---- */

/* Negative: the connection is over, because of what @err says. */
CFS_MUST_CHECK int cfs_conn_save_op(struct cfs_conn *conn,
				    const struct cfs_op *op, int refused,
				    struct cfs_error *err);
void cfs_conn_drop_streams(struct cfs_conn *conn);

/* ---- load.c: operations that read ---- */

/* Adds to @result. */
CFS_MUST_CHECK int cfs_conn_load_op(struct cfs_conn *conn,
				    const struct cfs_op *op, cJSON *result,
				    struct cfs_error *err);
void cfs_conn_drop_loads(struct cfs_conn *conn);

#endif
