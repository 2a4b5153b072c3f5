/* ckptfs fsck: is the namespace of a store consistent in itself? */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/store_command.h"
#include "fs/daemon/open.h"

static int print_text(const struct cfs_store_verb *call, const cJSON *result)
{
	cfs_store_verb_findings(result);
	if (call->quiet)
		return 0;
	printf("%" PRIu64 " inodes, %" PRIu64 " names, %" PRIu64
	       " extents, %" PRIu64 " maps, %" PRIu64 " chunks: %" PRIu64
	       " problems\n",
	       cfs_store_verb_u64(result, "inodes"),
	       cfs_store_verb_u64(result, "dirents"),
	       cfs_store_verb_u64(result, "extents"),
	       cfs_store_verb_u64(result, "maps"),
	       cfs_store_verb_u64(result, "chunks"),
	       cfs_store_verb_u64(result, "problems"));
	return 0;
}

/* An exit status, 0 when it is done. */
static int rebuild_index(struct cfs_store_verb *call, bool wanted)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};
	struct cfs_error err = {""};
	int r;

	if (!wanted)
		return 0;
	r = cfs_store_path_find(call->object, &path, &err);
	if (r > 0)
		r = cfs_opened_rebuild_index(path.store, &err);
	return r < 0 ? cfs_say_fail(&cfs_verb_fsck, call->object, r, &err) : 0;
}

static bool found(const cJSON *result)
{
	return cfs_store_verb_u64(result, "problems");
}

static int run(int argc, char **argv)
{
	static const struct cfs_store_command command = {
		.call = {.verb = &cfs_verb_fsck,
			 .name = "fsck",
			 .units = true,
			 .findings = true,
			 .whole = true},
		.takes = "name a store",
		.has_quiet = true,
		.flag = "rebuild-index",
		.before = rebuild_index,
		.print = print_text,
		.found = found,
	};

	return cfs_store_command_run(&command, argc, argv);
}

const struct cfs_verb cfs_verb_fsck = {
	.name = "fsck",
	.summary = "check that a store's names and files hang together",
	.help = "usage: ckptfs fsck [--rebuild-index] [--quiet] [--json] STORE\n"
		"\n"
		"Checks a store's namespace: every name leads to a file, "
		"every count is right,\n"
		"and every map and chunk referred to is there; files whose are "
		"not are named.\n"
		"What is in the chunks is read by `ckptfs scrub`. Repairs "
		"nothing: a store needs\n"
		"no repair after a crash. Works while the store is mounted.\n"
		"\n"
		"The index may be deleted at any time while the store is not "
		"in use; the next\n"
		"verb or mount makes it anew.\n"
		"\n"
		"  --rebuild-index  make the index anew first; not while it is "
		"mounted\n"
		"  --quiet          no progress, print findings only\n"
		"  --json           print JSON\n"
		"  -h, --help       print this help\n"
		"\n"
		"Exits 0, or 1 with findings or when it cannot be done, 2 for "
		"bad usage.\n",
	.run = run,
};
