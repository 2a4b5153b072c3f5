/*
 * What a rank saves: begin, puts, files, objects, their bytes, commit, abort.
 *
 * Only begin and commit are answered.  What else goes wrong is kept by the save
 * (cfs_job_save_fail) and fails it for all; its slots are given back all the
 * same, so that nobody waits for them.  A rank that goes on putting is told
 * once that it is in vain.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/rank/conn.h"
#include "fs/rank/stage.h"

#define NOTED_BYTES_MAX ((uint64_t)64 << 20) /* of one rank's puts */
#define NOTED_PUT	256u		     /* of each, besides names */

/* ---- streams ---- */

static struct cfs_conn_stream *find(struct cfs_conn *conn, uint64_t id)
{
	for (uint32_t i = 0; i < CFS_CONN_STREAMS; i++)
		if (conn->streams[i].stream && conn->streams[i].id == id)
			return &conn->streams[i];
	return NULL;
}

static struct cfs_conn_stream *free_place(struct cfs_conn *conn)
{
	for (uint32_t i = 0; i < CFS_CONN_STREAMS; i++)
		if (!conn->streams[i].stream)
			return &conn->streams[i];
	return NULL;
}

static void forget(struct cfs_conn_stream *s)
{
	free(s->name);
	*s = (struct cfs_conn_stream){.id = 0};
}

void cfs_conn_drop_streams(struct cfs_conn *conn)
{
	for (uint32_t i = 0; i < CFS_CONN_STREAMS; i++) {
		struct cfs_conn_stream *s = &conn->streams[i];

		if (s->stream)
			cfs_stage_drop(s->stream);
		forget(s);
	}
	conn->noted_bytes = 0;
	conn->last_id = 0;
}

static int end(struct cfs_conn_stream *s, struct cfs_error *err)
{
	int r = cfs_stage_end(cfs_steal(s->stream), err);

	forget(s);
	return r;
}

/* What was begun and not ended, as an error. */
static int unfinished(struct cfs_conn *conn, bool puts_only,
		      struct cfs_error *err)
{
	for (uint32_t i = 0; i < CFS_CONN_STREAMS; i++) {
		const struct cfs_conn_stream *s = &conn->streams[i];

		if (!s->stream || (puts_only && !s->put))
			continue;
		return s->put ? cfs_fail(err, -EINVAL,
					 "tensor %s: %llu bytes did not come",
					 s->name, (unsigned long long)s->left)
			      : cfs_fail(err, -EINVAL, "file %s was not ended",
					 s->name);
	}
	return 0;
}

/* ---- beginning one ---- */

static int begin_stream(struct cfs_conn *conn, const struct cfs_op *op,
			const char *name, struct cfs_conn_stream **out,
			struct cfs_error *err)
{
	struct cfs_conn_stream *s = free_place(conn);

	if (op->id <= conn->last_id)
		return cfs_fail(err, -EINVAL,
				"%s: id %llu does not follow %llu", name,
				(unsigned long long)op->id,
				(unsigned long long)conn->last_id);
	if (!s)
		return cfs_fail(err, -EMFILE, "%s: %u files are open already",
				name, CFS_CONN_STREAMS);
	conn->noted_bytes += strlen(name) + NOTED_PUT;
	if (conn->noted_bytes > NOTED_BYTES_MAX)
		return cfs_fail(err, -E2BIG,
				"%s: too many tensors and files for one rank",
				name);
	s->name = strdup(name);
	if (!s->name)
		return -ENOMEM;
	conn->last_id = s->id = op->id;
	*out = s;
	return 0;
}

/* An empty slice of a box that is not; of an empty tensor there is one box. */
static bool is_nothing(const struct cfs_op *op)
{
	for (uint32_t i = 0; i < op->put.ndim; i++)
		if (!op->put.extent[i])
			return false;
	return op->has_flat && !op->put.flat_count;
}

static int begin_put(struct cfs_conn *conn, const struct cfs_op *op,
		     struct cfs_error *err)
{
	struct cfs_stage *stage = cfs_job_save_stage(&conn->member);
	struct cfs_put put = op->put;
	struct cfs_conn_stream *s = NULL;
	int r;

	put.rank = conn->member.rank;
	r = unfinished(conn, true, err);
	if (!r && is_nothing(op))
		return 0;
	if (!r)
		r = cfs_put_check(&put, err);
	if (!r)
		r = begin_stream(conn, op, put.name, &s, err);
	if (r < 0 || !s)
		return r;
	s->put = true;
	s->left = cfs_put_bytes(&put);
	r = cfs_stage_put(stage, &put, &s->stream, err);
	if (r < 0)
		forget(s);
	else if (!s->left)
		r = end(s, err);
	return r;
}

static int begin_file(struct cfs_conn *conn, const struct cfs_op *op,
		      struct cfs_error *err)
{
	struct cfs_stage *stage = cfs_job_save_stage(&conn->member);
	bool object = op->kind == CFS_OP_OBJECT;
	struct cfs_conn_stream *s = NULL;
	int r = begin_stream(conn, op, op->file, &s, err);

	if (r < 0 || !s)
		return r;
	s->left = UINT64_MAX; /* the stage knows how much an object may have */
	r = (object ? cfs_stage_object : cfs_stage_file)(
		stage, conn->member.rank, op->file, &s->stream, err);
	if (r < 0)
		forget(s);
	return r;
}

/* ---- bytes ---- */

static int give_back(struct cfs_conn *conn, uint64_t slot)
{
	cJSON *frame = cJSON_CreateObject();
	cJSON *list = cJSON_AddArrayToObject(frame, "free");

	if (!list ||
	    !cJSON_AddItemToArray(list, cJSON_CreateNumber((double)slot))) {
		cJSON_Delete(frame);
		return -ENOMEM;
	}
	return cfs_conn_say(conn, frame);
}

