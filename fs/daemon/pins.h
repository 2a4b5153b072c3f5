/* Paths that prune leaves alone: settings of the namespace, "pin/PATH". */
#ifndef CFS_DAEMON_PINS_H
#define CFS_DAEMON_PINS_H

#include <stdbool.h>

#include "store/util/base.h"

struct cfs_store;

/* Durable by the next commit.  0, also where it is so already. */
CFS_MUST_CHECK int cfs_pins_set(struct cfs_store *store, const char *path,
				bool pinned);
/* 1, 0 or an error. */
CFS_MUST_CHECK int cfs_pins_has(struct cfs_store *store, const char *path);
/* Every pinned path, ascending; non-zero from @fn stops and is returned. */
CFS_MUST_CHECK int cfs_pins_each(struct cfs_store *store,
				 int (*fn)(void *arg, const char *path),
				 void *arg);

#endif
