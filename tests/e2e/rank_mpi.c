/*
 * One rank of an MPI job that saves: test_rank_mpi.py starts it.
 *
 *   rank_mpi RUN STEP BYTES [VICTIM MICROSECONDS]
 *
 * Each rank writes BYTES of its own to part-RANK; VICTIM kills itself so long
 * after it opened.  Exit status 0: the step was committed; 3: it was refused,
 * with the reason on standard output.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <ckptfs/rank.h>
#include <ckptfs/rank_mpi.h>

#include "tests/e2e/rank_save.h"

static void *die_later(void *arg)
{
	usleep(*(unsigned *)arg);
	(void)raise(SIGKILL);
	return NULL;
}

int main(int argc, char **argv)
{
	struct cfs_rank_comm comm;
	struct cfs_rank_options o = {.size = sizeof(o),
				     .comm = &comm,
				     .ring_bytes = 4u << 20,
				     .timeout_s = 60};
	struct cfs_rank *rank = NULL;
	pthread_t thread;
	unsigned us;
	int r, number;

	if (argc != 4 && argc != 6)
		return 2;
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &number);
	r = cfs_rank_comm_mpi(MPI_COMM_WORLD, &comm);
	if (!r)
		r = cfs_rank_open(argv[1], &o, &rank);
	if (!r)
		MPI_Barrier(MPI_COMM_WORLD);
	if (!r && argc == 6 && atoi(argv[4]) == number) {
		us = (unsigned)strtoul(argv[5], NULL, 10);
		r = -pthread_create(&thread, NULL, die_later, &us);
	}
	if (!r)
		r = save_part(rank, argv[2], strtoul(argv[3], NULL, 10),
			      number);
	if (r)
		printf("%d %s\n", r, cfs_rank_error());
	else
		printf("saved\n");
	fflush(stdout);
	cfs_rank_close(rank);
	if (argc == 6)
		_exit(r ? 3 : 0); /* MPI would wait for the dead */
	cfs_rank_comm_mpi_free(&comm);
	MPI_Finalize();
	return r ? 3 : 0;
}
