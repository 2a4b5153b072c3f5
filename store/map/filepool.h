/*
 * Open files of a source, one per path and version, and the watch over them:
 * no byte read from a file that is not the planned one leaves this directory.
 */
#ifndef CFS_MAP_FILEPOOL_H
#define CFS_MAP_FILEPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "store/map/eval.h"

struct cfs_file;

/*
 * All these take a file that cfs_filepool_get() gave; any thread.  Its own
 * pread op is one of both below together, for whoever reads it as a file.
 */

/*
 * All @len bytes: 0; -ESTALE (already known to have changed), -EIO (short) or
 * the file's error.  They are not to be trusted before cfs_filepool_check().
 */
CFS_MUST_CHECK int cfs_filepool_pread(struct cfs_file *file, void *buf,
				      size_t len, uint64_t off);
/*
 * 0: whatever was read from @file until now is what the version had.
 *
 * Inode, size and mtime must be the planned ones.  A ctime that moved alone is
 * taken for what it mostly is when that can be seen, unlink, link or rename:
 * the link count changed, or the path leads elsewhere by now.  Anything else
 * (chmod, and also a change in place whose mtime was set back) is -ESTALE:
 * rather a view too few than wrong bytes.
 */
CFS_MUST_CHECK int cfs_filepool_check(struct cfs_file *file);

/* Files open now; for tests. */
size_t cfs_filepool_count(struct cfs_filepool *pool);

#endif
