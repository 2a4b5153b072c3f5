/* ckptfs gc: gives back the room of what nothing refers to any more. */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/store_command.h"
#include "fs/cli/text.h"

static int print_text(const struct cfs_store_verb *call, const cJSON *result)
{
	bool dry = cfs_store_verb_flag(result, "dry_run");

	if (call->quiet)
		return 0;
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
	return 0;
}

static int run(int argc, char **argv)
{
	static const struct cfs_store_command command = {
		.call = {.verb = &cfs_verb_gc,
			 .name = "gc",
			 .units = true,
			 .whole = true},
		.takes = "name a store",
		.has_quiet = true,
		.flag = "dry-run",
		.argument = "dry_run",
		.print = print_text,
	};

	return cfs_store_command_run(&command, argc, argv);
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
