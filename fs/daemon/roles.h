/* Which bytes of which files hold weights, master copies, moments. */
#ifndef CFS_DAEMON_ROLES_H
#define CFS_DAEMON_ROLES_H

#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_verb_context;
struct cfs_verb_reply;

enum cfs_roles_kind {
	CFS_ROLES_OTHER, /* all else, and files of unknown formats */
	CFS_ROLES_WEIGHTS,
	CFS_ROLES_MASTER,
	CFS_ROLES_MOMENTS, /* any state of the optimizer */
	CFS_ROLES_N,
};
extern const char *const cfs_roles_names[CFS_ROLES_N];

struct cfs_roles_span {
	uint64_t ino, off, len;
	enum cfs_roles_kind kind;
};
struct cfs_roles { /* by inode, then offset; do not overlap */
	size_t n, cap;
	struct cfs_roles_span *spans;
	uint64_t steps, unreadable; /* steps that were found, and the ones whose
				       tensors stay "other" */
};

/* From the catalogue of every step in the store. */
CFS_MUST_CHECK int cfs_roles_collect(struct cfs_verb_context *context,
				     const struct cfs_verb_reply *reply,
				     struct cfs_roles *out);
void cfs_roles_free(struct cfs_roles *roles); /* for _cleanup_ too */

/* Adds the bytes of [off, off + len) of @ino by kind to @bytes. */
void cfs_roles_count(const struct cfs_roles *roles, uint64_t ino, uint64_t off,
		     uint64_t len, uint64_t bytes[CFS_ROLES_N]);

#endif
