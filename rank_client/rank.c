/* Opening a rank's handle: finding the store, bringing the ranks together. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "rank_client/place.h"
#include "rank_client/rank_internal.h"
#include "store/util/wire.h"

#define VERSION 1

/* What rank 0 tells the others before they connect. */
struct invitation {
	int32_t r; /* why there is nothing to connect to, with the text */
	char job[64];
	char store[PATH_MAX], run[PATH_MAX];
	struct cfs_error why;
};

/* A handle on its way. */
struct opening {
	struct cfs_rank *rank;
	struct cfs_rank_options options;
	struct cfs_rank_comm comm;
	char *store, *run;
	int fd;
	struct invitation invitation;
};

static void opening_fini(struct opening *o)
{
	free(o->store);
	free(o->run);
	cfs_closep(&o->fd);
	if (o->rank) {
		cfs_ring_fini(&o->rank->ring);
		free(o->rank);
	}
}

/* ---- what is said ---- */

/* Only the kernel's text tells it without changing it for all threads. */
static unsigned current_umask(void)
{
	char line[256];
	unsigned mask = 022;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "Umask:", 6))
			mask = (unsigned)strtoul(line + 6, NULL, 8);
	if (f)
		fclose(f);
	return mask;
}

static int say_hello(struct opening *o, const char *job, struct cfs_error *err)
{
	_cleanup_(cfs_rank_json_freep) cJSON *hello = cJSON_CreateObject();
	cJSON *a = cJSON_AddObjectToObject(hello, "arguments");
	uint32_t timeout = o->options.timeout_s ? o->options.timeout_s : 1800;
	int r;

	cJSON_AddStringToObject(hello, "verb", "rank");
	cJSON_AddNumberToObject(a, "version", VERSION);
	cJSON_AddStringToObject(a, "run", o->run);
	cJSON_AddNumberToObject(a, "rank", o->comm.rank);
	cJSON_AddNumberToObject(a, "ranks", o->comm.n_ranks);
	cJSON_AddStringToObject(a, "job", job);
	cJSON_AddNumberToObject(a, "slots", o->rank->ring.slots);
	cJSON_AddNumberToObject(a, "slot_bytes", o->rank->ring.slot_bytes);
	cJSON_AddNumberToObject(a, "timeout", timeout);
	if (!cJSON_AddNumberToObject(a, "umask", current_umask()))
		return cfs_fail(err, -ENOMEM, "no memory for a message");
	r = cfs_wire_send(o->fd, hello, &o->rank->ring.fd, 1);
	/* a refusal may lie there already */
	return r < 0 && r != -EPIPE ? cfs_fail_prefix(err, r, "%s", o->store)
				    : 0;
}

static int connect_to(struct opening *o, struct cfs_error *err)
{
	int r;

	do
		r = cfs_wire_connect(o->store, &o->fd);
	while (r == -EINTR);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return cfs_fail(err, -ENOTCONN,
				"%s: no daemon has this store mounted (ckptfs "
				"mount)",
				o->store);
	return r < 0 ? cfs_fail_prefix(err, r, "%s/%s", o->store,
				       CFS_CONTROL_NAME)
		     : 0;
}

static int hear(struct opening *o, cJSON **json_out, struct cfs_error *err)
{
	const cJSON *code;
	const char *text;
	int r;

	r = cfs_wire_receive(o->fd, CFS_WIRE_REPLY_MAX, json_out, NULL);
	if (r == -EPIPE)
		return cfs_fail(err, r,
				"%s: the daemon that has it mounted ended, or "
				"closed the connection",
				o->store);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s: the daemon's answer",
				       o->store);
	code = cJSON_GetObjectItemCaseSensitive(*json_out, "r");
	if (!code || !cJSON_IsNumber(code) || code->valueint >= 0)
		return 0;
	r = code->valueint;
	text = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(*json_out, "error"));
	cfs_fail(err, r, "%s", text && text[0] ? text : strerror(-r));
	cJSON_Delete(cfs_steal(*json_out));
	return r;
}

/* ---- bringing the ranks together ---- */

/* Rank 0: the job's number, which comes before the answer. */
static int ask_job(struct opening *o, struct cfs_error *err)
{
	_cleanup_(cfs_rank_json_freep) cJSON *json = NULL;
	const char *job;
	int r;

	r = connect_to(o, err);
	if (!r)
		r = say_hello(o, "", err);
	if (!r)
		r = hear(o, &json, err);
	if (r < 0)
		return r;
	job = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(json, "job"));
	if (!job || !job[0] || strlen(job) >= sizeof(o->invitation.job))
		return cfs_fail(err, -EBADMSG, "%s: the daemon names no job",
				o->store);
	strcpy(o->invitation.job, job);
	return 0;
}

static void invite(struct opening *o, int r, const struct cfs_error *err)
{
	struct invitation *i = &o->invitation;

	i->r = r;
	if (r < 0)
		i->why = *err;
	if (o->store)
		snprintf(i->store, sizeof(i->store), "%s", o->store);
	if (o->run)
		snprintf(i->run, sizeof(i->run), "%s", o->run);
}

/*
 * The others wait for a rank that cannot open what they do: it says where it
 * was to save, the daemon finds that wrong, and they hear of it.  What fails
 * here is not told: something has already.
 */
