/* Asks the daemon, or does it here. */
#include "fs/daemon/control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fs/daemon/open.h"
#include "fs/daemon/verb.h"
#include "store/util/wire.h"
#include "store/core/store.h"

static void json_freep(cJSON **json)
{
	cJSON_Delete(*json);
}

static cJSON *make_request(const char *verb, const cJSON *arguments)
{
	cJSON *request = cJSON_CreateObject();

	if (!request)
		return NULL;
	cJSON_AddStringToObject(request, "verb", verb);
	if (arguments)
		cJSON_AddItemReferenceToObject(request, "arguments",
					       (cJSON *)(uintptr_t)arguments);
	return request;
}

/* One frame on the way: false when the caller wants no more. */
static bool pass_on(const cJSON *frame, const struct cfs_verb_reply *reply)
{
	const cJSON *p = cJSON_GetObjectItemCaseSensitive(frame, "progress");
	const char *line = cfs_verb_str(frame, "line");

	if (line)
		cfs_verb_line(reply, "%s", line);
	if (!p)
		return true;
	return cfs_verb_progress(reply, cfs_verb_u64(p, "done", 0),
				 cfs_verb_u64(p, "total", 0),
				 cfs_verb_str(p, "what"));
}

/* The last frame: the verb's answer. */
static int take_end(cJSON *frame, const cJSON *end, cJSON **result_out,
		    struct cfs_error *err)
{
	const char *text = cfs_verb_str(frame, "error");
	int r = cJSON_IsNumber(end) ? end->valueint : -EBADMSG;

	if (r < 0 && text && text[0])
		return cfs_fail(err, r, "%s", text);
	if (r < 0)
		return r;
	*result_out = cJSON_DetachItemFromObjectCaseSensitive(frame, "result");
	if (!*result_out)
		*result_out = cJSON_CreateObject();
	return *result_out ? 0 : -ENOMEM;
}

static int converse(int fd, const struct cfs_verb_reply *reply,
		    cJSON **result_out, struct cfs_error *err)
{
	for (;;) {
		_cleanup_(json_freep) cJSON *frame = NULL;
		const cJSON *end;
		int r;

		r = cfs_wire_receive(fd, CFS_WIRE_REPLY_MAX, &frame, NULL);
		if (r == -EPIPE)
			return cfs_fail(err, -EPIPE,
					"the daemon ended before it answered");
		if (r < 0)
			return cfs_fail_prefix(err, r, "the daemon's answer");
		end = cJSON_GetObjectItemCaseSensitive(frame, "r");
		if (end)
			return take_end(frame, end, result_out, err);
		if (!pass_on(frame, reply))
			return -ECANCELED; /* closing tells the daemon */
	}
}

static int ask(int fd, const char *verb, const cJSON *arguments, const int *fds,
	       unsigned n_fds, const struct cfs_verb_reply *reply,
	       cJSON **result_out, struct cfs_error *err)
{
	_cleanup_(json_freep) cJSON *request = make_request(verb, arguments);
	int r;

	if (!request)
		return -ENOMEM;
	r = cfs_wire_send(fd, request, fds, n_fds);
	if (r < 0 && r != -EPIPE) /* a refusal may lie there already */
		return cfs_fail_prefix(err, r, "asking the daemon");
	return converse(fd, reply, result_out, err);
}

/* As it would have come over the wire: numbers are numbers. */
static int as_sent(const cJSON *json, cJSON **out)
{
	char *text = cJSON_PrintUnformatted(json);

	if (!text)
		return -ENOMEM;
	*out = cJSON_Parse(text);
	cJSON_free(text);
	return *out ? 0 : -ENOMEM;
}

static int do_here(const char *store_path, const char *verb,
		   const cJSON *arguments, const int *fds, unsigned n_fds,
		   const struct cfs_verb_reply *reply, cJSON **result_out,
		   struct cfs_error *err)
{
	_cleanup_(cfs_opened_closep) struct cfs_opened opened = {0};
	_cleanup_(json_freep) cJSON *result = cJSON_CreateObject();
	_cleanup_(json_freep) cJSON *copy = NULL;
	struct cfs_verb_context context;
	struct cfs_verb_caller caller = {
		geteuid(), getegid(), false, {-1, -1}, n_fds};
	unsigned i;
	int r;

	r = result ? as_sent(arguments, &copy) : -ENOMEM;
	if (!r)
		r = cfs_opened_open(store_path, reply, &opened, err);
	if (r < 0)
		return r;
	for (i = 0; i < n_fds && i < 2; i++)
		caller.fds[i] = fds[i];
	cfs_opened_context(&opened, &context);
	context.caller = &caller;
	r = cfs_verb_run(&context, verb, copy, reply, result, err);
	if (!r)
		r = as_sent(result, result_out);
	if (r < 0)
		return r;
	r = cfs_opened_close(&opened);
	if (r < 0) {
		cJSON_Delete(cfs_steal(*result_out));
		return cfs_fail_prefix(err, r, "%s: closing the store",
				       store_path);
	}
	return 0;
}

static int check_is_store(const char *store_path, struct cfs_error *err)
{
	int r = cfs_store_probe(store_path);

	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", store_path);
	return r ? 0
		 : cfs_fail(err, -EINVAL, "%s: no store is there", store_path);
}

int cfs_control_call_fds(const char *store_path, const char *verb,
			 const cJSON *arguments, const int *fds, unsigned n_fds,
			 const struct cfs_verb_reply *reply, cJSON **result_out,
			 struct cfs_error *err)
{
	_cleanup_(cfs_closep) int fd = -1;
	int r;

	r = check_is_store(store_path, err);
	if (r < 0)
		return r;
	r = cfs_wire_connect(store_path, &fd);
	if (!r)
		return ask(fd, verb, arguments, fds, n_fds, reply, result_out,
			   err);
	if (r != -ENOENT && r != -ECONNREFUSED)
		return cfs_fail_prefix(err, r, "%s/%s", store_path,
				       CFS_CONTROL_NAME);
	return do_here(store_path, verb, arguments, fds, n_fds, reply,
		       result_out, err);
}

int cfs_control_call(const char *store_path, const char *verb,
		     const cJSON *arguments, const struct cfs_verb_reply *reply,
		     cJSON **result_out, struct cfs_error *err)
{
	return cfs_control_call_fds(store_path, verb, arguments, NULL, 0, reply,
				    result_out, err);
}
