/* Serving a store: opened, its views over it, mounted, closed with a commit. */
#ifndef CFS_CLI_MOUNT_STORE_H
#define CFS_CLI_MOUNT_STORE_H

#include "store/util/base.h"

struct cfs_error;
struct cfs_fuse_options;
struct cfs_mount_options;

/* @fuse: all but what concerns stores.  Until it is unmounted. */
CFS_MUST_CHECK int cfs_mount_store(const char *path,
				   const struct cfs_mount_options *options,
				   struct cfs_fuse_options *fuse,
				   struct cfs_error *err);

#endif
