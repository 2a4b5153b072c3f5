/* ckptfs import: copies directories and files into a store. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/text.h"

/*
 * What a source is called in the store is its last component; of "DIR/." and
 * of "/" the content is meant.  The path is made whole here: a daemon has
 * another working directory.
 */
static int add_source(const char *path, cJSON *sources)
{
	_cleanup_(cfs_freep) char *copy = strdup(path), *real = NULL;
	_cleanup_(cfs_freep) char *full = NULL;
	char *name, *slash;
	size_t len = strlen(path);
	cJSON *o;

	if (!copy)
		return -ENOMEM;
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = strrchr(copy, '/');
	name = slash ? slash + 1 : copy;
	if (!strcmp(name, ".") || !strcmp(name, "..") || !*name) {
		real = realpath(copy, NULL);
		if (!real)
			return -errno;
		full = strdup(real);
	} else {
		/* the last component may be a link, to be copied as one */
		if (slash)
			*slash = '\0';
		real = realpath(!slash		? "."
				: slash == copy ? "/"
						: copy,
				NULL);
		if (!real)
			return -errno;
		if (asprintf(&full, "%s/%s", real[1] ? real : "", name) < 0)
			full = NULL;
	}
	if (!full)
		return -ENOMEM;
	o = cfs_json_object(sources, NULL);
	/* as it is: a name is bytes, and goes to the same machine */
	cJSON_AddStringToObject(o, "path", full);
	if (!strcmp(name, ".") || !strcmp(name, "..") || !*name)
		cfs_json_bool(o, "contents", true);
	else
		cJSON_AddStringToObject(o, "name", name);
	return 0;
}

static void print_text(const char *object, const cJSON *result)
{
	uint64_t kept = cfs_store_verb_u64(result, "files_kept");
	uint64_t bytes = cfs_store_verb_u64(result, "bytes") -
			 cfs_store_verb_u64(result, "bytes_kept");
	double seconds = cfs_store_verb_real(result, "seconds");

	printf("%s: %" PRIu64 " files, %s in %s", object,
	       cfs_store_verb_u64(result, "files") - kept,
	       cfs_text_bytes(bytes).s, cfs_text_duration(seconds).s);
	if (seconds > 0)
		printf(" (%s/s)",
		       cfs_text_bytes((uint64_t)((double)bytes / seconds)).s);
	if (kept)
		printf("; %" PRIu64 " were there", kept);
	putchar('\n');
}

static int run(int argc, char **argv)
{
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	_cleanup_(cfs_json_freep) cJSON *arguments = cJSON_CreateObject();
	struct cfs_store_verb call = {.verb = &cfs_verb_import,
				      .name = "import"};
	bool as_json = false, merge = false, compare = false;
	cJSON *sources;
	const struct cfs_say_option options[] = {
		{.name = "merge", .flag = &merge},
		{.name = "compare", .flag = &compare},
		{.name = "quiet", .flag = &call.quiet},
		{.name = "json", .flag = &as_json},
		{0},
	};
	int i, r, status;

	if (!cfs_say_options(&cfs_verb_import, argc, argv, options, &status))
		return status;
	if (argc - optind < 2)
		return cfs_say_usage(&cfs_verb_import,
				     "name a store, and what to copy into it");
	call.object = argv[optind];
	cfs_json_bool(arguments, "merge", merge || compare);
	cfs_json_bool(arguments, "compare", compare);
	sources = cfs_json_array(arguments, "sources");
	for (i = optind + 1; i < argc; i++) {
		r = add_source(argv[i], sources);
		if (r < 0)
			return cfs_say_fail(&cfs_verb_import, argv[i], r, NULL);
	}
	call.arguments = cfs_steal(arguments);
	r = cfs_store_verb_call(&call, &result);
	if (r)
		return r;
	if (as_json)
		return cfs_store_verb_json(&cfs_verb_import, result,
					   CFS_EXIT_OK);
	if (!call.quiet)
		print_text(call.object, result);
	return cfs_say_done(&cfs_verb_import, CFS_EXIT_OK);
}

const struct cfs_verb cfs_verb_import = {
	.name = "import",
	.summary = "copy directories and files into a store",
	.help = "usage: ckptfs import [--merge] [--compare] [--quiet] [--json]\n"
		"                     STORE[/PATH] SOURCE…\n"
		"\n"
		"Copies files, and directories with all that is in them, into "
		"a store, mounted or\n"
		"not, as `cp -a` would: modes, times to the nanosecond, links, "
		"holes, user\n"
		"attributes, and for root owners. They keep their last name; "
		"of SOURCE/. the\n"
		"content is taken. Faster than copying through a mount.\n"
		"\n"
		"A file that changes while it is read fails the import. An "
		"import that was cut\n"
		"short goes on with --merge: files of the same size and time "
		"are not read again,\n"
		"and what is otherwise than in SOURCE is made anew. "
		"Completion markers, such as\n"
		"latest, come last.\n"
		"\n"
		"  --merge     add to what is there; what differs is replaced\n"
		"  --compare   with it: compare the bytes of all files; those "
		"that differ, or\n"
		"              cannot be read in the store, are replaced\n"
		"  --quiet     no progress, no summary\n"
		"  --json      print the summary as JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be done, 2 for bad usage.\n",
	.run = run,
};
