/*
 * Looking names up: what a name in a directory, a run's view or a step's view
 * stands for.
 */
#include "fs/view/internal.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/format.h"
#include "store/util/error.h"
#include "store/util/path.h"

/* ---- making views ---- */

int cfs_view_refuse_nested(const char *name, struct cfs_error *err)
{
	return cfs_fail(err, -EINVAL,
			"%s: a view of a view is not made; name all items in "
			"one view of the run",
			name);
}

/* Of the directory @st at @path, called @name there; numbered after @seed. */
static struct cfs_vnode *new_view(struct cfs_views *views,
				  enum cfs_vnode_kind kind, const char *path,
				  const struct stat *st,
				  const struct cfs_request *request,
				  uint64_t seed, const char *name)
{
	struct cfs_vnode *node = cfs_vnode_new(views, kind, path);

	if (!node)
		return NULL;
	node->request = *request;
	cfs_view_name_format(request, node->view, sizeof(node->view));
	node->dev = st->st_dev;
	node->src_ino = st->st_ino;
	node->st.st_mode = S_IFDIR;
	/* The request, too: a registered name may come to mean another. */
	node->ino =
		cfs_vnode_made_ino(cfs_vnode_made_ino(seed, name), node->view);
	node->salt = node->ino;
	return node;
}

int cfs_view_new_run(struct cfs_views *views, const char *path,
		     const struct stat *st, const struct cfs_request *request,
		     const char *name, struct cfs_vnode **out)
{
	struct cfs_vnode *node =
		new_view(views, CFS_VNODE_RUN_VIEW, path, st, request,
			 cfs_vnode_source_ino(views, st, 0), name);

	if (!node)
		return -ENOMEM;
	*out = node;
	return 0;
}

int cfs_view_new_step(struct cfs_views *views, const char *path,
		      const struct stat *st, const struct cfs_request *request,
		      const struct cfs_plan *plan, uint64_t seed,
		      const char *name, struct cfs_vnode **out)
{
	struct cfs_vnode *node =
		new_view(views, CFS_VNODE_STEP_VIEW, path, st, request,
			 plan->step->identity ^ seed, name);

	if (!node)
		return -ENOMEM;
	node->identity = plan->step->identity;
	node->as_saved = !plan->tree;
	if (plan->tree && !views->forget_trees)
		node->tree = cfs_tree_ref(plan->tree);
	*out = node;
	return 0;
}

/* `@name` after a directory of the source that is a run or a step. */
static int lookup_view(struct cfs_vnode *dir, const struct stat *dir_st,
		       const char *name, struct cfs_vnode **out,
		       struct cfs_error *err)
{
	struct cfs_views *views = dir->views;
	struct cfs_request request = CFS_REQUEST_INIT;
	struct cfs_plan plan = CFS_PLAN_INIT;
	int kind, r;

	kind = cfs_view_dir_kind(views, dir->path, dir_st);
	if (kind <= 0)
		return kind < 0 ? kind : -ENOENT;
	if (dir->salt)
		return cfs_view_refuse_nested(name, err);
	r = cfs_view_request(views, dir->path, kind == CFS_DIR_STEP, name + 1,
			     &request, err);
	if (r < 0)
		return r;
	if (kind == CFS_DIR_RUN)
		return cfs_view_new_run(views, dir->path, dir_st, &request,
					name, out);
	r = cfs_plans_get(views->plans, dir->path, dir_st, &request, &plan,
			  err);
	if (r)
		return r < 0 ? r : -ENOENT;
	r = cfs_view_new_step(views, dir->path, dir_st, &request, &plan, 0,
			      name, out);
	if (!r)
		(*out)->has_pointer = true;
	cfs_plan_fini(&plan);
	return r;
}

/* ---- inside ---- */

/* A source that is itself a mount shows views, too, or refuses to: ours can say
 * how they are made, or why they are not.  @r is what stat() said. */
static bool is_shown(struct cfs_source *source, const char *path,
		     const char *name, int r)
{
	if (name[0] != '@' || r == -EINVAL)
		return r == -EINVAL;
	return !r && source->ops->getxattr(source, path, "user.ckptfs.view",
					   NULL, 0) > 0;
}

static int lookup_in_source(struct cfs_vnode *dir, const char *name,
			    struct cfs_vnode **out, struct cfs_error *err)
{
	struct cfs_source *source = dir->views->source;
	_cleanup_(cfs_freep) char *path = NULL;
	struct stat dir_st, st;
	int r;

	if (!S_ISDIR(dir->st.st_mode))
		return -ENOTDIR;
	r = cfs_vnode_check(dir, &dir_st);
	if (r < 0)
		return r;
	path = cfs_path_join(dir->path, name);
	if (!path)
		return -ENOMEM;
	r = source->ops->stat(source, path, &st);
	if (is_shown(source, path, name, r))
		r = -ENOENT;
	if (!r)
		return cfs_vnode_new_source(dir->views, path, &st, dir->salt,
					    out);
	if (r == -ENOENT && name[0] == '@')
		return lookup_view(dir, &dir_st, name, out, err);
	return r;
}

/* A directory inside a run's view: a step at the asked topology, or as it is.
 */
static int lookup_dir_in_run(struct cfs_vnode *run, const char *name,
			     const char *path, const struct stat *st,
			     struct cfs_vnode **out, struct cfs_error *err)
{
	struct cfs_views *views = run->views;
	struct cfs_plan plan = CFS_PLAN_INIT;
	enum cfs_written_state written;
	int r;

