/* ckptfs gc: gives back the room of what nothing refers to any more. */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/json.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/text.h"

static void print_text(const cJSON *result)
{
	bool dry = cfs_store_verb_flag(result, "dry_run");

	printf("%s %s of %s; %" PRIu64 " of %" PRIu64 " packs %s, %" PRIu64
	       " rewritten; %" PRIu64 " chunks in use, %" PRIu64 " not\n",
	       dry ? "would free" : "freed",
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes_freed")).s,
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes_before")).s,
	       cfs_store_verb_u64(result, "packs_removed"),
	       cfs_store_verb_u64(result, "packs_before"),
	       dry ? "would go" : "removed",
	       cfs_store_verb_u64(result, "packs_rewritten"),
	       cfs_store_verb_u64(result, "chunks_live"),
	       cfs_store_verb_u64(result, "chunks_dead"));
	if (cfs_store_verb_u64(result, "derived"))
		printf("%" PRIu64 " chunks of weights are now kept as their "
		       "rounded master\n",
		       cfs_store_verb_u64(result, "derived"));
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"dry-run", no_argument, NULL, 'n'},
		{"quiet", no_argument, NULL, 'q'},
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	struct cfs_store_verb call = {.verb = &cfs_verb_gc,
				      .name = "gc",
				      .units = true,
				      .whole = true};
	bool as_json = false, dry_run = false;
	int c, r, status;

	cfs_say_errors_only();
	while ((c = cfs_say_next_option(&cfs_verb_gc, argc, argv, options,
					&status)) >= 0) {
		as_json |= c == 'j';
		dry_run |= c == 'n';
		call.quiet |= c == 'q';
	}
	if (c == CFS_ARGS_EXIT)
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_gc, "name a store");
	call.object = argv[optind];
	call.arguments = cJSON_CreateObject();
	cfs_json_bool(call.arguments, "dry_run", dry_run);
	r = cfs_store_verb_call(&call, &result);
	if (r)
		return r;
	if (as_json)
		return cfs_store_verb_json(&cfs_verb_gc, result, CFS_EXIT_OK);
	if (!call.quiet)
		print_text(result);
	return cfs_say_done(&cfs_verb_gc, CFS_EXIT_OK);
}

const struct cfs_verb cfs_verb_gc = {
	.name = "gc",
	.summary = "give back the room of what was removed",
	.help = "usage: ckptfs gc [--dry-run] [--quiet] [--json] STORE\n"
		"\n"
		"Finds the chunks that nothing in the store refers to any "
		"more, removes packs\n"
		"that hold nothing else, and rewrites those that hold much of "
		"it. Before,\n"
		"16-bit weights that are their rounded master are kept as "
		"just that. Safe while\n"
		"the store is mounted and being saved to.\n"
		"\n"
		"  --dry-run   only tell what would be freed\n"
		"  --quiet     no progress, no summary\n"
		"  --json      print JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be done, 2 for bad usage.\n",
	.run = run,
};
