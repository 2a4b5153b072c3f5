/* Paths relative to a root, which is "". */
#ifndef CFS_UTIL_PATH_H
#define CFS_UTIL_PATH_H

#include <stddef.h>

#include "store/util/base.h"

/* DIR/NAME, or the other where one is "".  NULL: no memory; free() it. */
char *cfs_path_join(const char *dir, const char *name);
/* The same into @buf: 0 or -ENAMETOOLONG. */
CFS_MUST_CHECK int cfs_path_put(char *buf, size_t size, const char *dir,
				const char *name);

#endif
