/*
 * What is in a stage's way: looked at when a save begins, so that nobody trains
 * for nothing, and again when it is published.
 */
#include <errno.h>
#include <string.h>

#include "fs/daemon/nstree.h"
#include "fs/daemon/pins.h"
#include "fs/rank/stage_internal.h"
#include "store/ns/ns.h"
#include "store/util/error.h"
#include "store/util/path.h"

/* What has @name in the run: 1, or 0. */
static int look(const struct cfs_stage *stage, uint64_t run, const char *name,
		struct stat *st)
{
	int r = cfs_ns_lookup(stage->context->ns, run, name, st);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	cfs_ns_forget(stage->context->ns, st->st_ino, 1);
	return 1;
}

static int is_empty(const struct cfs_stage *stage, uint64_t dir)
{
	_cleanup_(cfs_nstree_names_free) struct cfs_nstree_names names = {0};
	int r = cfs_nstree_list(stage->context->ns, dir, &names);

	return r < 0 ? r : !names.n;
}

static int exists(const struct cfs_stage *stage, struct cfs_error *err)
{
	return cfs_fail(err, -EEXIST,
			"%s%s%s is there already: ask to replace it, or save "
			"under another name",
			stage->options.run, stage->options.run[0] ? "/" : "",
			stage->options.step);
}

/* In a directory with the sticky bit only owners move what is there. */
static int check_owner(const struct cfs_stage *stage, const struct stat *run,
		       const struct stat *st, const char *name,
		       struct cfs_error *err)
{
	uid_t uid = stage->options.uid;

	if (!uid || !(run->st_mode & S_ISVTX) || run->st_uid == uid ||
	    st->st_uid == uid)
		return 0;
	return cfs_fail(err, -EPERM, "%s belongs to another user", name);
}

int cfs_stage_check_pin(const struct cfs_stage *stage, struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path =
		cfs_path_join(stage->options.run, stage->options.step);
	int r = path ? cfs_pins_has(cfs_ns_store(stage->context->ns), path)
		     : -ENOMEM;

	return r <= 0 ? r
		      : cfs_fail(err, -EBUSY,
				 "%s is pinned: unpin it to have it replaced, "
				 "or save under another name",
				 path);
}

/* A directory without anything in it is somebody's who was about to save: it
 * is no step. */
static int look_at_step(const struct cfs_stage *stage, const struct stat *run,
			const struct stat *st, struct cfs_stage_seen *seen,
			struct cfs_error *err)
{
	const char *step = stage->options.step;
	int r;

	if (!S_ISDIR(st->st_mode))
		return stage->options.replace
			       ? cfs_fail(err, -ENOTDIR, "%s is no directory",
					  step)
			       : exists(stage, err);
	r = is_empty(stage, st->st_ino);
	if (r < 0)
		return r;
	seen->step = r ? CFS_STAGE_EMPTY : CFS_STAGE_STEP;
	if (!r && !stage->options.replace)
		return exists(stage, err);
	r = check_owner(stage, run, st, step, err);
	if (r == 0 && seen->step == CFS_STAGE_STEP)
		r = cfs_stage_check_pin(stage, err);
	return r;
}

static int look_at_pointer(const struct cfs_stage *stage,
			   const struct stat *run, const struct stat *st,
			   struct cfs_error *err)
{
	const char *pointer = cfs_stage_pointer(stage);

	if (S_ISDIR(st->st_mode))
		return cfs_fail(err, -EISDIR, "%s is a directory", pointer);
	if (!S_ISREG(st->st_mode))
		return cfs_fail(err, -EINVAL,
				"%s is no regular file: remove it, or name "
				"another pointer",
				pointer);
	return check_owner(stage, run, st, pointer, err);
}

int cfs_stage_look_in(const struct cfs_stage *stage, uint64_t run,
		      struct cfs_stage_seen *seen, struct cfs_error *err)
{
	struct stat dir = {0}, st = {0};
	int r = cfs_ns_getattr(stage->context->ns, run, &dir);

	*seen = (struct cfs_stage_seen){CFS_STAGE_NONE, false};
	if (r == 0)
		r = look(stage, run, stage->options.step, &st);
	if (r > 0)
		r = look_at_step(stage, &dir, &st, seen, err);
	if (r < 0 || !cfs_stage_pointer(stage)[0])
		return r;
	r = look(stage, run, cfs_stage_pointer(stage), &st);
	seen->pointer = r > 0;
	return r > 0 ? look_at_pointer(stage, &dir, &st, err) : r;
}

int cfs_stage_check_empty(const struct cfs_stage *stage, struct cfs_error *err)
{
	struct stat st;
	int r = look(stage, stage->dir, "step", &st);

	if (r > 0)
		r = is_empty(stage, st.st_ino);
	return r < 0 ? r : r ? 0 : exists(stage, err);
}

int cfs_stage_look(struct cfs_stage *stage, struct cfs_error *err)
{
	struct cfs_stage_seen seen;
	struct stat st;
	int r = cfs_ns_walk(stage->context->ns, stage->options.run, &st);

	if (r == -ENOENT)
		return 0; /* it will be made */
	if (r == 0 && !S_ISDIR(st.st_mode))
		r = -ENOTDIR;
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", stage->options.run);
	stage->run = st.st_ino;
	return cfs_stage_look_in(stage, st.st_ino, &seen, err);
}
