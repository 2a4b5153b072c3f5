/* A step being saved: begin, put, commit, abort. */
#include <errno.h>
#include <string.h>

#include "rank_client/frame.h"
#include "rank_client/save_internal.h"
#include "rank_client/tensor.h"

#define BUSY "a save of this handle is open; wait for it or abort it first"

/* ---- its state ---- */

static void tell_abort(struct cfs_rank_save *save, const char *reason)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;
	struct cfs_error quiet;

	if (save->settled)
		return;
	save->settled = true;
	cfs_frame_put_abort(&frames, reason);
	(void)!cfs_save_send(save, &frames, &quiet);
}

/* What is only known here the daemon has to hear, or the others commit. */
int cfs_save_fail(struct cfs_rank_save *save, int r, struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;
	struct cfs_error quiet;

	if (save->failed || save->settled || save->rank->forked)
		return r;
	if (!err->text[0])
		cfs_fail(err, r, "%s", strerror(-r));
	save->failed = r;
	save->why = *err;
	cfs_frame_put_fail(&frames, r, err->text);
	(void)!cfs_save_send(save, &frames, &quiet);
	return r;
}

int cfs_save_check(struct cfs_rank_save *save, struct cfs_error *err)
{
	int r;

	if (!save)
		return cfs_fail(err, -EINVAL, "no save is given");
	if (save->failed)
		return cfs_fail(err, save->failed, "%s", save->why.text);
	r = cfs_rank_check(save->rank, err);
	if (!r)
		r = cfs_link_failed(save->rank->link, save->number, err);
	if (!r && save->commit_asked)
		r = cfs_fail(err, -EINVAL,
			     "nothing can be put after the commit");
	return r;
}

void cfs_save_tell(struct cfs_rank_save *save, bool last)
{
	struct cfs_rank *rank = save->rank;

	if (rank->progress)
		cfs_rank_tell(rank, "save",
			      cfs_link_taken(rank->link) - save->taken_before,
			      save->put_bytes, last);
}

int cfs_save_send(struct cfs_rank_save *save, struct cfs_buf *frames,
		  struct cfs_error *err)
{
	return cfs_link_send(save->rank->link, frames, NULL, NULL, 0, NULL,
			     NULL, err);
}

void cfs_rank_save_end(struct cfs_rank_save *save)
{
	struct cfs_rank_file *file, *next;

	if (!save)
		return;
	if (!save->rank->forked) {
		tell_abort(save, NULL);
		cfs_link_drop(save->rank->link, save->commit);
	}
	for (file = save->files; file; file = next) {
		next = file->next;
		if (file->has_slot && !save->rank->forked)
			cfs_link_give(save->rank->link, &file->slot, 1, NULL);
		free(file);
	}
	save->rank->save = NULL;
	free(save);
}

/* ---- begin ---- */

static cJSON *begin_frame(uint64_t number, const char *step,
			  const struct cfs_rank_save_options *o)
{
	cJSON *json = cfs_frame_op("begin");

	if (!json)
		return NULL;
	cJSON_AddNumberToObject(json, "save", (double)number);
	cJSON_AddStringToObject(json, "step", step);
	cJSON_AddStringToObject(json, "format", o->format);
	cJSON_AddNumberToObject(json, "dp", o->dp ? o->dp : 1);
	cJSON_AddNumberToObject(json, "tp", o->tp ? o->tp : 1);
	cJSON_AddNumberToObject(json, "pp", o->pp ? o->pp : 1);
	cJSON_AddNumberToObject(json, "zero", o->zero_stage);
	if (o->pointer)
		cJSON_AddStringToObject(json, "pointer", o->pointer);
	cJSON_AddBoolToObject(json, "replace", o->replace != 0);
	return json;
}

/* What is known to be wrong without asking. */
static int prepare(struct cfs_rank *rank,
		   const struct cfs_rank_save_options *options,
		   struct cfs_rank_save_options *o, struct cfs_rank_save **out,
		   struct cfs_error *err)
{
	int r;

