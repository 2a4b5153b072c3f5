/* ckptfs prune: removes the steps of a run that no rule keeps. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/text.h"
#include "store/util/buf.h"

/* "90s", "12h", "30d", "2w" */
static int parse_duration(const char *text, uint64_t *seconds_out)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = {{'s', 1},	   {'m', 60},	  {'h', 3600},
		     {'d', 86400}, {'w', 604800}, {'y', 31536000}};
	uint64_t n = 0;
	size_t i;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	while (*text >= '0' && *text <= '9' && n < 100000000)
		n = n * 10 + (uint64_t)(*text++ - '0');
	for (i = 0; i < CFS_ARRAY_SIZE(units); i++)
		if (text[0] == units[i].unit && !text[1] && n) {
			*seconds_out = n * units[i].seconds;
			return 0;
		}
	return -EINVAL;
}

static void print_text(const cJSON *result, bool quiet)
{
	bool dry = cfs_store_verb_flag(result, "dry_run");
	const cJSON *step;

	if (quiet)
		return;
	cJSON_ArrayForEach(step,
			   cJSON_GetObjectItemCaseSensitive(result, "steps"))
	{
		_cleanup_(cfs_buf_free) struct cfs_buf safe = CFS_BUF_INIT;
		const char *name = cfs_store_verb_str(step, "name");

		cfs_text_safe(&safe, name, strlen(name));
		printf("%-8s %s (%s)\n",
		       cfs_store_verb_flag(step, "keep") ? "keep"
		       : dry				 ? "would go"
							 : "removed",
		       cfs_buf_str(&safe), cfs_store_verb_str(step, "reason"));
	}
}

/* The room comes back by gc: now, or when the user says so. */
static int collect(const char *object, bool quiet, cJSON *result)
{
	struct cfs_store_verb call = {.verb = &cfs_verb_prune,
				      .name = "gc",
				      .object = object,
				      .quiet = quiet,
				      .units = true};
	cJSON *gc = NULL;
	int r;

	call.arguments = cJSON_CreateObject();
	r = cfs_store_verb_call(&call, &gc);
	if (!r)
		cJSON_AddItemToObject(result, "gc", gc);
	return r;
}

static void suggest_gc(const char *object)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};

	if (cfs_store_path_find(object, &path, NULL) > 0)
		printf("the room comes back with: ckptfs gc %s\n", path.store);
}

static void finish_text(const char *object, const cJSON *result)
{
	const cJSON *gc = cJSON_GetObjectItemCaseSensitive(result, "gc");

	if (gc)
		printf("%s freed\n",
		       cfs_text_bytes(cfs_store_verb_u64(gc, "bytes_freed")).s);
	else if (cfs_store_verb_u64(result, "removed"))
		suggest_gc(object);
}

static int take_duration(void *arg, const char *text)
{
	return parse_duration(text, arg);
}

static int take_count(void *arg, const char *text)
{
	uint64_t *n = arg;
	int r = cfs_store_verb_number(text, n);

	return r == 0 && !*n ? -EINVAL : r;
}

static int finish(const struct cfs_store_verb *call, bool as_json, bool gc,
		  cJSON *result)
{
	int r;

	if (gc && !cfs_store_verb_flag(result, "dry_run")) {
		if (!as_json)
			print_text(result, call->quiet);
		r = collect(call->object, call->quiet, result);
		if (r)
			return r;
	} else if (!as_json) {
		print_text(result, call->quiet);
	}
	if (as_json)
		return cfs_store_verb_json(&cfs_verb_prune, result,
					   CFS_EXIT_OK);
	if (!call->quiet)
		finish_text(call->object, result);
	return cfs_say_done(&cfs_verb_prune, CFS_EXIT_OK);
}

#define COUNT "a whole number from 1"

static int run(int argc, char **argv)
{
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	struct cfs_store_verb call = {
		.verb = &cfs_verb_prune, .name = "prune", .units = true};
	bool as_json = false, dry_run = false, gc = false;
	uint64_t last = 0, every = 0, newer = 0;
	const struct cfs_say_option options[] = {
		{"keep-last", NULL, take_count, &last, COUNT},
		{"keep-every", NULL, take_count, &every, COUNT},
		{"newer-than", NULL, take_duration, &newer,
		 "a duration such as 12h or 30d"},
		{.name = "dry-run", .flag = &dry_run},
		{.name = "gc", .flag = &gc},
		{.name = "quiet", .flag = &call.quiet},
		{.name = "json", .flag = &as_json},
		{0},
	};
	int r, status;

	if (!cfs_say_options(&cfs_verb_prune, argc, argv, options, &status))
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_prune, "name one run");
	if (!last && !every && !newer)
		return cfs_say_usage(&cfs_verb_prune,
				     "no rule says what to keep: --keep-last, "
				     "--keep-every or --newer-than");
	call.object = argv[optind];
	call.arguments = cJSON_CreateObject();
	cfs_json_u64(call.arguments, "keep_last", last);
	cfs_json_u64(call.arguments, "keep_every", every);
	cfs_json_u64(call.arguments, "newer_than_seconds", newer);
	cfs_json_bool(call.arguments, "dry_run", dry_run);
	r = cfs_store_verb_call(&call, &result);
	return r ? r : finish(&call, as_json, gc, result);
}

const struct cfs_verb cfs_verb_prune = {
	.name = "prune",
	.summary = "remove the steps of a run that no rule keeps",
	.help = "usage: ckptfs prune [--keep-last N] [--keep-every K]\n"
		"                    [--newer-than DURATION] [--dry-run] [--gc]\n"
		"                    [--quiet] [--json] STORE/RUN\n"
		"\n"
		"Removes the steps of a run that no rule keeps; at least one "
		"rule must be given.\n"
		"Never removed: the steps that `latest` and "
		"`latest_universal` name, the one a\n"
		"load would get, pinned steps (ckptfs pin), names without a "
		"number, and what may\n"
		"still be being saved.\n"
		"Steps that are not whole count for no rule and go once they "
		"are older than a\n"
		"whole one and an hour old. Each step goes in one moment; "
		"files of it that are\n"
		"open stay readable. Prints what stays and why.\n"
		"\n"
		"  --keep-last N          the newest N whole steps\n"
		"  --keep-every K         steps with a number that K divides\n"
		"  --newer-than DURATION  steps saved since: 12h, 30d, 2w\n"
		"  --dry-run              only tell what would go\n"
		"  --gc                   give the room back at once\n"
		"  --quiet                no progress, no list\n"
		"  --json                 print JSON\n"
		"  -h, --help             print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be done, 2 for bad usage.\n",
	.run = run,
};
