/* A step open for reading: its tensors, slices of them, its files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rank_client/frame.h"
#include "rank_client/load_internal.h"
#include "rank_client/tensor.h"

static int check(const struct cfs_rank_load *load, struct cfs_error *err)
{
	if (!load)
		return cfs_fail(err, -EINVAL, "no load is given");
	return cfs_rank_check(load->rank, err);
}

static int nonsense(struct cfs_error *err)
{
	return cfs_fail(err, -EBADMSG, "the daemon speaks nonsense");
}

/* Nobody waits for that. */
static void tell_close(struct cfs_rank *rank, const char *what, uint64_t id)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;
	cJSON *json = cfs_frame_op("close");
	struct cfs_link_call *call;
	struct cfs_error quiet;

	cJSON_AddNumberToObject(json, what, (double)id);
	cfs_frame_put(&frames, json);
	if (!cfs_link_send(rank->link, &frames, NULL, NULL, 0, NULL, &call,
			   &quiet))
		cfs_link_drop(rank->link, call);
}

/* ---- open, close ---- */

void cfs_rank_load_end(struct cfs_rank_load *load)
{
	struct cfs_rank_load **at;

	if (!load)
		return;
	for (at = &load->rank->loads; *at != load; at = &(*at)->next)
		;
	*at = load->next;
	if (!load->rank->forked)
		tell_close(load->rank, "load", load->id);
	free(load->file);
	free(load->step);
	free(load);
}

void cfs_rank_load_close(struct cfs_rank_load *load)
{
	(void)cfs_rank_err();
	if (load && load->file && !load->rank->forked)
		tell_close(load->rank, "handle", load->handle);
	cfs_rank_load_end(load);
}

int cfs_rank_load_open(struct cfs_rank *rank, const char *step,
		       struct cfs_rank_load **load_out)
{
	_cleanup_(cfs_rank_json_freep) cJSON *answer = NULL;
	struct cfs_error *err = cfs_rank_err();
	struct cfs_rank_load *load;
	const char *name;
	uint64_t id;
	cJSON *json;
	int r = cfs_rank_check(rank, err);

	if (r < 0)
		return r;
	if (step && !step[0])
		return cfs_fail(err, -EINVAL, "\"\" is no step's name");
	json = cfs_frame_op("load");
	cJSON_AddStringToObject(json, "step", step ? step : "");
	r = cfs_rank_ask(rank, json, &answer, err);
	if (r < 0)
		return r;
	name = cfs_frame_get_str(answer, "step");
	if (!name || cfs_frame_get_u64(answer, "load", &id) < 0)
		return nonsense(err);
	load = calloc(1, sizeof(*load));
	if (load)
		load->step = strdup(name);
	if (!load || !load->step) {
		tell_close(rank, "load", id);
		free(load);
		return cfs_fail(err, -ENOMEM, "no memory for a load");
	}
	load->rank = rank;
	load->id = id;
	load->next = rank->loads;
	rank->loads = load;
	*load_out = load;
	return 0;
}

const char *cfs_rank_load_step(const struct cfs_rank_load *load)
{
	return load->step;
}

/* ---- tensors ---- */

static int pass_on(const cJSON *tensors,
		   int (*fn)(void *arg, const struct cfs_rank_tensor *tensor),
		   void *arg, struct cfs_error *err)
{
	struct cfs_rank_tensor t;
	const cJSON *v;
	int r;

	if (!cJSON_IsArray(tensors))
		return nonsense(err);
	cJSON_ArrayForEach(v, tensors)
	{
		if (cfs_tensor_read(v, &t) < 0)
			return nonsense(err);
		r = fn(arg, &t);
		if (r)
			return r;
	}
	return 0;
}

int cfs_rank_list(struct cfs_rank_load *load,
		  int (*fn)(void *arg, const struct cfs_rank_tensor *tensor),
		  void *arg)
{
	struct cfs_error *err = cfs_rank_err();
	uint64_t from = 0, next;
	int r = check(load, err);

	while (!r) {
		_cleanup_(cfs_rank_json_freep) cJSON *answer = NULL;
		cJSON *json = cfs_frame_op("list");

		cJSON_AddNumberToObject(json, "load", (double)load->id);
		cJSON_AddNumberToObject(json, "from", (double)from);
		r = cfs_rank_ask(load->rank, json, &answer, err);
		if (!r)
			r = pass_on(cJSON_GetObjectItemCaseSensitive(answer,
								     "tensors"),
				    fn, arg, err);
		if (r || !cJSON_HasObjectItem(answer, "next"))
			break;
		if (cfs_frame_get_u64(answer, "next", &next) < 0 ||
		    next <= from)
			return nonsense(err);
		from = next;
	}
	return r;
}

/* What an answer opened. */
static int take_handle(const cJSON *answer, uint64_t *handle, uint64_t *size,
		       struct cfs_error *err)
{
	if (cfs_frame_get_u64(answer, "handle", handle) < 0 ||
	    cfs_frame_get_u64(answer, "size", size) < 0)
		return nonsense(err);
	return 0;
}

