/* A torch file named on the command line: on disk or in a view, parsed. */
#ifndef CFS_CLI_TARGET_FILE_H
#define CFS_CLI_TARGET_FILE_H

#include "fs/cli/target.h"

struct cfs_file;
struct cfs_filetab;
struct cfs_torchfile;

struct cfs_target_file {
	struct cfs_target target;
	struct cfs_source *vsource; /* reads through the view layer */
	struct cfs_filepool *pool;
	struct cfs_filetab *tab; /* one row: the file */
	struct cfs_file *file;
	uint64_t size;
	struct cfs_torchfile *torch;
};

/* Takes @target over, also on failure.  -EISDIR for a directory; what the
 * parser says for what is no torch file. */
CFS_MUST_CHECK int cfs_target_file_take(struct cfs_target *target,
					struct cfs_target_file *out,
					struct cfs_error *err);
void cfs_target_file_close(struct cfs_target_file *tf);

#endif
