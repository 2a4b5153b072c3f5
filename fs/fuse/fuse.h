/* The mount: serves a tree of vnodes to the kernel until it is unmounted. */
#ifndef CFS_FUSE_FUSE_H
#define CFS_FUSE_FUSE_H

#include <stdbool.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_views;

struct cfs_fuse_options {
	const char *source; /* shown in the table of mounts */
	const char *dir;    /* absolute; an existing directory */
	bool allow_other;   /* other users, too (permissions are checked) */
	bool noexec;
	bool direct_io; /* no page cache: faster streams, no shared mmap */
	/* Called once from another thread when the mount answers. */
	void (*ready)(void *arg);
	void *ready_arg;
};

/**
 * cfs_fuse_run - mount, serve, and return when unmounted
 * @views: opened with forget_trees
 *
 * Catches SIGINT, SIGTERM and SIGHUP, which unmount.  Call it with one thread
 * running.  Returns 0, or the reason why it could not mount.
 */
CFS_MUST_CHECK int cfs_fuse_run(struct cfs_views *views,
				const struct cfs_fuse_options *options,
				struct cfs_error *err);

/* Attribute of the mount's root: the daemon's process id, for umount. */
#define CFS_FUSE_PID_XATTR "user.ckptfs.pid"

#endif
