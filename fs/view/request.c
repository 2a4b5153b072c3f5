/* What a directory is, and what a view's name after it asks for. */
#include "fs/view/internal.h"

#include <errno.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/format/options.h"
#include "store/util/error.h"
#include "store/util/path.h"

/* ---- what a directory is ---- */

int cfs_view_is_step(struct cfs_views *views, const char *path)
{
	const struct cfs_format *format;
	int r;

	r = cfs_format_probe(views->source, path, &format);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	return r < 0 ? r : 1;
}

struct find_step {
	struct cfs_views *views;
	const char *dir;
};

static int stop_at_step(void *arg, const char *name, const struct stat *st)
{
	struct find_step *find = arg;
	_cleanup_(cfs_freep) char *path = NULL;
	int r;

	if (!S_ISDIR(st->st_mode))
		return 0;
	path = cfs_path_join(find->dir, name);
	if (!path)
		return -ENOMEM;
	r = cfs_view_is_step(find->views, path);
	/* A directory that may not be read says nothing about the run. */
	return r > 0 ? 1 : 0;
}

int cfs_view_is_run(struct cfs_views *views, const char *path)
{
	struct find_step find = {views, path};
	_cleanup_(cfs_freep) char *pointer = cfs_path_join(path, CFS_POINTER);
	struct stat st;
	int r;

	if (!pointer)
		return -ENOMEM;
	r = views->source->ops->stat(views->source, pointer, &st);
	if (!r && S_ISREG(st.st_mode))
		return 1;
	return views->source->ops->readdir(views->source, path, stop_at_step,
					   &find);
}

int cfs_view_dir_kind(struct cfs_views *views, const char *path,
		      const struct stat *st)
{
	int kind = cfs_notes_kind(views->notes, path, st), r;

	if (kind != CFS_DIR_PLAIN)
		return kind;
	r = cfs_view_is_step(views, path);
	if (r < 0)
		return r;
	if (r) {
		kind = CFS_DIR_STEP;
	} else {
		r = cfs_view_is_run(views, path);
		if (r < 0)
			return r;
		kind = r ? CFS_DIR_RUN : CFS_DIR_PLAIN;
	}
	if (kind != CFS_DIR_PLAIN)
		cfs_notes_set_kind(views->notes, path, st, kind);
	return kind;
}

/* ---- names of views ---- */

static int find_registered(struct cfs_views *views, const char *path,
			   const char *name, struct cfs_registry_entry *out)
{
	_cleanup_(cfs_freep) char *full = NULL;

	if (!views->source_path)
		return -ENOENT;
	if (*path)
		full = cfs_path_join(views->source_path, path);
	else
		full = strdup(views->source_path);
	if (!full)
		return -ENOMEM;
	return cfs_registry_find(full, name, out);
}

/* A step may be named through its run's registry, too. */
static int find_in_run(struct cfs_views *views, const char *path,
		       const char *name, struct cfs_registry_entry *out)
{
	_cleanup_(cfs_freep) char *run = strdup(path);
	char *slash;

	if (!run)
		return -ENOMEM;
	slash = strrchr(run, '/');
	*(slash ? slash : run) = '\0';
	return find_registered(views, run, name, out);
}

int cfs_view_request(struct cfs_views *views, const char *path, bool is_step,
		     const char *name, struct cfs_request *out,
		     struct cfs_error *err)
{
	_cleanup_(cfs_registry_entry_fini) struct cfs_registry_entry
		registered = {NULL, NULL, NULL};
	int parsed, r;

	parsed = cfs_view_name_parse(name, out, err);
	if (!parsed)
		return 0;
	r = find_registered(views, path, name, &registered);
	if (r == -ENOENT && is_step && *path)
		r = find_in_run(views, path, name, &registered);
	if (r == -ENOENT)
		return parsed; /* with the parser's reason */
	if (r < 0)
		return cfs_registry_fail(err, r);
	r = cfs_registry_request(&registered, out, err);
	if (r < 0 || !registered.options)
		return r;
	out->options = cfs_options_intern(registered.options);
	return out->options ? 0 : -ENOMEM;
}
