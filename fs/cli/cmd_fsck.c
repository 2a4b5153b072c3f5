/* ckptfs fsck: is the namespace of a store consistent in itself? */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/json.h"
#include "fs/cli/store_verb.h"
#include "fs/daemon/open.h"

static void print_text(const cJSON *result, bool quiet)
{
	cfs_store_verb_findings(result);
	if (quiet)
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
static int rebuild_index(const char *object)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};
	struct cfs_error err = {""};
	int r;

	r = cfs_store_path_find(object, &path, &err);
	if (r > 0)
		r = cfs_opened_rebuild_index(path.store, &err);
	return r < 0 ? cfs_say_fail(&cfs_verb_fsck, object, r, &err) : 0;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"rebuild-index", no_argument, NULL, 'r'},
		{"quiet", no_argument, NULL, 'q'},
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	struct cfs_store_verb call = {.verb = &cfs_verb_fsck,
				      .name = "fsck",
				      .units = true,
				      .findings = true,
				      .whole = true};
	bool as_json = false, rebuild = false;
	int c, r, status;

	cfs_say_errors_only();
	while ((c = cfs_say_next_option(&cfs_verb_fsck, argc, argv, options,
					&status)) >= 0) {
		as_json |= c == 'j';
		rebuild |= c == 'r';
		call.quiet |= c == 'q';
	}
	if (c == CFS_ARGS_EXIT)
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_fsck, "name a store");
	call.object = argv[optind];
	r = rebuild ? rebuild_index(call.object) : 0;
	if (r)
		return r;
	call.arguments = cJSON_CreateObject();
	r = cfs_store_verb_call(&call, &result);
	if (r)
		return r;
	status = cfs_store_verb_u64(result, "problems") ? CFS_EXIT_FAILED
							: CFS_EXIT_OK;
	if (as_json)
		return cfs_store_verb_json(&cfs_verb_fsck, result, status);
	print_text(result, call.quiet);
	return cfs_say_done(&cfs_verb_fsck, status);
}

const struct cfs_verb cfs_verb_fsck = {
	.name = "fsck",
	.summary = "check that a store's names and files hang together",
	.help = "usage: ckptfs fsck [--rebuild-index] [--quiet] [--json] STORE\n"
		"\n"
		"Checks a store's namespace: every name leads to a file, "
		"every count is right,\n"
		"and every map and chunk referred to is there. What is in the "
		"chunks is read by\n"
		"`ckptfs scrub`. Repairs nothing: a store needs no repair "
		"after a crash. Works\n"
		"while the store is mounted.\n"
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
