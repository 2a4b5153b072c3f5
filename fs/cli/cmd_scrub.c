/* ckptfs scrub: reads everything a store holds and checks every digest. */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/json.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/text.h"

static void print_text(const cJSON *result, bool quiet)
{
	cfs_store_verb_findings(result);
	if (quiet)
		return;
	printf("%" PRIu64 " chunks, %" PRIu64 " maps, %s read: %" PRIu64
	       " damaged, %" PRIu64 " missing\n",
	       cfs_store_verb_u64(result, "chunks"),
	       cfs_store_verb_u64(result, "maps"),
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes")).s,
	       cfs_store_verb_u64(result, "damaged"),
	       cfs_store_verb_u64(result, "missing"));
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"quiet", no_argument, NULL, 'q'},
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	struct cfs_store_verb call = {.verb = &cfs_verb_scrub,
				      .name = "scrub",
				      .units = true,
				      .findings = true,
				      .whole = true};
	bool as_json = false;
	int c, r, status;

	cfs_say_errors_only();
	while ((c = cfs_say_next_option(&cfs_verb_scrub, argc, argv, options,
					&status)) >= 0) {
		as_json |= c == 'j';
		call.quiet |= c == 'q';
	}
	if (c == CFS_ARGS_EXIT)
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_scrub, "name a store");
	call.object = argv[optind];
	call.arguments = cJSON_CreateObject();
	r = cfs_store_verb_call(&call, &result);
	if (r)
		return r;
	status = cfs_store_verb_u64(result, "damaged") ||
				 cfs_store_verb_u64(result, "missing")
			 ? CFS_EXIT_FAILED
			 : CFS_EXIT_OK;
	if (as_json)
		return cfs_store_verb_json(&cfs_verb_scrub, result, status);
	print_text(result, call.quiet);
	return cfs_say_done(&cfs_verb_scrub, status);
}

const struct cfs_verb cfs_verb_scrub = {
	.name = "scrub",
	.summary = "read all of a store and check every digest",
	.help = "usage: ckptfs scrub [--quiet] [--json] STORE\n"
		"\n"
		"Reads every chunk and every map of a store and compares its "
		"SHA-256 with its\n"
		"name. What is damaged or missing is listed with its pack. "
		"Works while the store\n"
		"is mounted.\n"
		"\n"
		"  --quiet     no progress, print findings only\n"
		"  --json      print JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 with findings or when it cannot be done, 2 for "
		"bad usage.\n",
	.run = run,
};
