/* The files that maps of one file table refer to. */
#ifndef CFS_RANK_ASSEMBLE_CONTENTS_H
#define CFS_RANK_ASSEMBLE_CONTENTS_H

#include <stdint.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_filetab;
struct cfs_ns;
struct cfs_ns_content;

struct cfs_assemble_contents {
	struct cfs_ns *ns;
	struct cfs_filetab *tab;   /* a reference; NULL: none yet */
	struct cfs_ns_content **v; /* by row; NULL: not opened */
	uint32_t n;
};
void cfs_assemble_contents_fini(struct cfs_assemble_contents *c);

/* What is kept is of @tab from now on, which may have grown.  -ENOMEM. */
CFS_MUST_CHECK int cfs_assemble_contents_use(struct cfs_assemble_contents *c,
					     struct cfs_filetab *tab);
/* Row @row, borrowed; -ESTALE where it is not the version planned with, in
 * words that name the file @name that is being made. */
CFS_MUST_CHECK int cfs_assemble_contents_open(struct cfs_assemble_contents *c,
					      uint32_t row, const char *name,
					      const struct cfs_ns_content **out,
					      struct cfs_error *err);

#endif
