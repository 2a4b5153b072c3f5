/*
 * The ranks of an MPI communicator, for cfs_rank_open(); in libckptfs_rank_mpi.
 */
#ifndef CKPTFS_RANK_MPI_H
#define CKPTFS_RANK_MPI_H

#include <mpi.h>

#include <ckptfs/rank.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * cfs_rank_comm_mpi - describe @comm
 *
 * Duplicates @comm, so that messages never meet the program's own.  Collective;
 * between MPI_Init() and MPI_Finalize(), by the thread that MPI allows.
 * 0 or -EIO.  End it with cfs_rank_comm_mpi_free(), collective too, after
 * cfs_rank_open() at the earliest.
 */
int cfs_rank_comm_mpi(MPI_Comm comm, struct cfs_rank_comm *comm_out);
void cfs_rank_comm_mpi_free(struct cfs_rank_comm *comm);

#ifdef __cplusplus
}
#endif

#endif
