/*
 * Connections of ranks: opening one, then one frame after another until it
 * ends.  However it ends, all that it had goes with it.
 */
#include "fs/rank/server.h"

#include <errno.h>
#include <string.h>

#include "fs/rank/conn.h"
#include "store/util/wire.h"
#include "store/util/workers.h"

struct cfs_rank_server {
	struct cfs_rank_jobs *jobs;
	struct cfs_workers *workers;
};

struct cfs_rank_server *cfs_rank_server_new(void)
{
	struct cfs_rank_server *server = calloc(1, sizeof(*server));

	if (!server)
		return NULL;
	server->jobs = cfs_rank_jobs_new();
	if (!server->jobs || cfs_workers_new(0, &server->workers) < 0) {
		cfs_rank_server_free(server);
		return NULL;
	}
	return server;
}

void cfs_rank_server_stop(struct cfs_rank_server *server)
{
	if (server)
		cfs_rank_jobs_stop(server->jobs);
}

void cfs_rank_server_free(struct cfs_rank_server *server)
{
	if (!server)
		return;
	cfs_workers_freep(&server->workers);
	cfs_rank_jobs_free(server->jobs);
	free(server);
}

void cfs_rank_server_freep(struct cfs_rank_server **server)
{
	cfs_rank_server_free(*server);
}

static void json_freep(cJSON **json)
{
	cJSON_Delete(*json);
}

/* ---- answers ---- */

int cfs_conn_say(struct cfs_conn *conn, cJSON *frame)
{
	int r = frame ? cfs_wire_send(conn->session->fd, frame, NULL, 0)
		      : -ENOMEM;

	cJSON_Delete(frame);
	return r;
}

int cfs_conn_answer(struct cfs_conn *conn, int r, const struct cfs_error *err,
		    cJSON *result)
{
	cJSON *frame = result ? result : cJSON_CreateObject();
	const char *text = r ? err->text : "";

	if (r && !*text)
		text = strerror(-r);
	if (!cJSON_AddNumberToObject(frame, "r", r) ||
	    !cJSON_AddStringToObject(frame, "error", text)) {
		cJSON_Delete(frame);
		return -ENOMEM;
	}
	return cfs_conn_say(conn, frame);
}

/* ---- operations ---- */

static bool saves(enum cfs_op_kind kind)
{
	return kind <= CFS_OP_ABORT;
}

static int serve_load(struct cfs_conn *conn, const struct cfs_op *op, int r,
		      struct cfs_error *err)
{
	_cleanup_(json_freep) cJSON *result = cJSON_CreateObject();

	if (!result)
		return -ENOMEM;
	if (!r)
		r = cfs_conn_load_op(conn, op, result, err);
	if (r < 0)
		return cfs_conn_answer(conn, r, err, NULL);
	return cfs_conn_answer(conn, 0, err, cfs_steal(result));
}

/* One frame; negative: the connection is over. */
static int serve_frame(struct cfs_conn *conn, struct cfs_op *op,
		       struct cfs_error *err)
{
	_cleanup_(json_freep) cJSON *frame = NULL;
	int r;

	err->text[0] = '\0';
	r = cfs_wire_receive(conn->session->fd, CFS_OP_FRAME_MAX, &frame, NULL);
	if (r < 0)
		return r;
	r = cfs_op_decode(frame, op, err);
	if (!op->name)
		return r;
	if (saves(op->kind))
		return cfs_conn_save_op(conn, op, r, err);
	return serve_load(conn, op, r, err);
}

/* Where it is the daemon that ends, and the rank listens. */
static void say_goodbye(struct cfs_conn *conn)
{
	struct cfs_error why;
	cJSON *frame, *failed;

	if (!cfs_rank_job_stopping(conn->member.job, &why))
		return;
	frame = cJSON_CreateObject();
	failed = cJSON_AddObjectToObject(frame, "failed");
	(void)cJSON_AddNumberToObject(failed, "r", -EPIPE);
	(void)cJSON_AddStringToObject(failed, "error", why.text);
	(void)!cfs_conn_say(conn, frame);
}

static void serve_frames(struct cfs_conn *conn)
{
	struct cfs_op *op = calloc(1, sizeof(*op));
	struct cfs_error err = {""};
	int r = op ? 0 : -ENOMEM;

	while (!r)
		r = serve_frame(conn, op, &err);
	/* what cannot be understood is told; what follows it is not read */
	if (r == -EPIPE)
		say_goodbye(conn);
	else
		(void)!cfs_conn_answer(conn, r, &err, NULL);
	free(op);
}

/* ---- opening ---- */

/* Those who may not write may still read. */
static int look_up_rights(struct cfs_conn *conn, const char *run,
			  struct cfs_error *err)
{
	int r = cfs_access_check(conn->context->ns, run, &conn->user,
				 W_OK | X_OK, &conn->why_not);

	conn->may_write = !r;
	if (!r || r == -EACCES || r == -EROFS)
		return 0;
	*err = conn->why_not;
	return r;
}

static int tell_job(struct cfs_conn *conn)
{
	cJSON *frame = cJSON_CreateObject();

	if (frame)
		(void)cJSON_AddStringToObject(
			frame, "job", cfs_rank_job_token(conn->member.job));
	return cfs_conn_say(conn, frame);
}

static int answer_open(struct cfs_conn *conn)
{
	struct cfs_error none = {""};
	cJSON *result = cJSON_CreateObject();

	if (!result)
		return -ENOMEM;
	(void)cJSON_AddStringToObject(result, "job",
				      cfs_rank_job_token(conn->member.job));
	(void)cJSON_AddBoolToObject(result, "may_write", conn->may_write);
	return cfs_conn_answer(conn, 0, &none, result);
}

static int open_conn(struct cfs_conn *conn, struct cfs_rank_server *server,
		     struct cfs_error *err)
{
	const struct cfs_session *session = conn->session;
	_cleanup_(cfs_freep) char *run = NULL;
	struct cfs_op_hello hello = {.run = NULL};
	int r;

	r = cfs_op_hello(session->arguments, &hello, err);
	run = hello.run;
	if (!r)
		r = cfs_ring_map(&conn->ring, session->fds[0], hello.slots,
				 hello.slot_bytes, err);
	if (!r)
		r = look_up_rights(conn, run, err);
	if (!r)
		r = cfs_rank_job_join(server->jobs, conn->context, session,
				      &hello, &conn->member, err);
	if (!r && !hello.rank)
		r = tell_job(conn);
	if (!r)
		r = cfs_rank_job_gather(&conn->member, err);
	return r;
}

void cfs_rank_server_session(void *arg, struct cfs_verb_context *context,
			     const struct cfs_session *session)
{
	struct cfs_rank_server *server = arg;
	struct cfs_conn *conn = calloc(1, sizeof(*conn));
	struct cfs_error err = {""};
	int r;

	if (!conn)
		return;
	conn->session = session;
	conn->context = context;
	conn->workers = server->workers;
	conn->user = (struct cfs_access_user){
		session->uid, session->gid, session->groups, session->n_groups};
	r = open_conn(conn, server, &err);
	if (r < 0)
		(void)!cfs_conn_answer(conn, r, &err, NULL);
	else if (!answer_open(conn))
		serve_frames(conn);
	cfs_conn_drop_loads(conn);
	cfs_conn_drop_streams(conn);
	cfs_rank_job_leave(&conn->member);
	cfs_ring_unmap(&conn->ring);
	free(conn);
}