int cfs_rank_get(struct cfs_rank_load *load,
		 const struct cfs_rank_tensor *tensor, void *data,
		 uint32_t memory, void *stream)
{
	_cleanup_(cfs_rank_json_freep) cJSON *answer = NULL;
	struct cfs_inflow to = {data, memory, stream};
	struct cfs_error *err = cfs_rank_err();
	struct cfs_rank_tensor t = {.size = 0};
	uint64_t bytes = 0, handle = 0, size = 0;
	cJSON *json;
	int r = check(load, err);

	if (!r)
		r = cfs_tensor_take(tensor, &t, &bytes, err);
	if (r < 0)
		return r;
	json = cfs_frame_op("slice");
	cJSON_AddNumberToObject(json, "load", (double)load->id);
	cfs_tensor_tell(&t, 0, json);
	r = cfs_rank_ask(load->rank, json, &answer, err);
	if (!r)
		r = take_handle(answer, &handle, &size, err);
	if (r < 0)
		return r;
	if (size != bytes)
		r = cfs_fail(err, -EBADMSG,
			     "tensor %s: the daemon has %llu bytes of the %llu "
			     "asked for",
			     t.name, (unsigned long long)size,
			     (unsigned long long)bytes);
	else
		r = cfs_inflow_read(load, handle, 0, bytes, &to, err);
	tell_close(load->rank, "handle", handle);
	return r;
}

/* ---- files ---- */

static int open_file(struct cfs_rank_load *load, const char *name,
		     struct cfs_error *err)
{
	_cleanup_(cfs_rank_json_freep) cJSON *answer = NULL;
	_cleanup_(cfs_freep) char *copy = NULL;
	cJSON *json;
	int r;

	if (!name || !name[0])
		return cfs_fail(err, -EINVAL, "a file has no name");
	if (load->file && !strcmp(load->file, name))
		return 0;
	copy = strdup(name);
	if (!copy)
		return cfs_fail(err, -ENOMEM, "no memory for a file");
	if (load->file) {
		tell_close(load->rank, "handle", load->handle);
		free(cfs_steal(load->file));
	}
	json = cfs_frame_op("open");
	cJSON_AddNumberToObject(json, "load", (double)load->id);
	cJSON_AddStringToObject(json, "name", name);
	r = cfs_rank_ask(load->rank, json, &answer, err);
	if (!r)
		r = take_handle(answer, &load->handle, &load->size, err);
	if (!r)
		load->file = cfs_steal(copy);
	return r;
}

int cfs_rank_file_size(struct cfs_rank_load *load, const char *name,
		       uint64_t *size_out)
{
	struct cfs_error *err = cfs_rank_err();
	int r = check(load, err);

	if (!r)
		r = open_file(load, name, err);
	if (!r)
		*size_out = load->size;
	return r;
}

int cfs_rank_file_read(struct cfs_rank_load *load, const char *name,
		       uint64_t off, uint64_t len, void *data, uint32_t memory,
		       void *stream)
{
	struct cfs_inflow to = {data, memory, stream};
	struct cfs_error *err = cfs_rank_err();
	int r = check(load, err);

	if (!r)
		r = open_file(load, name, err);
	if (!r && (off > load->size || len > load->size - off))
		r = cfs_fail(err, -EINVAL,
			     "%s: %llu bytes at %llu of a file of %llu", name,
			     (unsigned long long)len, (unsigned long long)off,
			     (unsigned long long)load->size);
	return r < 0 ? r
		     : cfs_inflow_read(load, load->handle, off, len, &to, err);
}

int cfs_rank_get_object(struct cfs_rank_load *load, const char *name,
			void **bytes_out, size_t *len_out)
{
	_cleanup_(cfs_freep) char *path = NULL;
	_cleanup_(cfs_freep) void *bytes = NULL;
	struct cfs_inflow to = {NULL, CFS_RANK_HOST, NULL};
	struct cfs_error *err = cfs_rank_err();
	int r = check(load, err);

	if (r < 0)
		return r;
	if (!name || !name[0])
		return cfs_fail(err, -EINVAL, "an object has no name");
	if (asprintf(&path, "ckptfs/%s", name) < 0) {
		path = NULL;
		return cfs_fail(err, -ENOMEM, "no memory for an object");
	}
	r = open_file(load, path, err);
	if (r < 0)
		return r;
	to.data = bytes = malloc(load->size ? load->size : 1);
	if (!bytes)
		return cfs_fail(err, -ENOMEM, "object %s: no memory for it",
				name);
	r = cfs_inflow_read(load, load->handle, 0, load->size, &to, err);
	if (r < 0)
		return r;
	*len_out = load->size;
	*bytes_out = cfs_steal(bytes);
	return 0;
}
