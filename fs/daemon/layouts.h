/*
 * Steps of trainers whose files no format reads (yet), known by their names
 * alone: enough to keep, to remove and to choose one.
 */
#ifndef CFS_DAEMON_LAYOUTS_H
#define CFS_DAEMON_LAYOUTS_H

#include <stdbool.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_source;

struct cfs_layout_facts {
	bool whole;
	char why[160]; /* what is missing */
	/* Where not the number in the name tells which step is newer, but
	 * when it was finished, or (not whole) begun; else 0. */
	int64_t order_ns;
	char inner[256]; /* a step of a format in it that must be whole, too */
};

/* What the rank client puts into each step beside its format's files: a
 * directory, and in it a file. */
#define CFS_LAYOUT_RANKS      "ckptfs"
#define CFS_LAYOUT_RANKS_MARK "step.json"

/* The directory @name of @run: 1 and what it is, 0 none of these, -ENOENT… */
CFS_MUST_CHECK int cfs_layout_look(struct cfs_source *source, const char *run,
				   const char *name,
				   struct cfs_layout_facts *out);
/* Did ranks commit the step @path?  1, or 0. */
CFS_MUST_CHECK int cfs_layout_committed(struct cfs_source *source,
					const char *path);
/* The pointer that is no `latest`: Megatron's, a number. */
#define CFS_LAYOUT_POINTER "latest_checkpointed_iteration.txt"
/* What it names: 1, or 0. */
CFS_MUST_CHECK int cfs_layout_pointer(struct cfs_source *source,
				      const char *run, char name_out[256]);

/* What it must say to name @step; false: it cannot. */
bool cfs_layout_pointer_text(const char *step, char text_out[24]);

#endif