	if (rank->save)
		return cfs_fail(err, -EBUSY, BUSY);
	if (!options)
		return cfs_fail(err, -EINVAL, "a save needs options");
	r = cfs_rank_take(o, sizeof(*o), options, err);
	if (r < 0)
		return r;
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : cfs_fail(err, -ENOMEM, "no memory for a save");
}

/* The others wait for this rank: it comes, and all of them hear why not. */
static int refuse(struct cfs_rank *rank, int local, struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;
	struct cfs_link_call *call;
	int r;

	cfs_frame_put_refusal(&frames, ++rank->n_saves, local, err->text);
	r = cfs_link_send(rank->link, &frames, NULL, NULL, 0, NULL, &call, err);
	if (!r)
		r = cfs_link_end(rank->link, call, NULL, err);
	return r < 0 ? r : local;
}

int cfs_rank_save_begin(struct cfs_rank *rank, const char *step,
			const struct cfs_rank_save_options *options,
			struct cfs_rank_save **save_out)
{
	struct cfs_error *err = cfs_rank_err();
	struct cfs_rank_save_options o = {.size = 0};
	struct cfs_rank_save *save = NULL;
	int r = cfs_rank_check(rank, err);

	if (r < 0)
		return r;
	/* then the others cannot be in a begin */
	if (rank->save && !rank->save->commit_asked)
		return cfs_fail(err, -EBUSY, BUSY);
	r = prepare(rank, options, &o, &save, err);
	if (r < 0 || !save)
		return refuse(rank, r, err);
	/* the daemon looks at the rest, so that all ranks hear the same */
	if (!o.format)
		o.format = "";
	save->number = ++rank->n_saves;
	r = cfs_rank_ask(rank, begin_frame(save->number, step ? step : "", &o),
			 NULL, err);
	if (r < 0) {
		free(save);
		return r;
	}
	save->rank = rank;
	save->next_id = 1;
	save->taken_before = cfs_link_taken(rank->link);
	rank->save = save;
	*save_out = save;
	return 0;
}

/* ---- put ---- */

int cfs_rank_put(struct cfs_rank_save *save,
		 const struct cfs_rank_tensor *tensor, const void *data,
		 uint32_t memory, void *stream)
{
	_cleanup_(cfs_buf_free) struct cfs_buf head = CFS_BUF_INIT;
	struct cfs_error *err = cfs_rank_err();
	struct cfs_rank_tensor t;
	uint64_t bytes, id;
	cJSON *json;
	int r = cfs_save_check(save, err);

	if (r < 0)
		return r;
	r = cfs_tensor_take(tensor, &t, &bytes, err);
	if (!r && bytes && !data)
		r = cfs_fail(err, -EINVAL, "tensor %s: no data", t.name);
	if (r < 0)
		return cfs_save_fail(save, r, err);
	id = save->next_id++;
	json = cfs_frame_op("put");
	cJSON_AddNumberToObject(json, "id", (double)id);
	cfs_tensor_tell(&t, 1, json);
	cfs_frame_put(&head, json);
	r = cfs_outflow_write(save, &head, id, data, bytes, memory, stream,
			      err);
	if (r < 0) {
		cfs_fail_prefix(err, r, "tensor %s", t.name);
		return cfs_save_fail(save, r, err);
	}
	return 0;
}

static int wait_copied(struct cfs_rank_save *save, struct cfs_error *err)
{
	int r;

	while (!(r = cfs_link_copied(save->rank->link, CFS_TICK_MS, err)))
		cfs_save_tell(save, false);
	return r < 0 ? cfs_save_fail(save, r, err) : 0;
}

int cfs_rank_wait_copied(struct cfs_rank_save *save)
{
	struct cfs_error *err = cfs_rank_err();
	int r = cfs_save_check(save, err);

	return r < 0 ? r : wait_copied(save, err);
}

