/* Directories that files are made in: each looked for once. */
#ifndef CFS_RANK_ASSEMBLE_DIRS_H
#define CFS_RANK_ASSEMBLE_DIRS_H

#include "fs/rank/assemble.h"

struct cfs_assemble_dirs {
	struct cfs_ns *ns;
	uint64_t top;
	struct cfs_assemble_owner owner;

	char *last; /* the directory that was made or found last; or NULL */
	size_t last_len;
	uint64_t last_ino;
	uint64_t n_files; /* made */
};
void cfs_assemble_dirs_fini(struct cfs_assemble_dirs *d);

/* As cfs_assemble_name_check() and cfs_assemble_create(). */
CFS_MUST_CHECK int cfs_assemble_dirs_check(const char *name,
					   struct cfs_error *err);
CFS_MUST_CHECK int cfs_assemble_dirs_create(struct cfs_assemble_dirs *d,
					    const char *name,
					    struct cfs_ns_file **file_out,
					    struct cfs_error *err);

#endif
