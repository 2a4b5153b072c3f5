/* A stage: its options, its place in the namespace, its end. */
#include "fs/rank/stage.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/daemon/layouts.h"
#include "fs/daemon/nstree.h"
#include "fs/daemon/steps.h"
#include "fs/daemon/verb.h"
#include "fs/rank/access.h"
#include "fs/rank/stage_internal.h"
#include "store/core/store.h"
#include "store/map/source.h"
#include "store/ns/ns.h"
#include "store/util/error.h"
#include "store/util/log.h"

static const char *const formats[] = {"deepspeed", "universal", "safetensors",
				      "files"};

const char *cfs_stage_pointer(const struct cfs_stage *stage)
{
	if (stage->options.pointer)
		return stage->options.pointer;
	return !strcmp(stage->options.format, "universal") ? CFS_STEPS_UNIVERSAL
							   : CFS_STEPS_LATEST;
}

/* ---- options ---- */

static bool is_component(const char *name)
{
	return name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 &&
	       strcmp(name, "..") != 0 && strlen(name) <= 255;
}

/* "@dp8" is a view's name, wherever it stands. */
static bool has_view(const char *path)
{
	return path[0] == '@' || strstr(path, "/@");
}

static bool is_pointer(const char *name)
{
	return !strcmp(name, CFS_STEPS_LATEST) ||
	       !strcmp(name, CFS_STEPS_UNIVERSAL) ||
	       !strcmp(name, CFS_LAYOUT_POINTER);
}

static bool is_hidden(const char *run)
{
	size_t n = strlen(CFS_NSTREE_TRASH);

	return !strncmp(run, CFS_NSTREE_TRASH, n) && (!run[n] || run[n] == '/');
}

static int check_names(const struct cfs_stage_options *o, struct cfs_error *err)
{
	if (!cfs_source_path_ok(o->run) || is_hidden(o->run) ||
	    has_view(o->run))
		return cfs_fail(err, -EINVAL, "\"%s\" can be no run", o->run);
	if (!is_component(o->step) || has_view(o->step) ||
	    (!o->run[0] && is_hidden(o->step)) || is_pointer(o->step))
		return cfs_fail(err, -EINVAL,
				"\"%s\" can be no step: one name of a "
				"directory, without \"/\" and \"@\" in front, "
				"and no pointer's",
				o->step);
	if (o->pointer && o->pointer[0] &&
	    (!is_component(o->pointer) || has_view(o->pointer) ||
	     is_hidden(o->pointer)))
		return cfs_fail(err, -EINVAL,
				"\"%s\" can be no pointer: one name of a file, "
				"without \"/\" and \"@\" in front",
				o->pointer);
	return 0;
}

static int check_options(const struct cfs_stage *stage, struct cfs_error *err)
{
	const struct cfs_stage_options *o = &stage->options;
	bool known = false;
	int r = check_names(o, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(formats); i++)
		known |= !strcmp(o->format, formats[i]);
	if (!known)
		return cfs_fail(err, -EINVAL,
				"format \"%s\": there are deepspeed, "
				"universal, safetensors and files",
				o->format);
	if (o->zero_stage < 0 || o->zero_stage > 3)
		return cfs_fail(err, -EINVAL, "ZeRO stage %d: 0 to 3",
				o->zero_stage);
	if (!strcmp(cfs_stage_pointer(stage), o->step))
		return cfs_fail(err, -EINVAL,
				"%s: a step cannot be called as its pointer",
				o->step);
	return 0;
}

/* A pointer that is not ours never stays. */
static void copy_string(const char **s, int *r)
{
	if (*s)
		*s = strdup(*s);
	if (!*s)
		*r = -ENOMEM;
}

static int copy_options(struct cfs_stage *stage,
			const struct cfs_stage_options *from)
{
	struct cfs_stage_options *o = &stage->options;
	size_t bytes = from->n_groups * sizeof(*from->groups);
	gid_t *groups = malloc(bytes ? bytes : 1);
	int r = 0;

	*o = *from;
	o->groups = groups;
	if (!groups) {
		o->n_groups = 0;
		r = -ENOMEM;
	} else if (bytes) {
		memcpy(groups, from->groups, bytes);
	}
	copy_string(&o->run, &r);
	copy_string(&o->step, &r);
	copy_string(&o->format, &r);
	if (from->pointer)
		copy_string(&o->pointer, &r);
	o->dp = CFS_MAX(o->dp, 1u);
	o->tp = CFS_MAX(o->tp, 1u);
	o->pp = CFS_MAX(o->pp, 1u);
	return r;
}

/* ---- its place ---- */

/* The directory of this process's own; a sweep may remove the trash before
 * there is something in it. */
static int make_hidden(struct cfs_stage *stage, struct cfs_error *err)
{
	struct cfs_ns *ns = stage->context->ns;
	struct cfs_ns_cred cred = {geteuid(), getegid()};
	char name[sizeof(stage->hidden)];
	struct stat st = {0};
	int r = -ENOENT;

	for (int i = 0; i < 10 && r == -ENOENT; i++) {
		r = cfs_nstree_trash(ns, &stage->trash, name);
		if (r == 0)
			r = cfs_ns_mkdir(ns, &cred, stage->trash, name, 0700,
					 &st);
	}
	if (r == -EPERM)
		return cfs_fail(err, r,
				"%s belongs to another user, or others may "
				"write to it: it has to be removed",
				CFS_NSTREE_TRASH);
	if (r < 0)
		return r;
	cfs_ns_forget(ns, st.st_ino, 1);
	stage->dir = st.st_ino;
	memcpy(stage->hidden, name, sizeof(name));
	return 0;
}

