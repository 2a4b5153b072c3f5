/* Says which step a run's view shows in place of the one `latest` names. */
#ifndef CFS_CLI_LATEST_H
#define CFS_CLI_LATEST_H

#include "store/util/base.h"

struct cfs_buf;
struct cfs_error;
struct cfs_target;
struct cfs_verb;

/* 1 where the view @target shows another step: what the run's own pointer
 * names in @own_out, what is shown, and why; else 0.  Never plans. */
CFS_MUST_CHECK int cfs_latest_replaced(const struct cfs_target *target,
				       struct cfs_buf *own_out,
				       struct cfs_buf *shown_out,
				       struct cfs_error *why);

/* One line on stderr about that, or none. */
void cfs_latest_warn(const struct cfs_verb *verb,
		     const struct cfs_target *target);

#endif
