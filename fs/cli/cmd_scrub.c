/* ckptfs scrub: reads everything a store holds and checks every digest. */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/store_command.h"
#include "fs/cli/text.h"

static int print_text(const struct cfs_store_verb *call, const cJSON *result)
{
	cfs_store_verb_findings(result);
	if (call->quiet)
		return 0;
	printf("%" PRIu64 " chunks, %" PRIu64 " maps, %s read: %" PRIu64
	       " damaged, %" PRIu64 " missing\n",
	       cfs_store_verb_u64(result, "chunks"),
	       cfs_store_verb_u64(result, "maps"),
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes")).s,
	       cfs_store_verb_u64(result, "damaged"),
	       cfs_store_verb_u64(result, "missing"));
	return 0;
}

static bool found(const cJSON *result)
{
	return cfs_store_verb_u64(result, "damaged") ||
	       cfs_store_verb_u64(result, "missing") ||
	       cfs_store_verb_u64(result, "lost");
}

static int run(int argc, char **argv)
{
	static const struct cfs_store_command command = {
		.call = {.verb = &cfs_verb_scrub,
			 .name = "scrub",
			 .units = true,
			 .findings = true,
			 .whole = true},
		.takes = "name a store",
		.has_quiet = true,
		.print = print_text,
		.found = found,
	};

	return cfs_store_command_run(&command, argc, argv);
}

const struct cfs_verb cfs_verb_scrub = {
	.name = "scrub",
	.summary = "read all of a store and check every digest",
	.help = "usage: ckptfs scrub [--quiet] [--json] STORE\n"
		"\n"
		"Reads every chunk and every map of a store and compares its "
		"SHA-256 with its\n"
		"name. What is damaged or missing is listed with its pack, and "
		"then the files it\n"
		"is part of, a hundred by name. That the store went back to an "
		"older state is\n"
		"told, too, until `ckptfs fsck --acknowledge`. Works while the "
		"store is mounted.\n"
		"\n"
		"  --quiet     no progress, print findings only\n"
		"  --json      print JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when something is damaged, missing or lost, or "
		"when it cannot be\n"
		"done, 2 for bad usage.\n",
	.run = run,
};
