/* Writes one item of an export, so that its name means it is whole. */
#ifndef CFS_CLI_EXPORT_COPY_H
#define CFS_CLI_EXPORT_COPY_H

#include <stdbool.h>
#include <stddef.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_export_item;
struct cfs_progress;

/*
 * Below the directory @dir: makes parents, writes under another name, syncs,
 * renames.  Long runs of zeros become holes.  -ESTALE when the source changes
 * meanwhile, -EEXIST when the name is taken and not to be replaced; what was
 * begun is removed on failure.
 */
CFS_MUST_CHECK int cfs_export_copy(int dir, const struct cfs_export_item *item,
				   bool replace, struct cfs_progress *progress,
				   struct cfs_error *err);
/* Is it there already with the right type and size?  1, 0, or -EEXIST when
 * something else has its name. */
CFS_MUST_CHECK int cfs_export_copy_done(int dir,
					const struct cfs_export_item *item);
/* Syncs the directories that hold the first @n items. */
CFS_MUST_CHECK int
cfs_export_copy_sync_dirs(int dir, const struct cfs_export_item *items,
			  size_t n);

#endif
