/* Files of the store that are open through the mount: the kernel does not
 * release them all when a mount is forced to end. */
#ifndef CFS_FUSE_HANDLES_H
#define CFS_FUSE_HANDLES_H

#include <stdbool.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_handles;
struct cfs_ns_file;

struct cfs_handle {
	struct cfs_handle *prev, *next;
	struct cfs_ns_file *file;
	bool foreign; /* opened through a view's pointer: the kernel has pages
			 of the same file under another number */
	bool append;  /* and then does not know where its end is */
};

struct cfs_handles *cfs_handles_new(void);
/* Closes what is open.  No callback runs any more. */
void cfs_handles_free(struct cfs_handles *handles);

/* Takes over @file, also on failure: NULL. */
struct cfs_handle *cfs_handles_add(struct cfs_handles *handles,
				   struct cfs_ns_file *file);
void cfs_handles_close(struct cfs_handles *handles, struct cfs_handle *handle);

#endif