int cfs_rank_put_object(struct cfs_rank_save *save, const char *name,
			const void *bytes, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf head = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf end = CFS_BUF_INIT;
	struct cfs_error *err = cfs_rank_err();
	uint64_t id;
	cJSON *json;
	int r = cfs_save_check(save, err);

	if (r < 0)
		return r;
	if (!name || !name[0] || (len && !bytes)) {
		r = cfs_fail(err, -EINVAL, "an object has no %s",
			     name && name[0] ? "bytes" : "name");
		return cfs_save_fail(save, r, err);
	}
	id = save->next_id++;
	json = cfs_frame_op("object");
	cJSON_AddNumberToObject(json, "id", (double)id);
	cJSON_AddStringToObject(json, "name", name);
	cfs_frame_put(&head, json);
	cfs_frame_put_end(&end, id);
	r = cfs_outflow_write(save, &head, id, bytes, len, CFS_RANK_HOST, NULL,
			      err);
	if (!r)
		r = cfs_save_send(save, &end, err);
	return r < 0 ? cfs_save_fail(save, r, err) : 0;
}

/* ---- the end ---- */

/* A save that has failed is committed, too: so that all ranks hear why. */
int cfs_rank_commit(struct cfs_rank_save *save)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;
	struct cfs_error *err = cfs_rank_err(), quiet = {""};
	int r;

	if (!save)
		return cfs_fail(err, -EINVAL, "no save is given");
	r = cfs_rank_check(save->rank, err);
	if (!r && save->commit_asked)
		r = cfs_fail(err, -EINVAL, "it is being committed already");
	if (r < 0)
		return r;
	if (save->files) {
		r = cfs_fail(&quiet, -EINVAL,
			     "file %s was begun, but not ended",
			     save->files->name);
		(void)cfs_save_fail(save, r, &quiet);
	}
	quiet.text[0] = '\0';
	(void)!wait_copied(save, &quiet);
	cfs_frame_put(&frames, cfs_frame_op("commit"));
	r = cfs_link_send(save->rank->link, &frames, NULL, NULL, 0, NULL,
			  &save->commit, err);
	if (r < 0)
		return r;
	save->commit_asked = save->settled = true;
	return 0;
}

static int result(struct cfs_rank_save *save, struct cfs_error *err)
{
	struct cfs_link *link = save->rank->link;
	struct cfs_error dead = {""};
	int r;

	while (!cfs_link_wait(link, save->commit, CFS_TICK_MS))
		cfs_save_tell(save, false);
	r = cfs_link_end(link, cfs_steal(save->commit), NULL, err);
	if (r < 0 && cfs_link_check(link, &dead) < 0)
		(void)cfs_fail(err, r,
			       "%s (the commit had begun: look whether the "
			       "step is there before saving it again)",
			       dead.text);
	cfs_save_tell(save, true);
	return r;
}

int cfs_rank_wait(struct cfs_rank_save *save)
{
	struct cfs_error *err = cfs_rank_err();
	int r;

	if (!save)
		return cfs_fail(err, -EINVAL, "no save is given");
	r = save->commit && !save->rank->forked
		    ? result(save, err)
		    : cfs_rank_check(save->rank, err);
	if (!r && !save->commit_asked)
		r = cfs_fail(err, -EINVAL,
			     "nothing was committed: wait came before commit");
	cfs_rank_save_end(save);
	return r;
}

int cfs_rank_test(struct cfs_rank_save *save)
{
	(void)cfs_rank_err();
	if (!save || save->rank->forked || !save->commit)
		return 1;
	return cfs_link_wait(save->rank->link, save->commit, 0);
}

void cfs_rank_abort(struct cfs_rank_save *save, const char *reason)
{
	(void)cfs_rank_err();
	if (!save)
		return;
	if (!save->rank->forked)
		tell_abort(save, reason);
	cfs_rank_save_end(save);
}
