/*
 * .ckptfs-export.json in the directory of an export: which view, which state
 * of the source.  What makes --resume safe.
 */
#ifndef CFS_CLI_EXPORT_MARKER_H
#define CFS_CLI_EXPORT_MARKER_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_export_plan;

#define CFS_EXPORT_MARKER ".ckptfs-export.json"

/* Reads it: -ENOENT, or -EBADMSG when it is none of ours. */
CFS_MUST_CHECK int cfs_export_marker_read(int dir, cJSON **out,
					  struct cfs_error *err);
/* May @plan go on where @marker left off?  -EEXIST says why not: another
 * view, or a step whose source is another one now. */
CFS_MUST_CHECK int cfs_export_marker_check(const cJSON *marker,
					   const struct cfs_export_plan *plan,
					   struct cfs_error *err);
/* Was this step begun there? */
bool cfs_export_marker_has(const cJSON *marker, const char *step);
/* Writes it, with what @old (or NULL) had; replaced by rename, synced. */
CFS_MUST_CHECK int cfs_export_marker_write(int dir, const cJSON *old,
					   const struct cfs_export_plan *plan,
					   bool complete,
					   struct cfs_error *err);

#endif
