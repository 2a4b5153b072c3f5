/* One opening of a store for all that a verb looks at in it. */
#ifndef CFS_CLI_STORE_SHARE_H
#define CFS_CLI_STORE_SHARE_H

#include "store/util/base.h"

struct cfs_error;
struct cfs_opened;
struct cfs_store_share;

/* Opens it, or counts one more user; main thread only.  -EBUSY: another process
 * has it (@err names the mount). */
CFS_MUST_CHECK int cfs_store_share_get(const char *store_path,
				       struct cfs_store_share **share_out,
				       struct cfs_error *err);
/* The last one closes it. */
void cfs_store_share_put(struct cfs_store_share *share);
const struct cfs_opened *
cfs_store_share_opened(const struct cfs_store_share *share);

#endif
