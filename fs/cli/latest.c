/* A view falls back to an older step silently; the verbs do not. */
#include "fs/cli/latest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/say.h"
#include "fs/cli/target.h"
#include "fs/view/view.h"
#include "store/util/buf.h"
#include "store/util/error.h"

int cfs_latest_replaced(const struct cfs_target *target,
			struct cfs_buf *own_out, struct cfs_buf *shown_out,
			struct cfs_error *why)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *root = NULL;
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *run = NULL;
	const char *path = cfs_vnode_source_path(target->node);
	int r;

	if (cfs_vnode_kind(target->node) != CFS_VNODE_RUN_VIEW)
		return 0;
	root = cfs_views_root(target->views);
	if (!path[0])
		run = cfs_vnode_ref(root);
	else if (cfs_vnode_walk(root, path, &run, NULL) < 0)
		return 0;
	if (cfs_target_latest(run, own_out, NULL) < 0 ||
	    cfs_target_latest(target->node, shown_out, NULL) < 0 ||
	    strcmp(cfs_buf_str(own_out), cfs_buf_str(shown_out)) == 0)
		return 0;
	r = cfs_target_is_whole(target, run, cfs_buf_str(own_out), why);
	if (r == -ENOENT)
		(void)cfs_fail(why, r, "it is not there");
	else if (!why->text[0])
		(void)cfs_fail(why, -EINVAL, "%s",
			       r < 0 ? strerror(-r) : "it is not whole");
	return 1;
}

void cfs_latest_warn(const struct cfs_verb *verb,
		     const struct cfs_target *target)
{
	_cleanup_(cfs_buf_free) struct cfs_buf own = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf shown = CFS_BUF_INIT;
	_cleanup_(cfs_freep) char *path = NULL;
	struct cfs_error why = {""};

	if (cfs_latest_replaced(target, &own, &shown, &why) <= 0)
		return;
	path = cfs_target_path(target);
	cfs_say_warn(verb,
		     "%s: latest names %s, which is not whole (%s); %s is "
		     "shown instead",
		     path ? path : "", cfs_buf_str(&own), why.text,
		     cfs_buf_str(&shown));
}
