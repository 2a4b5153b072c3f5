/* Opening a source for looking at: what all vnodes of a mount share. */
#include "fs/view/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/format.h"
#include "store/map/eval.h"
#include "store/util/error.h"
#include "store/util/path.h"

#define BLOCK_CACHE_BYTES ((size_t)256 << 20)

static int stop(void *arg, const char *name, const struct stat *st)
{
	(void)arg;
	(void)name;
	(void)st;
	return 1;
}

/* An empty directory passes: it becomes a run when its first step appears. */
static int check_run(struct cfs_views *views, struct cfs_error *err)
{
	int r = cfs_view_is_run(views, "");

	if (r)
		return r < 0 ? r : 0;
	r = views->source->ops->readdir(views->source, "", stop, NULL);
	if (r <= 0)
		return r;
	return cfs_fail(err, -EINVAL,
			"not a run: no step of a known format in it, so it "
			"has no views");
}

/* A view that the newest step refuses is refused while somebody is there to
 * read why; what another day may mend does not keep a mount from coming up. */
static int try_newest(struct cfs_views *views, struct cfs_vnode *run,
		      struct cfs_error *err)
{
	struct cfs_plan plan = CFS_PLAN_INIT;
	struct cfs_error why = {.text = ""};
	struct stat st;
	char name[256];
	int r;

	if (cfs_pointer_step(run, name, NULL) <= 0 ||
	    views->source->ops->stat(views->source, name, &st) < 0)
		return 0;
	r = cfs_plans_get(views->plans, name, &st, &run->request, &plan, &why);
	cfs_plan_fini(&plan);
	if (r != -EINVAL && r != -ENOTSUP && r != -EACCES)
		return 0;
	return cfs_fail(err, r, "no @%s of %s: %s", run->view, name,
			why.text[0] ? why.text : strerror(-r));
}

static int make_run_root(struct cfs_views *views, const struct stat *st,
			 const struct cfs_request *request, const char *view,
			 struct cfs_error *err)
{
	int r = check_run(views, err);

	if (!r)
		r = cfs_view_new_run(views, "", st, request, view,
				     &views->root);
	if (!r)
		r = try_newest(views, views->root, err);
	return r;
}

/* The source itself, or the one view that the mount shows. */
static int make_root(struct cfs_views *views, const char *view,
		     struct cfs_error *err)
{
	struct cfs_request request = CFS_REQUEST_INIT;
	struct cfs_plan plan = CFS_PLAN_INIT;
	struct stat st;
	int is_step, r;

	r = views->source->ops->stat(views->source, "", &st);
	if (r < 0)
		return cfs_fail_prefix(err, r, "the source");
	if (!view)
		return cfs_vnode_new_source(views, "", &st, 0, &views->root);
	is_step = cfs_view_is_step(views, "");
	if (is_step < 0)
		return cfs_fail_prefix(err, is_step, "the source");
	r = cfs_view_request(views, "", is_step, view, &request, err);
	if (r < 0)
		return r;
	if (!is_step)
		return make_run_root(views, &st, &request, view, err);
	r = cfs_plans_get(views->plans, "", &st, &request, &plan, err);
	if (r)
		return r < 0 ? r : -ENOENT;
	r = cfs_view_new_step(views, "", &st, &request, &plan, 0, view,
			      &views->root);
	if (!r)
		views->root->has_pointer = true;
	cfs_plan_fini(&plan);
	return r;
}

int cfs_views_open(struct cfs_source *source,
		   const struct cfs_views_options *options,
		   struct cfs_views **out, struct cfs_error *err)
{
	_cleanup_(cfs_views_closep) struct cfs_views *views =
		calloc(1, sizeof(*views));
	const char *view = options->view;
	int r;

	if (!views)
		return -ENOMEM;
	views->source = source;
	views->crc_full = options->crc_full;
	views->forget_trees = options->forget_trees;
	views->writable = options->writable;
	views->outside = cfs_outside_new(source);
	views->pool = views->outside ? cfs_filepool_new(views->outside) : NULL;
	views->cache = cfs_blockcache_new(options->block_cache_bytes
						  ? options->block_cache_bytes
						  : BLOCK_CACHE_BYTES);
	views->notes = cfs_notes_new();
	views->written = cfs_written_new();
	if (!views->pool || !views->cache || !views->notes || !views->written)
		return -ENOMEM;
	if (options->source_path) {
		views->source_path = realpath(options->source_path, NULL);
		if (!views->source_path && errno == ENOENT)
			views->source_path = strdup(options->source_path);
		if (!views->source_path)
			return cfs_fail(err, -errno, "%s: %s",
					options->source_path, strerror(errno));
	}
	if (options->real_path) {
		views->real_path = strdup(options->real_path);
		if (!views->real_path)
			return -ENOMEM;
	}
	views->plans = cfs_plans_new(views);
	if (!views->plans)
		return -ENOMEM;
	if (view && view[0] == '@')
		view++;
	r = make_root(views, view, err);
	if (r < 0)
		return r;
	assert(views->root);
	/* The root is never looked up again, so it must follow by itself. */
	views->root->floating = true;
	cfs_tree_unref(views->root->tree);
	views->root->tree = NULL;
	*out = cfs_steal(views);
	return 0;
}

void cfs_views_close(struct cfs_views *views)
{
	if (!views)
		return;
	cfs_vnode_unref(views->root);
	cfs_plans_free(views->plans);
	cfs_notes_free(views->notes);
	cfs_written_free(views->written);
	cfs_filepool_free(views->pool);
	cfs_source_free(views->outside);
	cfs_blockcache_free(views->cache);
	free(views->source_path);
	free(views->real_path);
	free(views);
}

void cfs_views_closep(struct cfs_views **views)
{
	cfs_views_close(*views);
}

struct cfs_source *cfs_views_source(const struct cfs_views *views)
{
	return views->source;
}

struct cfs_vnode *cfs_views_root(struct cfs_views *views)
{
	return cfs_vnode_ref(views->root);
}

int cfs_views_at(struct cfs_views *views, const char *path,
		 struct cfs_vnode **node_out)
{
	struct stat st;
	int r;

	r = views->source->ops->stat(views->source, path, &st);
	if (r < 0)
		return r;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	return cfs_vnode_new_source(views, path, &st, 0, node_out);
}

int cfs_vnode_try(struct cfs_vnode *node, const struct cfs_request *request,
		  char **note_out, struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *run = NULL;
	_cleanup_(cfs_freep) char *path = NULL;
	struct cfs_views *views = node->views;
	struct cfs_plan plan = CFS_PLAN_INIT;
	struct stat st;
	char name[256];
	int r;

	*note_out = NULL;
	r = cfs_vnode_check(node, &st);
	if (r < 0)
		return r;
	r = cfs_view_is_step(views, node->path);
	if (r < 0)
		return r;
	if (r) {
		path = strdup(node->path);
	} else {
		r = cfs_view_new_run(views, node->path, &st, request, "", &run);
		if (r < 0)
			return r;
		r = cfs_pointer_step(run, name, err);
		if (r <= 0)
			return r < 0 ? r : -ENOENT;
		path = cfs_path_join(node->path, name);
	}
	if (!path)
		return -ENOMEM;
	r = views->source->ops->stat(views->source, path, &st);
	if (!r)
		r = cfs_plans_get(views->plans, path, &st, request, &plan, err);
	if (r)
		return r < 0 ? r : -ENOENT;
	if (plan.tree && plan.tree->step->note) {
		*note_out = strdup(plan.tree->step->note);
		r = *note_out ? 0 : -ENOMEM;
	}
	cfs_plan_fini(&plan);
	return r;
}
