/* Calling a store's verb, and what is seen of it meanwhile. */
#include "fs/cli/store_verb.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/cli/json.h"
#include "fs/cli/progress.h"
#include "fs/cli/text.h"
#include "fs/daemon/control.h"
#include "store/util/buf.h"

struct seen {
	const struct cfs_store_verb *call;
	struct cfs_progress progress;
	cJSON *findings;
	double shown;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
	(void)signal;
	interrupted = 1;
}

/* The first Ctrl-C stops the verb, which tidies up; the second one ends it. */
static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	action.sa_flags = (int)SA_RESETHAND;
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	action.sa_handler = SIG_IGN;
	action.sa_flags = 0;
	(void)sigaction(SIGPIPE, &action, NULL);
}

/* Where the total is not known, or counts things. */
static void show_count(struct seen *seen, uint64_t done, uint64_t total,
		       const char *what)
{
	_cleanup_(cfs_buf_free) struct cfs_buf safe = CFS_BUF_INIT;
	double t = cfs_progress_seconds(&seen->progress);

	if (!seen->progress.on || t - seen->shown < 0.2)
		return;
	seen->shown = t;
	cfs_text_safe(&safe, what, strlen(what));
	fputs("\r\033[K", stderr);
	if (total)
		fprintf(stderr, "[%3.0f%%] ",
			100 * (double)done / (double)total);
	else if (done)
		fprintf(stderr, "%s  ", cfs_text_count(done).s);
	fprintf(stderr, "%.50s", cfs_buf_str(&safe));
	fflush(stderr);
}

static bool on_progress(void *arg, uint64_t done, uint64_t total,
			const char *what)
{
	struct seen *seen = arg;
	_cleanup_(cfs_buf_free) struct cfs_buf safe = CFS_BUF_INIT;

	if (interrupted)
		return false;
	if (seen->call->units || !total) {
		show_count(seen, done, total, what);
		return true;
	}
	cfs_text_safe(&safe, what, strlen(what));
	seen->progress.total = total;
	if (done >= seen->progress.done)
		cfs_progress_add(&seen->progress, done - seen->progress.done,
				 cfs_buf_str(&safe));
	return true;
}

static void on_line(void *arg, const char *text)
{
	struct seen *seen = arg;
	_cleanup_(cfs_buf_free) struct cfs_buf safe = CFS_BUF_INIT;

	cfs_progress_end(&seen->progress);
	if (seen->findings) {
		cfs_json_str(seen->findings, NULL, text);
		return;
	}
	cfs_text_safe(&safe, text, strlen(text));
	cfs_say_warn(seen->call->verb, "%s", cfs_buf_str(&safe));
}

/* "x: no such…" of STORE/x, which is said in front anyhow. */
static void drop_path(const struct cfs_store_path *path, struct cfs_error *err)
{
	const char *said = path->inside[0] ? path->inside : "/";
	const size_t len = strlen(said);

	if (!strncmp(err->text, said, len) &&
	    !strncmp(err->text + len, ": ", 2))
		memmove(err->text, err->text + len + 2,
			strlen(err->text + len + 2) + 1);
}

static int call_at(const struct cfs_store_verb *call,
		   const struct cfs_store_path *path, struct seen *seen,
		   cJSON **result_out, struct cfs_error *err)
{
	struct cfs_verb_reply reply = {on_progress, on_line, seen};
	int r;

	cfs_json_str(call->arguments, "path", path->inside);
	catch_signals();
	cfs_progress_init(&seen->progress, 0, call->quiet);
	r = cfs_control_call_fds(path->store, call->name, call->arguments,
				 call->fds, call->n_fds, &reply, result_out,
				 err);
	cfs_progress_end(&seen->progress);
	if (r < 0)
		drop_path(path, err);
	return r;
}

static int call_verb(const struct cfs_store_verb *call, struct seen *seen,
		     cJSON **result_out, struct cfs_error *err)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};
	int r;

	r = cfs_store_path_find(call->object, &path, err);
	if (!r)
		return cfs_fail(err, -EINVAL,
				"%s: not in a store (ckptfs init "
				"makes one)",
				call->object);
	if (r > 0 && call->whole && path.inside[0])
		return cfs_fail(err, -EINVAL,
				"inside a store, and this is about all of it: "
				"name %s",
				path.store);
	return r < 0 ? r : call_at(call, &path, seen, result_out, err);
}

int cfs_store_verb_call(const struct cfs_store_verb *call, cJSON **result_out)
{
	struct seen seen = {.call = call};
	struct cfs_error err = {""};
	int r;

	seen.findings = call->findings ? cJSON_CreateArray() : NULL;
	r = call_verb(call, &seen, result_out, &err);
	cJSON_Delete(call->arguments);
	if (r < 0 || !seen.findings) {
		cJSON_Delete(seen.findings);
		if (r == -ECANCELED)
			return cfs_say_fail(call->verb, NULL, r,
					    &(struct cfs_error){"interrupted"});
		return r < 0 ? cfs_say_fail(call->verb, call->object, r, &err)
			     : 0;
	}
	cJSON_AddItemToObject(*result_out, "findings", seen.findings);
	return 0;
}

void cfs_store_verb_findings(const cJSON *result)
{
	const cJSON *line;

	cJSON_ArrayForEach(line,
			   cJSON_GetObjectItemCaseSensitive(result, "findings"))
	{
		puts(line->valuestring);
	}
}

uint64_t cfs_store_verb_u64(const cJSON *result, const char *name)
{
	double v = cfs_store_verb_real(result, name);

	return v > 0 && v < 1.8e19 ? (uint64_t)v : 0;
}

double cfs_store_verb_real(const cJSON *result, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(result, name);

	/* of a verb that ran here, not at a daemon */
	if (cJSON_IsRaw(item))
		return strtod(item->valuestring, NULL);
	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

const char *cfs_store_verb_str(const cJSON *result, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(result, name);

	return cJSON_IsString(item) ? item->valuestring : NULL;
}

bool cfs_store_verb_flag(const cJSON *result, const char *name)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(result, name));
}

int cfs_store_verb_json(const struct cfs_verb *verb, const cJSON *result,
			int status)
{
	if (cfs_json_print(result) < 0)
		return cfs_say_fail(verb, NULL, -ENOMEM, NULL);
	return cfs_say_done(verb, status);
}

int cfs_store_verb_number(const char *text, uint64_t *out)
{
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno || *end || *out > 1000000000000000 ? -EINVAL : 0;
}
