/* A store opened in this process: all that a verb works on. */
#ifndef CFS_DAEMON_OPEN_H
#define CFS_DAEMON_OPEN_H

#include <cjson/cJSON.h>

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
/* The same as @how says, but for what is told of progress. */
struct cfs_store_options;
CFS_MUST_CHECK int cfs_opened_open_as(const char *store_path,
				      const struct cfs_store_options *how,
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

/*
 * A store that refuses to open because its log is damaged, at the newest state
 * that can be had: told (@reply, @result: as fsck's, and "salvage"), with
 * @write made so (salvage.c).  1: it opens as it is.
 */
CFS_MUST_CHECK int cfs_opened_salvage(const char *store_path, bool write,
				      const struct cfs_verb_reply *reply,
				      cJSON *result, struct cfs_error *err);

#endif
