/* Trees of the namespace: listing, walking, making, removing. */
#ifndef CFS_DAEMON_NSTREE_H
#define CFS_DAEMON_NSTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_ns;
struct cfs_ns_cred;

/* A directory of the root that holds what is on its way out or in: a tree
 * that prune removes is renamed into it first, one that receive makes is
 * renamed out of it last.  What a crash leaves there is removed later. */
#define CFS_NSTREE_TRASH ".ckptfs-removed"

struct cfs_nstree_name {
	char *name;
	uint64_t ino;
	mode_t type;
};
struct cfs_nstree_names { /* by name */
	size_t n, cap;
	struct cfs_nstree_name *list;
};
/* "." and ".." left out, and of the root CFS_NSTREE_TRASH. */
CFS_MUST_CHECK int cfs_nstree_list(struct cfs_ns *ns, uint64_t dir,
				   struct cfs_nstree_names *out);
void cfs_nstree_names_free(struct cfs_nstree_names *names); /* _cleanup_ */

/*
 * @fn for the object and all below it, directories before what is in them,
 * siblings by name; @path: @top, or what lies below it.  What vanishes
 * meanwhile is left out.  Non-zero from @fn stops and is returned, but
 * CFS_NSTREE_SKIP: what is in this directory is left out.
 */
#define CFS_NSTREE_SKIP 0x534b
typedef int cfs_nstree_fn(void *arg, const char *path, const struct stat *st);
CFS_MUST_CHECK int cfs_nstree_walk(struct cfs_ns *ns, uint64_t ino,
				   const char *top, cfs_nstree_fn *fn,
				   void *arg);

/* The directory at @path, made with its parents (0755) where it is not. */
CFS_MUST_CHECK int cfs_nstree_mkdirs(struct cfs_ns *ns,
				     const struct cfs_ns_cred *cred,
				     const char *path, uint64_t *ino_out);
/* A name and all below it. */
CFS_MUST_CHECK int cfs_nstree_remove(struct cfs_ns *ns, uint64_t dir,
				     const char *name);

/* The trash directory, made where it is not, and a new name for it.  -EPERM:
 * another user than the daemon's or root may change it. */
CFS_MUST_CHECK int cfs_nstree_trash(struct cfs_ns *ns, uint64_t *dir_out,
				    char name_out[64]);
/* Removes what processes that are gone left there, and, when it is empty then,
 * the directory. */
CFS_MUST_CHECK int cfs_nstree_sweep(struct cfs_ns *ns);

#endif
