/* The kernel's table of mounts: which mount of ours a path lies in. */
#ifndef CFS_UTIL_MOUNTS_H
#define CFS_UTIL_MOUNTS_H

#include <stdbool.h>

#include "store/util/base.h"

struct cfs_buf;

/* The text of /proc/self/mountinfo, behind what is in @out. */
CFS_MUST_CHECK int cfs_mounts_read(struct cfs_buf *out);
/* One line of it, up to @end: what is mounted where, of ours or not.  Mount and
 * source go into buffers of PATH_MAX bytes; false: the line is none. */
bool cfs_mounts_line(const char *line, const char *end, char *mount,
		     char *source, bool *ours);
/*
 * The mount that @path (absolute and real) lies in, by the table @text.  1 when
 * it is ours: mount point and source in the buffers of PATH_MAX bytes; else 0.
 */
CFS_MUST_CHECK int cfs_mounts_find(const char *text, const char *path,
				   char *mount_out, char *source_out);
/* What exists of @path as a real path, and the rest behind it.  Also where it
 * lies in a dead mount. */
CFS_MUST_CHECK int cfs_mounts_real_path(const char *path, struct cfs_buf *out);

#endif
