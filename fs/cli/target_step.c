/* A target that is read as a step: saved, or a view read back. */
#include "fs/cli/target.h"

#include <errno.h>
#include <string.h>

#include "fs/cli/vsource.h"
#include "fs/format/format.h"
#include "fs/view/view.h"
#include "store/map/eval.h"
#include "store/map/source.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/path.h"

/* From a run to the step its pointer names. */
static int descend(struct cfs_target_step *ts, struct cfs_vnode **node,
		   struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf name = CFS_BUF_INIT;
	struct cfs_vnode *child = NULL;
	char *rel = NULL;
	int r;

	r = cfs_target_latest(*node, &name, err);
	if (r == -ENOENT)
		return cfs_fail(err, r,
				"a run without a pointer `latest`; name the "
				"step");
	if (r < 0)
		return r;
	r = cfs_vnode_lookup(*node, cfs_buf_str(&name), &child, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "latest names %s",
				       cfs_buf_str(&name));
	cfs_vnode_unref(*node);
	*node = child;
	rel = cfs_path_join(ts->rel, cfs_buf_str(&name));
	if (!rel)
		return -ENOMEM;
	free(ts->rel);
	ts->rel = rel;
	return 0;
}

/* A view is read back from its own bytes, as any reader would see it. */
static int read_view(struct cfs_target_step *ts, struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *root = NULL;
	const struct cfs_format *format = NULL;
	int r;

	root = cfs_views_root(ts->target.views);
	ts->vsource = cfs_vsource_new(root, ts->target.source);
	if (!ts->vsource)
		return -ENOMEM;
	ts->pool = cfs_filepool_new(ts->vsource);
	if (!ts->pool)
		return -ENOMEM;
	r = cfs_format_probe(ts->vsource, ts->rel, &format);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", ts->rel);
	return format->read(ts->vsource, ts->pool, ts->rel, &ts->step, err);
}

static int step_open(const char *path, struct cfs_target_step *ts,
		     struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	int r;

	r = cfs_target_open(path, &ts->target, err);
	if (r < 0)
		return r;
	ts->rel = strdup(ts->target.rel ? ts->target.rel : "");
	if (!ts->rel)
		return -ENOMEM;
	node = cfs_vnode_ref(ts->target.node);
	r = cfs_target_is_run(node);
	if (r > 0)
		r = descend(ts, &node, err);
	if (r < 0)
		return r;
	if (cfs_vnode_kind(node) == CFS_VNODE_STEP_VIEW)
		return read_view(ts, err);
	if (cfs_vnode_kind(node) == CFS_VNODE_SOURCE)
		r = cfs_vnode_is_step(node);
	if (r < 0)
		return r;
	if (r == 0)
		return cfs_fail(err, -EINVAL,
				"not a step of a known format, nor a view");
	return cfs_vnode_step(node, &ts->step, err);
}

int cfs_target_step_open(const char *path, struct cfs_target_step *out,
			 struct cfs_error *err)
{
	struct cfs_target_step ts = {0};
	int r;

	r = step_open(path, &ts, err);
	if (r < 0) {
		cfs_target_step_close(&ts);
		return r;
	}
	*out = ts;
	return 0;
}

void cfs_target_step_close(struct cfs_target_step *ts)
{
	cfs_step_unrefp(&ts->step);
	cfs_filepool_freep(&ts->pool);
	cfs_source_freep(&ts->vsource);
	free(ts->rel);
	cfs_target_close(&ts->target);
	*ts = (struct cfs_target_step){0};
}
