/* view add: what no item of a view's name can say, as options of the registry
 * (fs/format/options.h). */
#ifndef CFS_CLI_VIEW_OPTIONS_H
#define CFS_CLI_VIEW_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_error;

/* As they were given; NULL: not. */
struct cfs_view_options {
	const char *rules; /* a file */
	const char *boundaries, *method, *generation;
	const char *like; /* a template, and what tells it from others */
	uint64_t like_id;
	bool partial;
};

/* The text, which the caller frees; NULL where none was given.  -EINVAL and
 * what open(2) says: @err names the option. */
CFS_MUST_CHECK int cfs_view_options_text(const struct cfs_view_options *given,
					 char **text_out,
					 struct cfs_error *err);

#endif
