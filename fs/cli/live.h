/* Paths inside a live mount, translated to the source it shows. */
#ifndef CFS_CLI_LIVE_H
#define CFS_CLI_LIVE_H

#include "store/util/base.h"

struct cfs_error;

/*
 * @path in terms of the source: /mnt/ckpt/@dp3/latest becomes
 * /lustre/run1/@dp3/latest; a path outside any mount is copied.  The caller
 * frees *out.  Only what exists of @path need exist.
 */
CFS_MUST_CHECK int cfs_live_translate(const char *path, char **out,
				      struct cfs_error *err);
/* The same, but a path in the mount of a store is copied, too: the store is the
 * daemon's, and a view in there a directory like any other. */
CFS_MUST_CHECK int cfs_live_translate_plain(const char *path, char **out,
					    struct cfs_error *err);

/* Where the store at @store (a real path) is mounted as it is: 1 and the mount
 * point, which the caller frees; 0: nowhere that we see. */
CFS_MUST_CHECK int cfs_live_mount_of(const char *store, char **mount_out);

#endif
