/* A store opened in this process: all that a verb works on. */
#ifndef CFS_DAEMON_OPEN_H
#define CFS_DAEMON_OPEN_H

#include "fs/daemon/control.h"

struct cfs_source;
struct cfs_store;

struct cfs_opened {
	struct cfs_store *store;
	struct cfs_ns *ns;
	struct cfs_source *source;
	struct cfs_views *views;
};

/* Recovers what a crash left, pointers included.  -EBUSY: another process has
 * it (@err names it, and where it is mounted).  @reply: progress of a long
 * replay; or NULL. */
CFS_MUST_CHECK int cfs_opened_open(const char *store_path,
				   const struct cfs_verb_reply *reply,
				   struct cfs_opened *out,
				   struct cfs_error *err);
/* Commits; its error. */
int cfs_opened_close(struct cfs_opened *opened);
void cfs_opened_closep(struct cfs_opened *opened);
/* Borrows all of it; no mount, no caller yet. */
void cfs_opened_context(const struct cfs_opened *opened,
			struct cfs_verb_context *out);

/* Makes the index of a store that nobody has open anew from the packs; where
 * that fails, the one that was there stays.  -EBUSY. */
CFS_MUST_CHECK int cfs_opened_rebuild_index(const char *store_path,
					    struct cfs_error *err);

#endif
