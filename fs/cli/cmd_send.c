/* ckptfs send: a tree of a store to another store. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "fs/cli/json.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/text.h"

extern char **environ;

/* A command that reads what we write and writes what we read. */
struct peer {
	pid_t pid;
	int fds[2]; /* to it, from it */
};

static void close_peer(struct peer *peer)
{
	cfs_closep(&peer->fds[0]);
	cfs_closep(&peer->fds[1]);
	peer->fds[0] = peer->fds[1] = -1;
}

static int spawn(const char *command, int in, int out, pid_t *pid_out)
{
	const char *const argv[] = {"sh", "-c", command, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t defaults;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawnattr_init(&attr);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	r = posix_spawn(pid_out, "/bin/sh", &actions, &attr,
			(char **)(uintptr_t)argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static int open_peer(const char *command, struct peer *peer)
{
	_cleanup_(cfs_closep) int theirs_in = -1, theirs_out = -1;
	int to[2], from[2], r;

	if (pipe2(to, O_CLOEXEC) < 0)
		return -errno;
	theirs_in = to[0];
	peer->fds[0] = to[1];
	if (pipe2(from, O_CLOEXEC) < 0)
		return -errno;
	theirs_out = from[1];
	peer->fds[1] = from[0];
	/* long ways are slow with small pipes */
	(void)fcntl(to[1], F_SETPIPE_SZ, 1 << 20);
	r = spawn(command, theirs_in, theirs_out, &peer->pid);
	if (r < 0)
		peer->pid = 0;
	return r;
}

/* The exit status of the command; it has seen the end of its input. */
static int wait_peer(struct peer *peer)
{
	int status;

	close_peer(peer);
	if (!peer->pid)
		return 0;
	while (waitpid(peer->pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void print_text(const char *object, const cJSON *result)
{
	printf("%s: %" PRIu64 " files, %s; %" PRIu64 " chunks sent, %" PRIu64
	       " were there; %s over the wire\n",
	       object, cfs_store_verb_u64(result, "files"),
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes")).s,
	       cfs_store_verb_u64(result, "chunks_sent"),
	       cfs_store_verb_u64(result, "chunks_known"),
	       cfs_text_bytes(cfs_store_verb_u64(result, "bytes_sent")).s);
}

static int send_to(struct cfs_store_verb *call, const char *command,
		   bool as_json)
{
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	struct peer peer = {0, {-1, -1}};
	int r, peer_status;

	r = open_peer(command, &peer);
	if (r < 0) {
		close_peer(&peer);
		cJSON_Delete(call->arguments);
		return cfs_say_fail(&cfs_verb_send, command, r, NULL);
	}
	call->fds = peer.fds;
	call->n_fds = 2;
	r = cfs_store_verb_call(call, &result);
	call->fds = NULL; /* ends here */
	peer_status = wait_peer(&peer);
	if (r)
		return r;
	if (peer_status) {
		cfs_say_warn(&cfs_verb_send, "%s: it failed (status %d)",
			     command, peer_status);
		return CFS_EXIT_FAILED;
	}
	if (as_json)
		return cfs_store_verb_json(&cfs_verb_send, result, CFS_EXIT_OK);
	if (!call->quiet)
		print_text(call->object, result);
	return cfs_say_done(&cfs_verb_send, CFS_EXIT_OK);
}

static int send_out(struct cfs_store_verb *call)
{
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	static const int out = STDOUT_FILENO;

	call->fds = &out;
	call->n_fds = 1;
	return cfs_store_verb_call(call, &result);
}

static int run(int argc, char **argv)
{
	struct cfs_store_verb call = {.verb = &cfs_verb_send, .name = "send"};
	const char *command = NULL;
	bool as_json = false;
	const struct cfs_say_option options[] = {
		{"to", NULL, cfs_say_take_text, &command, NULL},
		{.name = "quiet", .flag = &call.quiet},
		{.name = "json", .flag = &as_json},
		{0},
	};
	int status;

	if (!cfs_say_options(&cfs_verb_send, argc, argv, options, &status))
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_send, "name a path in a store");
	if (!command && as_json)
		return cfs_say_usage(&cfs_verb_send,
				     "--json needs --to: standard output is "
				     "the stream");
	if (!command && isatty(STDOUT_FILENO))
		return cfs_say_usage(&cfs_verb_send,
				     "standard output is a terminal: name a "
				     "command with --to, or redirect it");
	call.object = argv[optind];
	call.arguments = cJSON_CreateObject();
	return command ? send_to(&call, command, as_json) : send_out(&call);
}

const struct cfs_verb cfs_verb_send = {
	.name = "send",
	.summary = "send a tree to another store",
	.help = "usage: ckptfs send [--to COMMAND] [--quiet] [--json] "
		"STORE[/PATH]\n"
		"\n"
		"Sends a file or directory of a store to `ckptfs receive`. "
		"With --to, COMMAND is\n"
		"run by the shell and talked to, so that only chunks go over "
		"which the other\n"
		"store lacks:\n"
		"\n"
		"  ckptfs send --to 'ssh host ckptfs receive /data/store/run1' "
		"STORE/run1\n"
		"\n"
		"Without it all is written to standard output, every chunk "
		"once. The other side\n"
		"checks the digest of every chunk, and shows the tree when "
		"all of it is there.\n"
		"Steps that are pinned stay so.\n"
		"\n"
		"  --to COMMAND  what to talk to\n"
		"  --quiet       no progress, no summary\n"
		"  --json        print the summary as JSON; with --to only\n"
		"  -h, --help    print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be sent, 2 for bad usage.\n",
	.run = run,
};
