/* May this user do that, by owners and modes on the way? */
#ifndef CFS_RANK_ACCESS_H
#define CFS_RANK_ACCESS_H

#include <stddef.h>
#include <sys/types.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_ns;

struct cfs_access_user {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t n_groups;
};

/*
 * Directories above @path may be searched and @path (or, where it is not
 * there, the last directory that is) may be used as @want says: R_OK, W_OK,
 * X_OK.  Root may all.  0, -EACCES with the directory named, -ENOTDIR,
 * -ELOOP (a symbolic link on the way, or at the end of what is written to), ….
 */
CFS_MUST_CHECK int cfs_access_check(struct cfs_ns *ns, const char *path,
				    const struct cfs_access_user *user,
				    int want, struct cfs_error *err);

#endif
