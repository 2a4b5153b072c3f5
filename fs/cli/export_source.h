/* Keeps an export out of what it exports. */
#ifndef CFS_CLI_EXPORT_SOURCE_H
#define CFS_CLI_EXPORT_SOURCE_H

#include "store/util/base.h"

struct cfs_error;
struct cfs_target;

/* -EINVAL when @dir, which need not be there yet, lies in the source. */
CFS_MUST_CHECK int cfs_export_source_refuse(const struct cfs_target *target,
					    const char *dir,
					    struct cfs_error *err);

#endif
