/* ckptfs resolve: the step to resume from. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/cli/store_verb.h"
#include "fs/daemon/steps.h"
#include "store/map/source.h"

struct found {
	const char *dir;
	char step[256];
};

static int resolve_dir(const char *path, struct found *out,
		       struct cfs_error *err)
{
	_cleanup_(cfs_source_freep) struct cfs_source *source = NULL;
	int r;

	r = cfs_source_dir_open(path, &source);
	if (!r)
		r = cfs_steps_resolve(source, "", out->step);
	if (r == -ENOENT) /* made by the first save */
		return 0;
	return r < 0 ? cfs_fail_prefix(err, r, "%s", path) : r;
}

/* 1 found, 0 none, -1: it was said why, *status_out is the exit status. */
static int resolve_in_store(const char *path, struct found *out,
			    int *status_out)
{
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	struct cfs_store_verb call = {.verb = &cfs_verb_resolve,
				      .name = "resolve",
				      .object = path,
				      .quiet = true};
	const char *step;

	call.arguments = cJSON_CreateObject();
	*status_out = cfs_store_verb_call(&call, &result);
	if (*status_out)
		return -1;
	step = cfs_store_verb_str(result, "step");
	if (!step)
		return 0;
	snprintf(out->step, sizeof(out->step), "%.255s", step);
	return 1;
}

static bool is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int resolve_one(const char *path, struct found *out, int *status_out)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path where = {0};
	struct cfs_error err = {""};
	int r;

	out->dir = path;
	r = cfs_store_path_find(path, &where, &err);
	/* through a mount it is a directory like any other */
	if (r > 0 && strncmp(path, where.store, strlen(where.store)) != 0 &&
	    is_dir(path))
		r = 0;
	if (r > 0)
		return resolve_in_store(path, out, status_out);
	if (r == 0 || r == -ENOENT)
		r = resolve_dir(path, out, &err);
	if (r < 0)
		*status_out = cfs_say_fail(&cfs_verb_resolve, path, r, &err);
	return r < 0 ? -1 : r;
}

static int print_found(const struct found *found, bool as_json, bool name_only)
{
	_cleanup_(cfs_json_freep) cJSON *json = NULL;
	_cleanup_(cfs_freep) char *path = NULL;
	size_t len = found ? strlen(found->dir) : 0;

	while (len > 1 && found->dir[len - 1] == '/')
		len--;
	if (found &&
	    asprintf(&path, "%.*s/%s", (int)len, found->dir, found->step) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (!as_json) {
		if (found)
			puts(name_only ? found->step : path);
		return 0;
	}
	json = cJSON_CreateObject();
	cfs_json_str(json, "directory", found ? found->dir : NULL);
	cfs_json_str(json, "step", found ? found->step : NULL);
	cfs_json_str(json, "path", path);
	return cfs_json_print(json);
}

static int run(int argc, char **argv)
{
	bool if_exists = false, name_only = false, as_json = false;
	struct found found;
	const struct cfs_say_option options[] = {
		{.name = "if-exists", .flag = &if_exists},
		{.name = "name", .flag = &name_only},
		{.name = "json", .flag = &as_json},
		{0},
	};
	int i, r = 0, status = 0;

	if (!cfs_say_options(&cfs_verb_resolve, argc, argv, options, &status))
		return status;
	if (optind == argc)
		return cfs_say_usage(&cfs_verb_resolve,
				     "name at least one run");
	for (i = optind; !r && i < argc; i++)
		r = resolve_one(argv[i], &found, &status);
	if (r < 0)
		return status;
	if (!r && !if_exists)
		return cfs_say_fail(&cfs_verb_resolve,
				    argc - optind == 1 ? argv[optind] : NULL,
				    -ENOENT,
				    &(struct cfs_error){"no whole step there"});
	if (print_found(r ? &found : NULL, as_json, name_only) < 0)
		return cfs_say_fail(&cfs_verb_resolve, NULL, -ENOMEM, NULL);
	return cfs_say_done(&cfs_verb_resolve, CFS_EXIT_OK);
}

const struct cfs_verb cfs_verb_resolve = {
	.name = "resolve",
	.summary = "the step of a run to resume from",
	.help = "usage: ckptfs resolve [--if-exists] [--name] [--json] RUN…\n"
		"\n"
		"Prints the path of the step to resume from: the one that "
		"`latest` names if it is\n"
		"whole; else the newest whole one before it; where there is "
		"none, or no pointer,\n"
		"the newest whole one. Of several runs (a result directory, "
		"then the one with\n"
		"checkpoints) the first that has a whole step decides. RUN is "
		"in a store, in a\n"
		"mount, or any directory; one that is not there has no "
		"steps.\n"
		"\n"
		"  --if-exists  print nothing and exit 0 when there is no "
		"whole step\n"
		"  --name       print the step's name only\n"
		"  --json       print JSON\n"
		"  -h, --help   print this help\n"
		"\n"
		"Exits 0, or 1 when there is no whole step, 2 for bad usage.\n",
	.run = run,
};