/* The run, or the last directory on the way to it that is there. */
static int look_at_run(const struct cfs_stage *stage, struct stat *st)
{
	struct cfs_ns *ns = stage->context->ns;
	char path[4096];
	char *slash = path;
	int r = (size_t)snprintf(path, sizeof(path), "%s", stage->options.run) <
				sizeof(path)
			? -ENOENT
			: -ENAMETOOLONG;

	while (r == -ENOENT && slash) {
		r = cfs_ns_walk(ns, path, st);
		slash = strrchr(path, '/');
		if (r == -ENOENT && slash)
			*slash = '\0';
	}
	return r == -ENOENT ? cfs_ns_walk(ns, "", st) : r;
}

static int make_step(struct cfs_stage *stage)
{
	struct cfs_assemble_owner owner = {
		stage->options.uid, stage->options.gid, stage->options.umask};
	struct cfs_ns *ns = stage->context->ns;
	struct cfs_ns_cred cred;
	mode_t mode = 0777 & ~owner.umask;
	struct stat st = {0};
	int r = look_at_run(stage, &st);

	if (r < 0)
		return r;
	if (st.st_mode & S_ISGID) { /* as if it were made there */
		owner.gid = st.st_gid;
		mode |= S_ISGID;
	}
	cred = (struct cfs_ns_cred){owner.uid, owner.gid};
	r = cfs_ns_mkdir(ns, &cred, stage->dir, "step", mode, &st);
	if (r < 0)
		return r;
	cfs_ns_forget(ns, st.st_ino, 1);
	stage->step_dir = st.st_ino;
	return cfs_assemble_new(ns, st.st_ino, &owner, &stage->files);
}

int cfs_stage_check_access(const struct cfs_stage *stage, struct cfs_error *err)
{
	const struct cfs_stage_options *o = &stage->options;
	struct cfs_access_user user = {o->uid, o->gid, o->groups, o->n_groups};

	if (cfs_store_read_only(cfs_ns_store(stage->context->ns)))
		return cfs_fail(err, -EROFS,
				"the store is mounted read-only: nothing can "
				"be saved to it");
	return cfs_access_check(stage->context->ns, o->run, &user, W_OK | X_OK,
				err);
}

int cfs_stage_new(struct cfs_verb_context *context,
		  const struct cfs_stage_options *options,
		  struct cfs_stage **out, struct cfs_error *err)
{
	_cleanup_(cfs_stage_freep) struct cfs_stage *stage =
		calloc(1, sizeof(*stage));
	int r;

	if (!stage)
		return -ENOMEM;
	stage->context = context;
	(void)pthread_mutex_init(&stage->lock, NULL);
	r = copy_options(stage, options);
	if (r == 0)
		r = check_options(stage, err);
	if (r == 0)
		r = cfs_stage_check_access(stage, err);
	if (r == 0)
		r = cfs_stage_look(stage, err);
	if (r < 0)
		return r;
	stage->parts =
		calloc(CFS_MAX(options->n_ranks, 1u), sizeof(*stage->parts));
	r = stage->parts ? make_hidden(stage, err) : -ENOMEM;
	if (r == 0)
		r = make_step(stage);
	if (r < 0)
		return err && err->text[0]
			       ? r
			       : cfs_fail_prefix(err, r, "%s", options->step);
	*out = cfs_steal(stage);
	return 0;
}

static void remove_hidden(struct cfs_stage *stage)
{
	int r;

	if (!stage->hidden[0])
		return;
	r = cfs_nstree_remove(stage->context->ns, stage->trash, stage->hidden);
	if (r == 0)
		r = cfs_verb_sweep(stage->context);
	if (r < 0)
		(void)cfs_log_err(r, "%s/%s: what is left of a save",
				  CFS_NSTREE_TRASH, stage->hidden);
}

void cfs_stage_free(struct cfs_stage *stage)
{
	if (!stage)
		return;
	for (uint32_t i = 0; stage->parts && i < stage->options.n_ranks; i++) {
		if (stage->parts[i].file)
			cfs_ns_close_file(stage->parts[i].file);
		free(stage->parts[i].puts);
	}
	free(stage->parts);
	cfs_assemble_free(stage->files);
	remove_hidden(stage);
	for (size_t i = 0; i < stage->n_objects; i++)
		free(stage->objects[i].data);
	free(stage->objects);
	cfs_stage_names_fini(&stage->names);
	free((void *)(uintptr_t)stage->options.run);
	free((void *)(uintptr_t)stage->options.step);
	free((void *)(uintptr_t)stage->options.format);
	free((void *)(uintptr_t)stage->options.pointer);
	free((void *)(uintptr_t)stage->options.groups);
	(void)pthread_mutex_destroy(&stage->lock);
	free(stage);
}

void cfs_stage_freep(struct cfs_stage **stage)
{
	cfs_stage_free(*stage);
}
