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

static int parse_rule(int c, cJSON *arguments)
{
	uint64_t n;

	if (c == 'w') {
		if (parse_duration(optarg, &n) < 0)
			return -EINVAL;
		cfs_json_u64(arguments, "newer_than_seconds", n);
		return 0;
	}
	if (cfs_store_verb_number(optarg, &n) < 0 || !n)
		return -EINVAL;
	cfs_json_u64(arguments, c == 'l' ? "keep_last" : "keep_every", n);
	return 0;
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

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"keep-last", required_argument, NULL, 'l'},
		{"keep-every", required_argument, NULL, 'e'},
		{"newer-than", required_argument, NULL, 'w'},
		{"dry-run", no_argument, NULL, 'n'},
		{"gc", no_argument, NULL, 'g'},
		{"quiet", no_argument, NULL, 'q'},
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	_cleanup_(cfs_json_freep) cJSON *arguments = cJSON_CreateObject();
	struct cfs_store_verb call = {
		.verb = &cfs_verb_prune, .name = "prune", .units = true};
	bool as_json = false, dry_run = false, gc = false, rules = false;
	int c, r, status;

	cfs_say_errors_only();
	while ((c = cfs_say_next_option(&cfs_verb_prune, argc, argv, options,
					&status)) >= 0) {
		bool rule = c == 'l' || c == 'e' || c == 'w';

		if (rule && parse_rule(c, arguments) < 0)
			return cfs_say_usage(&cfs_verb_prune,
					     "'%s': a whole number from 1, or "
					     "for --newer-than a duration "
					     "such as 12h or 30d",
					     optarg);
		rules |= rule;
		as_json |= c == 'j';
		dry_run |= c == 'n';
		gc |= c == 'g';
		call.quiet |= c == 'q';
	}
	if (c == CFS_ARGS_EXIT)
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_prune, "name one run");
	if (!rules)
		return cfs_say_usage(&cfs_verb_prune,
				     "no rule says what to keep: --keep-last, "
				     "--keep-every or --newer-than");
	call.object = argv[optind];
	cfs_json_bool(arguments, "dry_run", dry_run);
	call.arguments = cfs_steal(arguments);
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
		"Never removed: the step that `latest` names, the one a load "
		"would get, pinned\n"
		"steps (ckptfs pin), names without a number, and what may "
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