static int write_data(struct cfs_conn *conn, const struct cfs_op *op,
		      const void *bytes, struct cfs_error *err)
{
	struct cfs_conn_stream *s = find(conn, op->id);
	int r;

	if (!s)
		return cfs_fail(err, -EINVAL, "data: nothing open has id %llu",
				(unsigned long long)op->id);
	if (!bytes)
		return cfs_fail(
			err, -EINVAL,
			"%s: %llu bytes in slot %llu: the ring has %llu "
			"slots of %llu bytes",
			s->name, (unsigned long long)op->len,
			(unsigned long long)op->slot,
			(unsigned long long)conn->ring.n_slots,
			(unsigned long long)conn->ring.slot_bytes);
	if (op->len > s->left)
		return cfs_fail(err, -EINVAL,
				"%s: more bytes came than the slice has",
				s->name);
	r = cfs_stage_write(s->stream, bytes, op->len, err);
	if (r < 0)
		return r;
	s->left -= op->len;
	return s->put && !s->left ? end(s, err) : 0;
}

static int end_file(struct cfs_conn *conn, const struct cfs_op *op,
		    struct cfs_error *err)
{
	struct cfs_conn_stream *s = find(conn, op->id);

	if (!s || s->put)
		return cfs_fail(err, -EINVAL, "end: no open file has id %llu",
				(unsigned long long)op->id);
	return end(s, err);
}

/* ---- all ---- */

static int tell_failed(struct cfs_conn *conn, int r,
		       const struct cfs_error *why)
{
	cJSON *frame, *failed;

	if (conn->told_failed)
		return 0;
	conn->told_failed = true;
	frame = cJSON_CreateObject();
	failed = cJSON_AddObjectToObject(frame, "failed");
	(void)cJSON_AddNumberToObject(failed, "save", (double)conn->save);
	(void)cJSON_AddNumberToObject(failed, "r", r);
	(void)cJSON_AddStringToObject(failed, "error", why->text);
	return cfs_conn_say(conn, frame);
}

static int begin(struct cfs_conn *conn, const struct cfs_op *op, int r,
		 struct cfs_error *err)
{
	if (conn->member.save) {
		r = cfs_fail(err, -EBUSY, "a save is open already");
		return cfs_conn_answer(conn, r, err, NULL);
	}
	cfs_conn_drop_streams(conn);
	conn->save = op->save;
	conn->told_failed = false;
	if (!r && !conn->may_write) {
		*err = conn->why_not;
		r = -EACCES;
	}
	r = cfs_job_save_begin(&conn->member, op, r, err);
	return cfs_conn_answer(conn, r, err, NULL);
}

static int commit(struct cfs_conn *conn, struct cfs_error *err)
{
	int r;

	if (!conn->member.save) {
		r = cfs_fail(err, -EINVAL, "no save is open");
		return cfs_conn_answer(conn, r, err, NULL);
	}
	r = unfinished(conn, false, err);
	if (r < 0)
		cfs_job_save_fail(&conn->member, r, err->text);
	cfs_conn_drop_streams(conn);
	r = cfs_job_save_commit(&conn->member, err);
	return cfs_conn_answer(conn, r, err, NULL);
}

static void abort_save(struct cfs_conn *conn, const char *reason)
{
	cfs_conn_drop_streams(conn);
	cfs_job_save_abort(&conn->member, reason);
	cfs_job_save_drop(&conn->member);
}

/* What only the save hears of. */
static int perform(struct cfs_conn *conn, const struct cfs_op *op,
		   const void *bytes, struct cfs_error *err)
{
	switch (op->kind) {
	case CFS_OP_PUT:
		return begin_put(conn, op, err);
	case CFS_OP_FILE:
	case CFS_OP_OBJECT:
		return begin_file(conn, op, err);
	case CFS_OP_DATA:
		return write_data(conn, op, bytes, err);
	case CFS_OP_END:
		return end_file(conn, op, err);
	case CFS_OP_FAIL:
		return cfs_fail(err, op->r, "%s",
				op->reason ? op->reason : strerror(-op->r));
	default:
		return -EINVAL;
	}
}

int cfs_conn_save_op(struct cfs_conn *conn, const struct cfs_op *op, int r,
		     struct cfs_error *err)
{
	bool data = !r && op->kind == CFS_OP_DATA;
	const void *bytes =
		data ? cfs_ring_slot(&conn->ring, op->slot, op->len) : NULL;
	struct cfs_error why;
	int failed;

	if (op->kind == CFS_OP_BEGIN)
		return begin(conn, op, r, err);
	if (op->kind == CFS_OP_COMMIT)
		return commit(conn, err);
	if (!conn->member.save) /* the save was refused, or has been ended */
		return op->kind == CFS_OP_ABORT
			       ? 0
			       : cfs_fail(err, -EPROTO, "%s: no save is open",
					  op->name);
	if (op->kind == CFS_OP_ABORT) {
		abort_save(conn, r ? NULL : op->reason);
		return 0;
	}
	failed = cfs_job_save_check(&conn->member, &why);
	if (!failed) {
		if (!r)
			r = perform(conn, op, bytes, err);
		if (r < 0)
			cfs_job_save_fail(&conn->member, r, err->text);
		failed = r < 0 ? cfs_job_save_check(&conn->member, &why) : 0;
	}
	r = 0;
	if (failed) {
		cfs_conn_drop_streams(conn);
		r = tell_failed(conn, failed, &why);
	}
	return !r && data && op->slot < conn->ring.n_slots
		       ? give_back(conn, op->slot)
		       : r;
}
