/* What the files of loading share: steps and what is open of them. */
#ifndef CFS_RANK_LOAD_H
#define CFS_RANK_LOAD_H

#include "fs/rank/conn.h"
#include "fs/reslice/catalogue.h"

struct cfs_file;
struct cfs_map;
struct cfs_reader;
struct cfs_step;
struct cfs_workers;

#define CFS_LOADS_MAX	     16u
#define CFS_LOAD_HANDLES_MAX 256u

struct cfs_load {
	uint64_t id; /* 0: the place is free */
	char *path;  /* of the step, in the store */
	uint64_t ino;
	/* 0, or why its tensors cannot be told */
	int tensors_r;
	struct cfs_error tensors_err;
	struct cfs_step *whole; /* one rank has all; or NULL */
	struct cfs_file **held; /* its files, so that they stay */
	uint32_t n_held;
};

struct cfs_load_handle { /* reader or file */
	uint64_t id, load;
	uint64_t size;
	struct cfs_reader *reader;
	struct cfs_file *file;
};

struct cfs_rank_loads {
	uint64_t last_id;
	struct cfs_load loads[CFS_LOADS_MAX];
	struct cfs_load_handle handles[CFS_LOAD_HANDLES_MAX];
};

/* ---- load_step.c ---- */

/* Opens the step that @op names; *name_out is the caller's to free. */
CFS_MUST_CHECK int cfs_load_open(struct cfs_conn *conn, const char *step,
				 struct cfs_load *load, char **name_out,
				 struct cfs_error *err);
void cfs_load_fini(struct cfs_load *load);
/* A file of the step. */
CFS_MUST_CHECK int cfs_load_file(struct cfs_conn *conn,
				 const struct cfs_load *load, const char *name,
				 struct cfs_load_handle *handle,
				 struct cfs_error *err);

/* ---- load_slice.c ---- */

CFS_MUST_CHECK int cfs_load_list(const struct cfs_catalogue *cat, uint64_t from,
				 cJSON *result);
/* What @op asks for, as a sealed map. */
CFS_MUST_CHECK int cfs_load_slice(struct cfs_step *whole,
				  const struct cfs_op *op, struct cfs_map **out,
				  struct cfs_error *err);

/* ---- load_read.c ---- */

CFS_MUST_CHECK int cfs_load_read(struct cfs_conn *conn,
				 const struct cfs_load_handle *handle,
				 const struct cfs_op *op,
				 struct cfs_error *err);

#endif
