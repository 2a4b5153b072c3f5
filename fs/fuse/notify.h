/*
 * Telling the kernel what to forget.  It may answer only when other requests
 * are done, so threads of their own do it, which hold no lock meanwhile.
 */
#ifndef CFS_FUSE_NOTIFY_H
#define CFS_FUSE_NOTIFY_H

#include <stdint.h>

#include "store/util/base.h"

struct cfs_notify;
struct fuse_session;

CFS_MUST_CHECK int cfs_notify_start(struct fuse_session *session,
				    struct cfs_notify **notify_out);
/* The loop has ended: what is queued is dropped. */
void cfs_notify_stop(struct cfs_notify *notify);

/* @name in directory @dir is another one now, or none.  Any thread. */
void cfs_notify_entry(struct cfs_notify *notify, uint64_t dir,
		      const char *name);
/* Likewise, where the kernel holds the directory until the request that is
 * being answered is done: nobody waits for it, and it holds up no other. */
void cfs_notify_entry_later(struct cfs_notify *notify, uint64_t dir,
			    const char *name);
/* Attributes of @node changed. */
void cfs_notify_attr(struct cfs_notify *notify, uint64_t node);
/* Attributes and bytes of @node changed. */
void cfs_notify_inode(struct cfs_notify *notify, uint64_t node);
/* Bytes of @node changed. */
void cfs_notify_pages(struct cfs_notify *notify, uint64_t node, uint64_t off,
		      uint64_t len);
/* Until the kernel has heard all of that, but not for long: it may be waiting
 * for the very request that is being answered. */
void cfs_notify_wait(struct cfs_notify *notify);

#endif