static void disagree(struct opening *o)
{
	struct cfs_error quiet = {""};
	cJSON *answer = NULL;

	free(o->store);
	o->store = strdup(o->invitation.store);
	if (!o->run)
		o->run = strdup("(a path that is in no store)");
	if (!o->store || !o->run)
		return;
	if (o->rank->ring.fd < 0 &&
	    cfs_ring_init(&o->rank->ring, 1, &quiet) < 0)
		return;
	if (!connect_to(o, &quiet) &&
	    !say_hello(o, o->invitation.job, &quiet) &&
	    !hear(o, &answer, &quiet))
		cJSON_Delete(answer);
}

static int join_job(struct opening *o, int local, struct cfs_error *err)
{
	const struct invitation *i = &o->invitation;

	if (i->r < 0)
		return cfs_fail(err, i->r, "%s", i->why.text);
	if (!local && strcmp(i->run, o->run) != 0)
		local = cfs_fail(err, -EINVAL,
				 "rank %u opens \"%s\", but rank 0 \"%s\"",
				 o->comm.rank, o->run, i->run);
	if (local < 0) {
		disagree(o);
		return local;
	}
	local = connect_to(o, err);
	return local < 0 ? local : say_hello(o, i->job, err);
}

static int meet(struct opening *o, int local, struct cfs_error *err)
{
	int r;

	if (!o->comm.rank) {
		if (!local)
			local = ask_job(o, err);
		invite(o, local, err);
	}
	if (o->comm.n_ranks > 1) {
		r = o->comm.broadcast(o->comm.arg, &o->invitation,
				      sizeof(o->invitation));
		if (r < 0)
			return cfs_fail(err, r,
					"the communicator's broadcast: %s",
					strerror(-r));
		/* what came over it is somebody else's memory */
		o->invitation.job[sizeof(o->invitation.job) - 1] = '\0';
		o->invitation.store[PATH_MAX - 1] = '\0';
		o->invitation.run[PATH_MAX - 1] = '\0';
		o->invitation.why.text[sizeof(o->invitation.why.text) - 1] =
			'\0';
	}
	return o->comm.rank ? join_job(o, local, err) : local;
}

/* ---- the handle ---- */

static int take_options(const struct cfs_rank_options *options,
			struct opening *o, struct cfs_error *err)
{
	int r = 0;

	o->comm.n_ranks = 1;
	if (options)
		r = cfs_rank_take(&o->options, sizeof(o->options), options,
				  err);
	if (!r && o->options.comm)
		r = cfs_rank_take(&o->comm, sizeof(o->comm), o->options.comm,
				  err);
	if (!r && (o->comm.rank >= o->comm.n_ranks ||
		   (o->comm.n_ranks > 1 && !o->comm.broadcast)))
		r = cfs_fail(err, -EINVAL,
			     "the communicator has rank %u of %u%s",
			     o->comm.rank, o->comm.n_ranks,
			     o->comm.broadcast ? "" : ", and no broadcast");
	return r;
}

static int prepare(struct opening *o, const char *path, struct cfs_error *err)
{
	struct cfs_rank *rank = o->rank;
	int r;

	rank->rank = o->comm.rank;
	rank->n_ranks = o->comm.n_ranks;
	rank->progress = o->options.progress;
	rank->progress_arg = o->options.progress_arg;
	if (!path)
		return cfs_fail(err, -EINVAL, "no path is given");
	r = cfs_place_find(path, &o->store, &o->run, err);
	return r < 0 ? r
		     : cfs_ring_init(&rank->ring, o->options.ring_bytes, err);
}

int cfs_rank_open(const char *path, const struct cfs_rank_options *options,
		  struct cfs_rank **rank_out)
{
	_cleanup_(opening_fini) struct opening o = {.fd = -1};
	_cleanup_(cfs_rank_json_freep) cJSON *answer = NULL;
	struct cfs_error *err = cfs_rank_err();
	int r;

	r = take_options(options, &o, err);
	if (r < 0)
		return r;
	o.rank = calloc(1, sizeof(*o.rank));
	if (!o.rank)
		return cfs_fail(err, -ENOMEM, "no memory for a handle");
	o.rank->ring.fd = -1;
	r = meet(&o, prepare(&o, path, err), err);
	if (!r)
		r = hear(&o, &answer, err);
	if (!r && !cJSON_GetObjectItemCaseSensitive(answer, "r"))
		r = cfs_fail(err, -EBADMSG, "%s: the daemon speaks nonsense",
			     o.store);
	if (!r) {
		r = cfs_link_new(cfs_steal_fd(&o.fd), &o.rank->ring, o.store,
				 &o.rank->link);
		if (r < 0)
			cfs_fail(err, r, "starting a thread: %s", strerror(-r));
	}
	if (r < 0)
		return r;
	cfs_rank_fork_add(o.rank);
	*rank_out = cfs_steal(o.rank);
	return 0;
}

void cfs_rank_close(struct cfs_rank *rank)
{
	unsigned i;

	if (!rank)
		return;
	cfs_rank_save_end(rank->save);
	while (rank->loads)
		cfs_rank_load_end(rank->loads);
	if (rank->forked) { /* its threads and locks stayed with the parent */
		cfs_ring_fini(&rank->ring);
		free(rank);
		return;
	}
	cfs_rank_fork_remove(rank);
	cfs_link_free(rank->link);
	for (i = 0; i < CFS_ARRAY_SIZE(rank->dev); i++)
		if (rank->dev[i])
			rank->dev[i]->ops->close(rank->dev[i]);
	cfs_ring_fini(&rank->ring);
	free(rank);
}
