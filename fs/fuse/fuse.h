/*
 * The mount: serves a tree of vnodes to the kernel until it is unmounted, or a
 * store with its views, writable.
 */
#ifndef CFS_FUSE_FUSE_H
#define CFS_FUSE_FUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_ns;
struct cfs_views;

typedef void cfs_fuse_invalidate_fn(void *handle, uint64_t ino,
				    const char *name);

struct cfs_fuse_options {
	const char *source; /* shown in the table of mounts */
	const char *dir;    /* absolute; an existing directory */
	bool allow_other;   /* other users, too (permissions are checked) */
	bool noexec;
	bool direct_io;	   /* no page cache: faster streams, no shared mmap */
	struct cfs_ns *ns; /* a store's; the views were opened over its source,
			      writable; NULL: a plain directory, read-only */
	bool view_root;	   /* the views' root is a view */
	bool read_only;	   /* a store's mount that takes no writes */
	/* A store's: called once before the mount answers, and after the last
	 * request.  @invalidate(@handle, …): the kernel is to forget the name
	 * @name of directory @ino (NULL: all it knows of inode @ino). */
	int (*start)(void *arg, cfs_fuse_invalidate_fn *invalidate,
		     void *handle, struct cfs_error *err);
	void (*stop)(void *arg);
	void *service_arg;
	/* Called once from another thread when the mount answers. */
	void (*ready)(void *arg);
	void *ready_arg;
};

/**
 * cfs_fuse_run - mount, serve, and return when unmounted
 * @views: opened with forget_trees
 *
 * Takes SIGINT, SIGTERM and SIGHUP, which unmount: block them
 * (cfs_fuse_block_signals()) before other threads start.  Returns 0, or the
 * reason why it could not mount.  No file of the store is open then.
 */
CFS_MUST_CHECK int cfs_fuse_run(struct cfs_views *views,
				const struct cfs_fuse_options *options,
				struct cfs_error *err);

void cfs_fuse_block_signals(void);

/* Attribute of the mount's root: the daemon's process id, for umount. */
#define CFS_FUSE_PID_XATTR "user.ckptfs.pid"

#endif