	/* What is saved here, through this view, is not whole for a while. */
	written = cfs_written_get(views->written, st->st_ino, run->salt);
	if (written == CFS_WRITTEN_NOW)
		return cfs_vnode_new_source(views, path, st, run->salt, out);
	r = cfs_plans_get(views->plans, path, st, &run->request, &plan, err);
	if (r < 0 && written == CFS_WRITTEN_NOT)
		return r;
	if (!r && !plan.tree && views->writable)
		cfs_written_note(views->written, st->st_ino, run->salt,
				 CFS_WRITTEN_ONCE);
	if (r || !plan.tree)
		r = cfs_vnode_new_source(views, path, st, run->salt, out);
	else
		r = cfs_view_new_step(views, path, st, &run->request, &plan,
				      run->ino, name, out);
	cfs_plan_fini(&plan);
	return r;
}

static int lookup_in_run(struct cfs_vnode *run, const char *name,
			 struct cfs_vnode **out, struct cfs_error *err)
{
	struct cfs_source *source = run->views->source;
	_cleanup_(cfs_freep) char *path = NULL;
	struct stat st;
	int r;

	r = cfs_vnode_check(run, &st);
	if (r < 0)
		return r;
	if (cfs_pointer_is_universal(run, name)) {
		r = cfs_pointer_other(run, name, out, err);
		if (r != -ENOENT)
			return r;
	}
	path = cfs_path_join(run->path, name);
	if (!path)
		return -ENOMEM;
	r = source->ops->stat(source, path, &st);
	if (r == -ENOENT && name[0] == '@')
		return cfs_view_refuse_nested(name, err);
	if (r == -ENOENT && !strcmp(name, CFS_POINTER))
		return cfs_pointer_other(run, name, out, err);
	if (r < 0)
		return r;
	if (S_ISDIR(st.st_mode))
		return lookup_dir_in_run(run, name, path, &st, out, err);
	if (S_ISREG(st.st_mode) && !strcmp(name, CFS_POINTER))
		return cfs_pointer_lookup(run, &st, out, err);
	return cfs_vnode_new_source(run->views, path, &st, run->salt, out);
}

/* ---- the calls ---- */

/* Refusals and damage are told to the log, once; absence is an answer. */
static void note_refusal(struct cfs_vnode *dir, const char *name, int r,
			 const struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = NULL;

	if (!err->text[0] || r == -ESTALE)
		return;
	if (dir->kind == CFS_VNODE_SOURCE)
		path = cfs_path_join(dir->path, name);
	else if (asprintf(&path, "%s%s@%s/%s", dir->path, *dir->path ? "/" : "",
			  dir->view, name) < 0)
		path = NULL;
	cfs_notes_say(dir->views->notes, path ? path : name, err->text);
}

/* For who asked by that name; the log would not want to know. */
static void explain_absent(const struct cfs_vnode *dir, const char *name,
			   struct cfs_error *why)
{
	const char *path = dir->path;

	if (!*path && dir->views->source_path)
		path = dir->views->source_path;
	if (name[0] == '@' && dir->kind == CFS_VNODE_SOURCE && !why->text[0])
		(void)cfs_fail(why, -ENOENT,
			       "%s is not a run: no step of a known format in "
			       "it",
			       *path ? path : "the directory");
}

int cfs_vnode_lookup(struct cfs_vnode *dir, const char *name,
		     struct cfs_vnode **child_out, struct cfs_error *err)
{
	struct cfs_error why = {.text = ""};
	size_t len = strlen(name);
	int r;

	assert(dir);
	if (len > NAME_MAX)
		return -ENAMETOOLONG;
	if (!len || strchr(name, '/') || !strcmp(name, ".") ||
	    !strcmp(name, ".."))
		return cfs_fail(err, -EINVAL, "'%s' is not one name", name);
	switch (dir->kind) {
	case CFS_VNODE_SOURCE:
		r = lookup_in_source(dir, name, child_out, &why);
		break;
	case CFS_VNODE_RUN_VIEW:
		r = lookup_in_run(dir, name, child_out, &why);
		break;
	case CFS_VNODE_STEP_VIEW:
		r = cfs_view_lookup_in_step(dir, name, child_out, &why);
		break;
	default:
		return -ENOTDIR;
	}
	if (r < 0) {
		note_refusal(dir, name, r, &why);
		if (r == -ENOENT)
			explain_absent(dir, name, &why);
		if (err)
			*err = why;
	}
	return r;
}

int cfs_vnode_walk(struct cfs_vnode *from, const char *path,
		   struct cfs_vnode **node_out, struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		cfs_vnode_ref(from);
	_cleanup_(cfs_freep) char *copy = strdup(path);
	char *name, *rest = NULL;

	if (!copy)
		return -ENOMEM;
	for (name = strtok_r(copy, "/", &rest); name;
	     name = strtok_r(NULL, "/", &rest)) {
		struct cfs_vnode *child = NULL;
		int r;

		if (!strcmp(name, "."))
			continue;
		r = cfs_vnode_lookup(node, name, &child, err);
		if (r < 0)
			return r;
		cfs_vnode_unref(node);
		node = child;
	}
	*node_out = cfs_steal(node);
	return 0;
}
