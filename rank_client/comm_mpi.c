/* The ranks of an MPI communicator; the only file that sees mpi.h. */
#include "ckptfs/rank_mpi.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

static int broadcast(void *arg, void *data, size_t len)
{
	MPI_Comm *comm = arg;
	char *at = data;

	while (len) {
		int n = len < INT_MAX ? (int)len : INT_MAX;

		if (MPI_Bcast(at, n, MPI_BYTE, 0, *comm) != MPI_SUCCESS)
			return -EIO;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int cfs_rank_comm_mpi(MPI_Comm comm, struct cfs_rank_comm *comm_out)
{
	MPI_Comm *copy = malloc(sizeof(*copy));
	int rank, n_ranks;

	if (!copy)
		return -ENOMEM;
	if (MPI_Comm_dup(comm, copy) != MPI_SUCCESS) {
		free(copy);
		return -EIO;
	}
	if (MPI_Comm_rank(*copy, &rank) != MPI_SUCCESS ||
	    MPI_Comm_size(*copy, &n_ranks) != MPI_SUCCESS) {
		(void)MPI_Comm_free(copy);
		free(copy);
		return -EIO;
	}
	*comm_out = (struct cfs_rank_comm){.size = sizeof(*comm_out),
					   .rank = (uint32_t)rank,
					   .n_ranks = (uint32_t)n_ranks,
					   .broadcast = broadcast,
					   .arg = copy};
	return 0;
}

void cfs_rank_comm_mpi_free(struct cfs_rank_comm *comm)
{
	if (!comm || !comm->arg)
		return;
	(void)MPI_Comm_free(comm->arg);
	free(comm->arg);
	comm->arg = NULL;
}
