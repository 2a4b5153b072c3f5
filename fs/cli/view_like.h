/* view add --like: which step a template is. */
#ifndef CFS_CLI_VIEW_LIKE_H
#define CFS_CLI_VIEW_LIKE_H

#include <stdint.h>

#include "store/util/base.h"

struct cfs_error;

/*
 * The step at @dir, or the latest of the run there, by the path under which
 * views of the run @run (as the registry has it) find it: absolute, perhaps in
 * a store, which must then be the run's.  The caller frees *path_out.
 */
CFS_MUST_CHECK int cfs_view_like(const char *dir, const char *run,
				 char **path_out, uint64_t *id_out,
				 struct cfs_error *err);

#endif
