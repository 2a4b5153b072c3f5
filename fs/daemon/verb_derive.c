/* derive: keeps weights that are their master rounded as just that. */
#include "fs/daemon/derive.h"
#include "fs/daemon/verb.h"

static int derive(struct cfs_verb_context *context, const cJSON *arguments,
		  const struct cfs_verb_reply *reply, cJSON *result,
		  struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = NULL;
	struct cfs_derive_result d;
	int r = cfs_verb_path(arguments, "path", &path, err);

	if (!r)
		r = cfs_derive_tree(context, path, NULL, NULL, reply, &d, err);
	if (r < 0)
		return r;
	cfs_verb_put_u64(result, "steps", d.steps);
	cfs_verb_put_u64(result, "unreadable_steps", d.unreadable);
	cfs_verb_put_u64(result, "chunks", d.chunks);
	cfs_verb_put_u64(result, "already", d.already);
	cfs_verb_put_u64(result, "derived", d.derived);
	cfs_verb_put_u64(result, "unequal", d.unequal);
	cfs_verb_put_u64(result, "unfit", d.unfit);
	cfs_verb_put_u64(result, "bytes_weights", d.bytes_weights);
	cfs_verb_put_u64(result, "bytes_saved", d.bytes_saved);
	return 0;
}

const struct cfs_daemon_verb cfs_daemon_verb_derive = {"derive", derive, false};
