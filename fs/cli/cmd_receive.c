/* ckptfs receive: the other end of send. */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/json.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/text.h"

static void print_text(const char *object, const cJSON *result)
{
	printf("%s: %" PRIu64 " files, %s; %" PRIu64 " chunks in %s\n", object,
	       cfs_store_verb_u64(result, "files"),
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes")).s,
	       cfs_store_verb_u64(result, "chunks_received"),
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes_received")).s);
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"quiet", no_argument, NULL, 'q'},
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	static const int fds[2] = {STDIN_FILENO, STDOUT_FILENO};
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	struct cfs_store_verb call = {.verb = &cfs_verb_receive,
				      .name = "receive",
				      .fds = fds,
				      .n_fds = 2};
	bool as_json = false;
	int c, r, status;

	cfs_say_errors_only();
	while ((c = cfs_say_next_option(&cfs_verb_receive, argc, argv, options,
					&status)) >= 0) {
		as_json |= c == 'j';
		call.quiet |= c == 'q';
	}
	if (c == CFS_ARGS_EXIT)
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_receive,
				     "name a store and a path in it");
	if (isatty(STDIN_FILENO))
		return cfs_say_usage(&cfs_verb_receive,
				     "standard input is a terminal, not what "
				     "ckptfs send writes");
	call.object = argv[optind];
	call.arguments = cJSON_CreateObject();
	r = cfs_store_verb_call(&call, &result);
	if (r)
		return r;
	if (cfs_store_verb_flag(result, "duplex"))
		return CFS_EXIT_OK; /* standard output is the sender's */
	if (as_json)
		return cfs_store_verb_json(&cfs_verb_receive, result,
					   CFS_EXIT_OK);
	if (!call.quiet)
		print_text(call.object, result);
	return cfs_say_done(&cfs_verb_receive, CFS_EXIT_OK);
}

const struct cfs_verb cfs_verb_receive = {
	.name = "receive",
	.summary = "take in what ckptfs send sends",
	.help = "usage: ckptfs receive [--quiet] [--json] STORE/PATH\n"
		"\n"
		"Reads from standard input what `ckptfs send` sends and makes "
		"it STORE/PATH,\n"
		"which must not be there. Every chunk's digest is checked; "
		"nothing of it is seen\n"
		"before all of it is there and durable. Root keeps owners; for "
		"others all of it\n"
		"is theirs.\n"
		"\n"
		"Answers go to standard output when the sender wants any (send "
		"--to); else a\n"
		"summary does.\n"
		"\n"
		"  --quiet     no progress, no summary\n"
		"  --json      print the summary as JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be received, 2 for bad usage.\n",
	.run = run,
};
