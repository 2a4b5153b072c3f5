/* The files that a format makes of what was put. */
#include <errno.h>
#include <string.h>

#include "fs/rank/stage_internal.h"
#include "store/util/error.h"

int cfs_stage_format(struct cfs_stage *stage, struct cfs_error *err)
{
	if (!strcmp(stage->options.format, "files"))
		return 0;
	return cfs_fail(err, -ENOTSUP, "format %s: not yet",
			stage->options.format);
}
