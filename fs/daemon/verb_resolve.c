/* resolve: the step of a run that a load should get. */
#include <errno.h>

#include "fs/daemon/steps.h"
#include "fs/daemon/verb.h"
#include "fs/view/view.h"

/* step: its name, or null when no step is whole; a run that is not there has
 * none either. */
static int resolve(struct cfs_verb_context *context, const cJSON *arguments,
		   const struct cfs_verb_reply *reply, cJSON *result,
		   struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = NULL;
	char name[256];
	int r;

	(void)reply;
	r = cfs_verb_path(arguments, "path", &path, err);
	if (!r)
		r = cfs_steps_resolve(cfs_views_source(context->views), path,
				      name);
	if (r < 0 && r != -ENOENT)
		return cfs_fail_prefix(err, r, "%s", path ? path : "");
	cfs_verb_put_str(result, "step", r > 0 ? name : NULL);
	cfs_verb_put_str(result, "mount", context->mount);
	return 0;
}

const struct cfs_daemon_verb cfs_daemon_verb_resolve = {"resolve", resolve,
							false, false};
