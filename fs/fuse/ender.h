/* Ends a mount upon a signal: what the kernel holds back of mapped files is
 * fetched first. */
#ifndef CFS_FUSE_ENDER_H
#define CFS_FUSE_ENDER_H

#include "store/util/base.h"

struct cfs_ender;
struct fuse_session;

/* By the thread that will run the loop; with the signals blocked
 * (cfs_fuse_block_signals()). */
CFS_MUST_CHECK int cfs_ender_start(struct fuse_session *session,
				   const char *dir,
				   struct cfs_ender **ender_out);
/* By the same thread when the loop has ended. */
void cfs_ender_stop(struct cfs_ender *ender);

#endif
