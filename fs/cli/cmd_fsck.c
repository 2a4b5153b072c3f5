/* ckptfs fsck: is the namespace of a store consistent in itself? */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/fsck_salvage.h"
#include "fs/cli/json.h"
#include "fs/daemon/open.h"

static void print_text(const struct cfs_store_verb *call, const cJSON *result)
{
	cfs_store_verb_findings(result);
	if (call->quiet)
		return;
	printf("%" PRIu64 " inodes, %" PRIu64 " names, %" PRIu64
	       " extents, %" PRIu64 " maps, %" PRIu64 " chunks: %" PRIu64
	       " problems\n",
	       cfs_store_verb_u64(result, "inodes"),
	       cfs_store_verb_u64(result, "dirents"),
	       cfs_store_verb_u64(result, "extents"),
	       cfs_store_verb_u64(result, "maps"),
	       cfs_store_verb_u64(result, "chunks"),
	       cfs_store_verb_u64(result, "problems"));
}

/* An exit status, 0 when it is done. */
static int rebuild_index(const struct cfs_store_verb *call)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};
	struct cfs_error err = {""};
	int r;

	r = cfs_store_path_find(call->object, &path, &err);
	if (r > 0)
		r = cfs_opened_rebuild_index(path.store, &err);
	return r < 0 ? cfs_say_fail(&cfs_verb_fsck, call->object, r, &err) : 0;
}

static int check(struct cfs_store_verb *call, bool acknowledge, bool as_json)
{
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	int r, status;

	call->arguments = cJSON_CreateObject();
	cfs_json_bool(call->arguments, "acknowledge", acknowledge);
	r = cfs_store_verb_call(call, &result);
	if (r)
		return r;
	status = cfs_store_verb_u64(result, "problems") ? CFS_EXIT_FAILED
							: CFS_EXIT_OK;
	if (as_json)
		return cfs_store_verb_json(call->verb, result, status);
	print_text(call, result);
	return cfs_say_done(call->verb, status);
}

static int run(int argc, char **argv)
{
	struct cfs_store_verb call = {.verb = &cfs_verb_fsck,
				      .name = "fsck",
				      .units = true,
				      .findings = true,
				      .whole = true};
	bool as_json = false, rebuild = false, salvage = false, yes = false,
	     acknowledge = false;
	const struct cfs_say_option options[] = {
		{.name = "rebuild-index", .flag = &rebuild},
		{.name = "salvage", .flag = &salvage},
		{.name = "yes", .flag = &yes},
		{.name = "acknowledge", .flag = &acknowledge},
		{.name = "quiet", .flag = &call.quiet},
		{.name = "json", .flag = &as_json},
		{0},
	};
	int status;

	if (!cfs_say_options(call.verb, argc, argv, options, &status))
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(call.verb, "name a store");
	if (salvage + rebuild + acknowledge > 1 || (yes && !salvage))
		return cfs_say_usage(call.verb, "these options do not go "
						"together");
	call.object = argv[optind];
	if (salvage)
		return cfs_fsck_salvage(&call, yes, as_json);
	status = rebuild ? rebuild_index(&call) : 0;
	return status ? status : check(&call, acknowledge, as_json);
}

const struct cfs_verb cfs_verb_fsck = {
	.name = "fsck",
	.summary = "check that a store's names and files hang together",
	.help = "usage: ckptfs fsck [--rebuild-index] [--acknowledge] "
		"[--quiet] [--json] STORE\n"
		"       ckptfs fsck --salvage [--yes] [--json] STORE\n"
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
		"A store whose log is damaged refuses to open. --salvage looks "
		"for the newest\n"
		"state that the log proves or the index has, tells what is "
		"lost and which files\n"
		"that affects; with --yes the store goes on from there. It "
		"removes no pack. That\n"
		"it went back is told by every fsck and scrub until "
		"--acknowledge.\n"
		"\n"
		"  --rebuild-index  make the index anew first; not while it is "
		"mounted\n"
		"  --salvage        for a store that refuses to open: look at "
		"what can be had\n"
		"  --yes            and go on from there\n"
		"  --acknowledge    that the store went back to an older state "
		"is known\n"
		"  --quiet          no progress, print findings only\n"
		"  --json           print JSON\n"
		"  -h, --help       print this help\n"
		"\n"
		"Exits 0, or 1 with findings or when it cannot be done, 2 for "
		"bad usage.\n",
	.run = run,
};
