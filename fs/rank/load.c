/* Operations that read: what a connection has open, and by which numbers. */
#include "fs/rank/load.h"

#include <errno.h>
#include <string.h>

#include "fs/format/format.h"

static struct cfs_rank_loads *loads_of(struct cfs_conn *conn)
{
	if (!conn->loads)
		conn->loads = calloc(1, sizeof(*conn->loads));
	return conn->loads;
}

static int find_load(struct cfs_conn *conn, uint64_t id, struct cfs_load **out,
		     struct cfs_error *err)
{
	for (uint32_t i = 0; i < CFS_LOADS_MAX; i++) {
		*out = &conn->loads->loads[i];
		if (id && (*out)->id == id)
			return 0;
	}
	return cfs_fail(err, -EINVAL, "no step is open as load %llu",
			(unsigned long long)id);
}

static int find_handle(struct cfs_conn *conn, uint64_t id,
		       struct cfs_load_handle **out, struct cfs_error *err)
{
	for (uint32_t i = 0; i < CFS_LOAD_HANDLES_MAX; i++) {
		*out = &conn->loads->handles[i];
		if (id && (*out)->id == id)
			return 0;
	}
	return cfs_fail(err, -EINVAL, "nothing is open as handle %llu",
			(unsigned long long)id);
}

static void put_number(cJSON *result, const char *name, uint64_t v)
{
	(void)cJSON_AddNumberToObject(result, name, (double)v);
}

static void close_handle(struct cfs_load_handle *handle)
{
	cfs_reader_close(handle->reader);
	if (handle->file)
		cfs_file_close(handle->file);
	*handle = (struct cfs_load_handle){.id = 0};
}

static void close_load(struct cfs_conn *conn, struct cfs_load *load)
{
	for (uint32_t i = 0; i < CFS_LOAD_HANDLES_MAX; i++)
		if (conn->loads->handles[i].load == load->id)
			close_handle(&conn->loads->handles[i]);
	cfs_load_fini(load);
}

void cfs_conn_drop_loads(struct cfs_conn *conn)
{
	if (!conn->loads)
		return;
	for (uint32_t i = 0; i < CFS_LOADS_MAX; i++)
		close_load(conn, &conn->loads->loads[i]);
	free(conn->loads);
	conn->loads = NULL;
}

/* ---- operations ---- */

static int load(struct cfs_conn *conn, const struct cfs_op *op, cJSON *result,
		struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *name = NULL;
	struct cfs_load *place = NULL;
	int r;

	for (uint32_t i = 0; i < CFS_LOADS_MAX && !place; i++)
		if (!conn->loads->loads[i].id)
			place = &conn->loads->loads[i];
	if (!place)
		return cfs_fail(err, -EMFILE, "%u steps are open already",
				CFS_LOADS_MAX);
	r = cfs_load_open(conn, op->step, place, &name, err);
	if (r < 0) {
		cfs_load_fini(place);
		return r;
	}
	place->id = ++conn->loads->last_id;
	put_number(result, "load", place->id);
	(void)cJSON_AddStringToObject(result, "step", name);
	return 0;
}

static int check_tensors(const struct cfs_load *l, struct cfs_error *err)
{
	if (l->tensors_r)
		*err = l->tensors_err;
	return l->tensors_r;
}

static int list(struct cfs_conn *conn, const struct cfs_op *op, cJSON *result,
		struct cfs_error *err)
{
	struct cfs_load *l;
	int r = find_load(conn, op->load, &l, err);

	if (!r)
		r = check_tensors(l, err);
	return r < 0 ? r
		     : cfs_load_list(l->whole->ranks[0].catalogue, op->from,
				     result);
}

static int open_slice(struct cfs_load *l, const struct cfs_op *op,
		      struct cfs_load_handle *handle, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	int r = check_tensors(l, err);

	if (!r)
		r = cfs_load_slice(l->whole, op, &map, err);
	if (!r)
		r = cfs_reader_open(map, l->whole->pool, NULL, &handle->reader,
				    err);
	if (!r)
		handle->size = cfs_map_size(map);
	return r;
}

static int open_handle(struct cfs_conn *conn, const struct cfs_op *op,
		       cJSON *result, struct cfs_error *err)
{
	struct cfs_load_handle *place = NULL;
	struct cfs_load *l;
	int r = find_load(conn, op->load, &l, err);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < CFS_LOAD_HANDLES_MAX && !place; i++)
		if (!conn->loads->handles[i].id)
			place = &conn->loads->handles[i];
	if (!place)
		return cfs_fail(err, -EMFILE,
				"%u tensors and files are open already",
				CFS_LOAD_HANDLES_MAX);
	r = op->kind == CFS_OP_SLICE
		    ? open_slice(l, op, place, err)
		    : cfs_load_file(conn, l, op->file, place, err);
	if (r < 0) {
		close_handle(place);
		return r;
	}
	place->id = ++conn->loads->last_id;
	place->load = l->id;
	put_number(result, "handle", place->id);
	put_number(result, "size", place->size);
	return 0;
}

static int read_handle(struct cfs_conn *conn, const struct cfs_op *op,
		       struct cfs_error *err)
{
	struct cfs_load_handle *handle;
	int r = find_handle(conn, op->handle, &handle, err);

	return r < 0 ? r : cfs_load_read(conn, handle, op, err);
}

static int close_one(struct cfs_conn *conn, const struct cfs_op *op,
		     struct cfs_error *err)
{
	struct cfs_load_handle *handle;
	struct cfs_load *l;
	int r;

	if (op->load) {
		r = find_load(conn, op->load, &l, err);
		if (!r)
			close_load(conn, l);
	} else {
		r = find_handle(conn, op->handle, &handle, err);
		if (!r)
			close_handle(handle);
	}
	return r;
}

int cfs_conn_load_op(struct cfs_conn *conn, const struct cfs_op *op,
		     cJSON *result, struct cfs_error *err)
{
	if (!loads_of(conn))
		return -ENOMEM;
	switch (op->kind) {
	case CFS_OP_LOAD:
		return load(conn, op, result, err);
	case CFS_OP_LIST:
		return list(conn, op, result, err);
	case CFS_OP_SLICE:
	case CFS_OP_OPEN:
		return open_handle(conn, op, result, err);
	case CFS_OP_READ:
		return read_handle(conn, op, err);
	case CFS_OP_CLOSE:
		return close_one(conn, op, err);
	default:
		return -EINVAL;
	}
}
