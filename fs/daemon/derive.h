/*
 * The pass that keeps 16-bit weights as what they are: their fp32 master
 * rounded.  A chunk of weights that is that bit for bit is replaced by a note
 * of which bytes to round; the room comes back with gc.
 */
#ifndef CFS_DAEMON_DERIVE_H
#define CFS_DAEMON_DERIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_ns;
struct cfs_verb_context;
struct cfs_verb_reply;
struct cfs_vnode;

struct cfs_derive_result {
	uint64_t steps, unreadable; /* read; left out, with a line */
	uint64_t chunks;	    /* of weights that have a master */
	uint64_t already, derived;  /* of them: before, now */
	uint64_t unequal;	    /* not the master rounded */
	uint64_t unfit;		    /* too small, or cut across other bytes */
	uint64_t bytes_weights, bytes_saved;
};

/*
 * The steps at and below @path ("": all).  @skip: true leaves one out; may be
 * NULL.  May be stopped (-ECANCELED) and run again at any time, beside
 * everything else; what is saved while it runs is not lost.
 */
CFS_MUST_CHECK int cfs_derive_tree(
	struct cfs_verb_context *context, const char *path,
	bool (*skip)(void *arg, const char *path, const struct stat *st),
	void *skip_arg, const struct cfs_verb_reply *reply,
	struct cfs_derive_result *result, struct cfs_error *err);

/* ---- in the background ---- */

/*
 * A thread of low priority that derives what was saved once the store has been
 * quiet for @idle_seconds.  Borrows what @context points to.
 */
struct cfs_derive_job;
CFS_MUST_CHECK int cfs_derive_job_start(const struct cfs_verb_context *context,
					unsigned idle_seconds,
					struct cfs_derive_job **job_out);
/* Ends it, in the middle if need be; NULL is fine. */
void cfs_derive_job_stop(struct cfs_derive_job *job);

/* ---- between derive.c and derive_links.c ---- */

/* @count weights from @off of a file are so many masters from @master_off. */
struct cfs_derive_link {
	uint64_t ino, off, count;
	uint64_t master_ino, master_off;
	int from, to; /* enum cfs_dtype */
};
struct cfs_derive_links { /* by inode and offset, no overlap */
	struct cfs_derive_link *v;
	size_t n, cap;
};
void cfs_derive_links_free(struct cfs_derive_links *links); /* _cleanup_ */
CFS_MUST_CHECK int cfs_derive_links_read(struct cfs_ns *ns,
					 struct cfs_vnode *step,
					 struct cfs_derive_links *out,
					 struct cfs_error *err);

#endif
