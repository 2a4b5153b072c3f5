/* The table of mounts: what is mounted on a directory. */
#ifndef CFS_CLI_MOUNTINFO_H
#define CFS_CLI_MOUNTINFO_H

#include <stdbool.h>
#include <sys/types.h>

#include "store/util/base.h"

#define CFS_MOUNT_TYPE "fuse.ckptfs"

/* Is the topmost mount at @dir (absolute, no links in it) one of ours?  1, 0
 * (another one), or -ENOENT when nothing is mounted there. */
CFS_MUST_CHECK int cfs_mountinfo_is_ours(const char *dir);

/* Who mounted the FUSE mount on top at @dir; -ENOENT where that is unknown. */
CFS_MUST_CHECK int cfs_mountinfo_owner(const char *dir, uid_t *uid_out);

/* Like realpath(3), also where the last component is a dead mount, which
 * answers nothing; NULL with errno set. */
char *cfs_mountinfo_realpath(const char *dir);

/* Is @path @dir itself or below it?  Both absolute. */
bool cfs_path_is_below(const char *path, const char *dir);

/* Unmounts @dir, directly as root, else through fusermount3.  0 or -errno,
 * -EIO where fusermount3 said why itself. */
CFS_MUST_CHECK int cfs_unmount(const char *dir, bool lazy);

#endif
