/*
 * Pointers after a crash.  A trainer writes `latest` when its own files are
 * written, maybe before the other ranks' are: what comes back may name a step
 * of which a part is missing.  Such a pointer is set to the newest whole step
 * before it, which is what a view of the run shows, too.  `latest_universal`
 * is another pointer of the run, to universal checkpoints only.  Where nothing
 * may be written they stay, and the log tells what to load.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fs/daemon/layouts.h"
#include "fs/daemon/nstree.h"
#include "fs/daemon/steps.h"
#include "fs/daemon/verb.h"
#include "fs/view/view.h"
#include "store/core/store.h"
#include "store/map/source.h"
#include "store/ns/ns.h"
#include "store/util/log.h"
#include "store/util/path.h"

struct recover {
	struct cfs_verb_context *context;
	struct cfs_source *source;
	bool read_only;
};

/* In place, so that owner and mode stay; truncating is staged, so a crash now
 * leaves the old text or the new one. */
static int write_pointer(struct cfs_ns *ns, uint64_t ino, const char *text)
{
	struct cfs_ns_file *file = NULL;
	ssize_t n;
	int r;

	r = cfs_ns_open_file(ns, ino, O_WRONLY | O_TRUNC, &file);
	if (r < 0)
		return r;
	n = cfs_ns_pwrite(file, text, strlen(text), 0);
	r = n < 0 ? (int)n : cfs_ns_fsync(file);
	cfs_ns_close_file(file);
	return r;
}

/* @file: what the pointer is called. */
static int settle_run(struct recover *c, const char *run, const char *file,
		      uint64_t ino)
{
	_cleanup_(cfs_steps_free) struct cfs_steps steps = {0};
	struct cfs_error why = {""};
	const struct cfs_steps_item *item;
	const bool universal = !strcmp(file, CFS_STEPS_UNIVERSAL);
	char pointer[256], number[24];
	const char *text;
	int r;

	r = universal ? cfs_steps_universal(c->source, run, pointer)
		      : cfs_steps_pointer(c->source, run, pointer);
	if (r <= 0)
		return r;
	r = cfs_steps_is_whole(c->source, run, pointer, &why);
	if (r)
		return r < 0 ? r : 0;
	r = cfs_steps_list(c->source, run, &steps);
	if (r < 0)
		return r;
	item = universal ? cfs_steps_settle_universal(&steps, pointer)
			 : cfs_steps_settle(&steps, pointer);
	text = item ? item->name : NULL;
	if (item && !strcmp(file, CFS_LAYOUT_POINTER))
		text = cfs_layout_pointer_text(item->name, number) ? number
								   : NULL;
	if (!text) {
		if (steps.n)
			cfs_log(CFS_LOG_WARN,
				"%s/%s names %s, which is not whole (%s); no "
				"whole step before it",
				run, file, pointer, why.text);
		return 0;
	}
	if (c->read_only) {
		cfs_log(CFS_LOG_WARN,
			"%s/%s names %s, which is not whole (%s) since the "
			"last mount ended in a crash; it stays so while "
			"nothing may be written: load %s",
			run, file, pointer, why.text, item->name);
		return 0;
	}
	cfs_log(CFS_LOG_WARN,
		"%s/%s named %s, which is not whole (%s) since the last "
		"mount ended in a crash: it is set to %s",
		run, file, pointer, why.text, item->name);
	return write_pointer(c->context->ns, ino, text);
}

/* Megatron's pointer counts where there is no `latest`. */
static bool counts(struct recover *c, const char *run, const char *file)
{
	_cleanup_(cfs_freep) char *latest = NULL;
	struct stat st;

	if (!strcmp(file, CFS_STEPS_LATEST) ||
	    !strcmp(file, CFS_STEPS_UNIVERSAL))
		return true;
	if (strcmp(file, CFS_LAYOUT_POINTER) != 0)
		return false;
	latest = cfs_path_join(run, CFS_STEPS_LATEST);
	return latest && c->source->ops->stat(c->source, latest, &st) < 0;
}

static int on_object(void *arg, const char *path, const struct stat *st)
{
	struct recover *c = arg;
	const char *slash = strrchr(path, '/');
	const char *file = slash ? slash + 1 : path;
	_cleanup_(cfs_freep) char *run = NULL;
	int r;

	if (!S_ISREG(st->st_mode))
		return 0;
	run = strndup(path, slash ? (size_t)(slash - path) : 0);
	if (!run)
		return -ENOMEM;
	if (!counts(c, run, file))
		return 0;
	r = settle_run(c, run, file, st->st_ino);
	if (r < 0 && r != -ENOMEM && r != -ENOSPC)
		(void)cfs_log_err(r, "%s: its pointer could not be looked at",
				  path);
	return r == -ENOMEM ? r : 0;
}

int cfs_daemon_recover_pointers(struct cfs_verb_context *context)
{
	struct recover c = {context, cfs_views_source(context->views),
			    cfs_store_read_only(cfs_ns_store(context->ns))};

	return cfs_nstree_walk(context->ns, 1, "", on_object, &c);
}

int cfs_daemon_recover(struct cfs_verb_context *context)
{
	const struct cfs_store *store = cfs_ns_store(context->ns);
	int r = cfs_store_read_only(store) ? 0 : cfs_nstree_sweep(context->ns);

	if (r < 0)
		(void)cfs_log_err(r, "removing what was left half removed");
	return cfs_store_was_unclean(store)
		       ? cfs_daemon_recover_pointers(context)
		       : 0;
}
