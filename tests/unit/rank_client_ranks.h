/*
 * Ranks that are processes of their own: rank_client_rank.c.  They are another
 * program, since in a child of this one, which has a daemon's threads, a lock
 * may be held for ever by a thread that the child does not have.
 */
#ifndef CFS_RANK_CLIENT_RANKS_H
#define CFS_RANK_CLIENT_RANKS_H

#include "tests/unit/rank_client_bed.h"

struct ranks {
	uint32_t n;
	pid_t pids[RANKS];
	int said[RANKS];
	int ready; /* a byte from each rank that is open */
};

/* Before that it is the communicator's to notice that one is gone. */
static inline void ranks_wait_ready(struct ranks *ranks)
{
	char byte;
	uint32_t i;

	for (i = 0; i < ranks->n; i++)
		if (read(ranks->ready, &byte, 1) != 1)
			break;
}

/* @fds: what it inherits.  Between fork and exec nothing takes a lock. */
static inline pid_t spawn(char *const argv[], const int *fds, unsigned n)
{
	pid_t pid = fork();
	unsigned i;

	ck_assert_int_ge(pid, 0);
	if (pid)
		return pid;
	for (i = 0; i < n; i++)
		if (fcntl(fds[i], F_SETFD, 0) < 0)
			_exit(2);
	execv(argv[0], argv);
	_exit(2);
}

static inline pid_t spawn_rank(struct daemon *d, const char *what,
			       uint32_t rank, uint32_t n, int said, int ready,
			       int pairs[][2])
{
	int fds[RANKS + 1] = {said, ready};
	static char program[] = CFS_RANK_PROGRAM;
	char act[32], numbers[RANKS + 3][16];
	char *argv[RANKS + 7] = {program, act, d->run};
	unsigned i, n_fds = 2;

	for (i = 1; !rank && i < n; i++)
		fds[n_fds++] = pairs[i][0];
	if (rank)
		fds[n_fds++] = pairs[rank][1];
	snprintf(act, sizeof(act), "%s", what);
	snprintf(numbers[0], sizeof(numbers[0]), "%u", rank);
	snprintf(numbers[1], sizeof(numbers[1]), "%u", n);
	for (i = 0; i < n_fds; i++)
		snprintf(numbers[i + 2], sizeof(numbers[0]), "%d", fds[i]);
	for (i = 0; i < n_fds + 2; i++)
		argv[i + 3] = numbers[i];
	return spawn(argv, fds, n_fds);
}

static inline void ranks_start(struct ranks *ranks, struct daemon *d,
			       uint32_t n, const char *what)
{
	int pairs[RANKS][2], out[2], ready[2];
	uint32_t i;

	ranks->n = n;
	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	ranks->ready = ready[0];
	for (i = 1; i < n; i++)
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC,
					    0, pairs[i]),
				 0);
	for (i = 0; i < n; i++) {
		ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
		ranks->pids[i] =
			spawn_rank(d, what, i, n, out[1], ready[1], pairs);
		close(out[1]);
		ranks->said[i] = out[0];
	}
	for (i = 1; i < n; i++) {
		close(pairs[i][0]);
		close(pairs[i][1]);
	}
	close(ready[1]);
}

/* false: it died and said nothing. */
static inline bool rank_end(struct ranks *ranks, uint32_t i, struct said *said)
{
	bool spoke = read(ranks->said[i], said, sizeof(*said)) == sizeof(*said);
	int status;

	close(ranks->said[i]);
	if (i + 1 == ranks->n)
		close(ranks->ready);
	ck_assert_int_eq(waitpid(ranks->pids[i], &status, 0), ranks->pids[i]);
	ck_assert_msg(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL
					  : !WEXITSTATUS(status),
		      "rank %u ends with %#x", i, status);
	return spoke;
}

#endif
