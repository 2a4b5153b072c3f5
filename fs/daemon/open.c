/* Store, namespace, source and views, opened one over the other. */
#include "fs/daemon/open.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "fs/container/sniff.h"
#include "fs/daemon/verb.h"
#include "fs/view/view.h"
#include "store/core/store.h"
#include "store/map/source.h"
#include "store/ns/ns.h"
#include "store/util/log.h"

static void replaying(void *arg, uint64_t done, uint64_t total,
		      const char *what)
{
	(void)cfs_verb_progress(arg, done, total, what);
}

static int open_over(const char *store_path, struct cfs_opened *o,
		     struct cfs_error *err)
{
	struct cfs_ns_options ns_options = {.sniffer = &cfs_sniffer};
	struct cfs_views_options view_options = {.source_path = store_path};
	int r;

	r = cfs_ns_open(o->store, &ns_options, &o->ns, err);
	if (!r)
		r = cfs_source_ns_open(o->ns, &o->source);
	if (!r)
		r = cfs_views_open(o->source, &view_options, &o->views, err);
	return r;
}

static int recover(struct cfs_opened *o)
{
	struct cfs_verb_context context;

	if (cfs_store_read_only(o->store))
		return 0;
	cfs_opened_context(o, &context);
	return cfs_daemon_recover(&context);
}

int cfs_opened_open_as(const char *store_path,
		       const struct cfs_store_options *how,
		       const struct cfs_verb_reply *reply,
		       struct cfs_opened *out, struct cfs_error *err)
{
	_cleanup_(cfs_opened_closep) struct cfs_opened o = {0};
	struct cfs_verb_reply copy = {0};
	struct cfs_store_options options = *how;
	int r;

	if (reply)
		copy = *reply;
	options.progress = replaying;
	options.progress_arg = &copy;
	r = cfs_store_open(store_path, &options, &o.store, err);
	if (!r)
		r = open_over(store_path, &o, err);
	if (!r)
		r = recover(&o);
	if (r < 0) /* most refusals name the store themselves */
		return err && strstr(err->text, store_path)
			       ? r
			       : cfs_fail_prefix(err, r, "%s", store_path);
	*out = o;
	o = (struct cfs_opened){0};
	return 0;
}

int cfs_opened_open(const char *store_path, const struct cfs_verb_reply *reply,
		    struct cfs_opened *out, struct cfs_error *err)
{
	const struct cfs_store_options how = {0};

	return cfs_opened_open_as(store_path, &how, reply, out, err);
}

int cfs_opened_close(struct cfs_opened *o)
{
	int r = 0, close_r;

	cfs_views_closep(&o->views);
	cfs_source_freep(&o->source);
	if (o->ns)
		r = cfs_ns_close(o->ns);
	if (o->store) {
		close_r = cfs_store_close(o->store);
		r = r ? r : close_r;
	}
	*o = (struct cfs_opened){0};
	return r;
}

void cfs_opened_closep(struct cfs_opened *opened)
{
	int r = cfs_opened_close(opened);

	if (r < 0)
		cfs_log_err(r, "closing the store");
}

void cfs_opened_context(const struct cfs_opened *opened,
			struct cfs_verb_context *out)
{
	*out = (struct cfs_verb_context){
		.ns = opened->ns,
		.views = opened->views,
	};
}

#define INDEX_BEFORE "index.before"

/* The index is a directory of plain files. */
static int remove_files(int dir)
{
	struct dirent *e;
	int fd = dup(dir), r = 0;
	DIR *d;

	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	while (!r && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(dir, e->d_name, 0) < 0)
			r = -errno;
	}
	closedir(d);
	return r;
}

static int remove_index(int dir, const char *name)
{
	_cleanup_(cfs_closep) int index = -1;
	int r;

	index = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (index < 0)
		return errno == ENOENT ? 0 : -errno;
	r = remove_files(index);
	if (!r && unlinkat(dir, name, AT_REMOVEDIR) < 0)
		r = -errno;
	return r;
}

/* Out of the way, while nobody has the store open. */
static int set_aside(int dir, const char *store_path, struct cfs_error *err)
{
	_cleanup_(cfs_closep) int lock = -1;
	int r;

	lock = openat(dir, "lock", O_RDWR | O_CLOEXEC);
	if (lock < 0 && errno != ENOENT)
		return cfs_fail_prefix(err, -errno, "%s/lock", store_path);
	if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) < 0)
		return cfs_fail(err, -EBUSY,
				"%s is in use; unmount it to have its index "
				"rebuilt",
				store_path);
	r = remove_index(dir, INDEX_BEFORE);
	if (!r && renameat(dir, "index", dir, INDEX_BEFORE) < 0 &&
	    errno != ENOENT)
		r = -errno;
	return r < 0 ? cfs_fail_prefix(err, r, "%s/index", store_path) : 0;
}

int cfs_opened_rebuild_index(const char *store_path, struct cfs_error *err)
{
	_cleanup_(cfs_opened_closep) struct cfs_opened opened = {0};
	_cleanup_(cfs_closep) int dir = -1;
	struct cfs_error why = {""};
	int r;

	dir = open(store_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return cfs_fail_prefix(err, -errno, "%s", store_path);
	r = set_aside(dir, store_path, err);
	if (r < 0)
		return r;
	r = cfs_opened_open(store_path, NULL, &opened, &why);
	if (r < 0) {
		/* an index that still leads to what a log with damage cannot */
		(void)remove_index(dir, "index");
		(void)renameat(dir, INDEX_BEFORE, dir, "index");
		return cfs_fail(err, r, "the index stays as it was: %s",
				why.text[0] ? why.text : strerror(-r));
	}
	r = remove_index(dir, INDEX_BEFORE);
	return r < 0 ? cfs_fail_prefix(err, r, "%s/%s", store_path,
				       INDEX_BEFORE)
		     : 0;
}
