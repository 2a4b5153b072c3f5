/*
 * Ranks as plain processes with a broadcast of their own, and one of them is
 * killed: test_rank_fork.py starts it.
 *
 *   rank_fork RUN STEP BYTES RANKS VICTIM MICROSECONDS
 *   rank_fork RUN STEP BYTES RANKS wait
 *
 * Each rank that lives prints a line: "saved", or its error and the reason.
 * wait: the last rank does not commit but puts until that fails; "ready" is
 * printed when all are open.
 */
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/rank_save.h"

#define RANKS 16

static int sockets[RANKS][2]; /* rank 0's end and the rank's */
static uint32_t n_ranks;

static int broadcast(void *arg, void *data, size_t len)
{
	uint32_t rank = *(uint32_t *)arg, i;

	if (rank)
		return recv(sockets[rank][1], data, len, MSG_WAITALL) ==
				       (ssize_t)len
			       ? 0
			       : -EPIPE;
	for (i = 1; i < n_ranks; i++)
		if (send(sockets[i][0], data, len, MSG_NOSIGNAL) !=
		    (ssize_t)len)
			return -EPIPE;
	return 0;
}

static int put_until_it_fails(struct cfs_rank *rank, const char *step)
{
	struct cfs_rank_save_options o = {.size = sizeof(o), .format = "files"};
	struct cfs_rank_save *s = NULL;
	char name[32];
	unsigned i;
	int r = cfs_rank_save_begin(rank, step, &o, &s);

	for (i = 0; !r; i++) {
		snprintf(name, sizeof(name), "o%u", i);
		r = cfs_rank_put_object(s, name, "x", 1);
		usleep(1000);
	}
	return r;
}

static int be_rank(uint32_t number, char **argv, int ready)
{
	struct cfs_rank_comm comm = {.size = sizeof(comm),
				     .rank = number,
				     .n_ranks = n_ranks,
				     .broadcast = broadcast,
				     .arg = &number};
	struct cfs_rank_options o = {
		.size = sizeof(o), .comm = &comm, .ring_bytes = 4u << 20};
	bool waits = !strcmp(argv[5], "wait") && number + 1 == n_ranks;
	struct cfs_rank *rank = NULL;
	int r = cfs_rank_open(argv[1], &o, &rank);

	if (write(ready, "", 1) != 1)
		return 1;
	if (!r && waits)
		r = put_until_it_fails(rank, argv[2]);
	else if (!r)
		r = save_part(rank, argv[2], strtoul(argv[3], NULL, 10),
			      (int)number);
	if (r)
		printf("%d %s\n", r, cfs_rank_error());
	else
		printf("saved\n");
	fflush(stdout);
	cfs_rank_close(rank);
	return 0;
}

int main(int argc, char **argv)
{
	pid_t pids[RANKS];
	int ready[2], bad = 0;
	uint32_t i;
	char byte;

	n_ranks = argc > 5 ? (uint32_t)atoi(argv[4]) : 0;
	if (argc < 6 || !n_ranks || n_ranks > RANKS || pipe(ready) < 0)
		return 2;
	for (i = 0; i < n_ranks; i++)
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets[i]) < 0)
			return 2;
	for (i = 0; i < n_ranks; i++) {
		pids[i] = fork();
		if (!pids[i])
			_exit(be_rank(i, argv, ready[1]));
	}
	for (i = 0; i < n_ranks; i++)
		if (read(ready[0], &byte, 1) != 1)
			return 2;
	if (argc > 6) {
		usleep((useconds_t)atoi(argv[6]));
		(void)kill(pids[atoi(argv[5])], SIGKILL);
	} else {
		printf("ready\n");
		fflush(stdout);
	}
	for (i = 0; i < n_ranks; i++) {
		int status = 0;

		(void)waitpid(pids[i], &status, 0);
		bad |= WIFEXITED(status) && WEXITSTATUS(status);
	}
	return bad;
}
