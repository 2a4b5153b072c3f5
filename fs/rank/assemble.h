/*
 * Maps as files of the namespace: what lies in other files of it is referred
 * to, what has to be computed is computed and written.
 */
#ifndef CFS_RANK_ASSEMBLE_H
#define CFS_RANK_ASSEMBLE_H

#include <stdint.h>
#include <sys/types.h>

#include "store/util/base.h"

struct cfs_assemble;
struct cfs_error;
struct cfs_map;
struct cfs_ns;
struct cfs_ns_file;

struct cfs_assemble_owner { /* of what is made */
	uid_t uid;
	gid_t gid;
	mode_t umask;
};

/*
 * Files and directories below @top (a directory's inode number).  Borrows @ns.
 * One thread.
 */
CFS_MUST_CHECK int cfs_assemble_new(struct cfs_ns *ns, uint64_t top,
				    const struct cfs_assemble_owner *owner,
				    struct cfs_assemble **out);
void cfs_assemble_free(struct cfs_assemble *a);
void cfs_assemble_freep(struct cfs_assemble **a);

/* May @name be a file below a directory: relative, no empty, "." or ".."
 * component, none too long? */
CFS_MUST_CHECK int cfs_assemble_name_check(const char *name,
					   struct cfs_error *err);

/* How many files were made. */
uint64_t cfs_assemble_files(const struct cfs_assemble *a);

/* A new file @name, directories on the way to it made where they are not.
 * -EEXIST, -ENOTDIR with @name in @err. */
CFS_MUST_CHECK int cfs_assemble_create(struct cfs_assemble *a, const char *name,
				       struct cfs_ns_file **file_out,
				       struct cfs_error *err);
/* The same with @len bytes at @data. */
CFS_MUST_CHECK int cfs_assemble_bytes(struct cfs_assemble *a, const char *name,
				      const void *data, size_t len,
				      struct cfs_error *err);
/*
 * The same with what @map (sealed) shows.  Its files are opened once for all
 * maps of one file table, and must have the versions it says (-ESTALE).
 */
CFS_MUST_CHECK int cfs_assemble_map(struct cfs_assemble *a, const char *name,
				    struct cfs_map *map, struct cfs_error *err);

#endif
