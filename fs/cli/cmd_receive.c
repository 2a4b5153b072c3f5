/* ckptfs receive: the other end of send. */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/store_command.h"
#include "fs/cli/text.h"

static int print_text(const struct cfs_store_verb *call, const cJSON *result)
{
	if (call->quiet)
		return 0;
	printf("%s: %" PRIu64 " files, %s; %" PRIu64 " chunks in %s\n",
	       call->object, cfs_store_verb_u64(result, "files"),
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes")).s,
	       cfs_store_verb_u64(result, "chunks_received"),
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes_received")).s);
	return 0;
}

static int check_input(struct cfs_store_verb *call, bool flag)
{
	(void)flag;
	return isatty(STDIN_FILENO)
		       ? cfs_say_usage(call->verb,
				       "standard input is a terminal, not what "
				       "ckptfs send writes")
		       : 0;
}

static int run(int argc, char **argv)
{
	static const int fds[2] = {STDIN_FILENO, STDOUT_FILENO};
	static const struct cfs_store_command command = {
		.call = {.verb = &cfs_verb_receive,
			 .name = "receive",
			 .fds = fds,
			 .n_fds = 2},
		.takes = "name a store and a path in it",
		.has_quiet = true,
		.before = check_input,
		.print = print_text,
	};

	return cfs_store_command_run(&command, argc, argv);
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
