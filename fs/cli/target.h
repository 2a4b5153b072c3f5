/*
 * What a path on the command line means: RUN, RUN/@dp3/global_step4, a file in
 * either, without any mount.  The part that exists is opened as a source, the
 * rest is walked through the view layer.  In a store that is not mounted the
 * source is all of the store.
 */
#ifndef CFS_CLI_TARGET_H
#define CFS_CLI_TARGET_H

#include <stdbool.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_error;
struct cfs_filepool;
struct cfs_source;
struct cfs_step;
struct cfs_store_share;
struct cfs_views;
struct cfs_vnode;

struct cfs_target {
	char *root; /* real path of the directory that is the source */
	char *rel;  /* path in it that was walked; "" is the root */
	struct cfs_source *source;
	struct cfs_views *views;
	struct cfs_vnode *node;
	struct cfs_store_share *share; /* of a store: owns source and views */
};

/*
 * The source is the run where the path leads into a step, so that the run's
 * pointer and its named views are known.  -ENOENT, -EINVAL, -ENOTSUP with the
 * reason in @err.
 */
CFS_MUST_CHECK int cfs_target_open(const char *path, struct cfs_target *out,
				   struct cfs_error *err);
void cfs_target_close(struct cfs_target *target); /* for _cleanup_ too */

/* Its whole path, view and all; NULL when out of memory. */
char *cfs_target_path(const struct cfs_target *target);

/* Is it a run, or a view of one? */
CFS_MUST_CHECK int cfs_target_is_run(struct cfs_vnode *node);

/*
 * The step that @dir's `latest` names: its name in @name_out.  -ENOENT when
 * there is no pointer; "." (a step's own) is returned as it is.
 */
CFS_MUST_CHECK int cfs_target_latest(struct cfs_vnode *dir,
				     struct cfs_buf *name_out,
				     struct cfs_error *err);

/*
 * Is the source's step behind @name in @run (or in a view of it) whole?  1; 0
 * with what is missing in @err; -ENOENT: no step at all.  Never plans.
 */
CFS_MUST_CHECK int cfs_target_is_whole(const struct cfs_target *target,
				       const struct cfs_vnode *run,
				       const char *name, struct cfs_error *err);

/* The step of the source that @node shows or is (caller unrefs). */
CFS_MUST_CHECK int cfs_target_saved_step(const struct cfs_target *target,
					 const struct cfs_vnode *node,
					 struct cfs_step **step_out,
					 struct cfs_error *err);

/* A target that was read as a step; of a run, the one `latest` names. */
struct cfs_target_step {
	struct cfs_target target;
	struct cfs_source *vsource; /* views are read back as directories */
	struct cfs_filepool *pool;  /* NULL: the views' own */
	struct cfs_step *step;
	char *rel; /* the step's path in the source's root */
};

CFS_MUST_CHECK int cfs_target_step_open(const char *path,
					struct cfs_target_step *out,
					struct cfs_error *err);
void cfs_target_step_close(struct cfs_target_step *ts);

#endif
