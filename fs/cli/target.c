/* Splits a path into what exists and what is made, and opens both. */
#include "fs/cli/target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "fs/cli/live.h"
#include "fs/cli/store_share.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/vsource.h"
#include "fs/daemon/open.h"
#include "fs/format/format.h"
#include "fs/view/view.h"
#include "store/map/eval.h"
#include "store/map/source.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/path.h"

/* @path without doubled and trailing slashes and "." components. */
static char *tidy(const char *path)
{
	char *out = calloc(1, strlen(path) + 2), *o = out;
	const char *p = path;

	if (!out)
		return NULL;
	if (*p == '/')
		*o++ = '/';
	while (*p) {
		size_t n = strcspn(p, "/");

		if (n && !(n == 1 && p[0] == '.')) {
			if (o > out && o[-1] != '/')
				*o++ = '/';
			memcpy(o, p, n);
			o += n;
		}
		p += n + (p[n] == '/');
	}
	*o = 0;
	return out;
}

/* How much of @path lies before the first view that a mount shows: that is
 * made here again, which can tell how. */
static size_t before_views(char *path)
{
	char *p = path, *end, cut;
	ssize_t n;

	while ((p = strchr(p, '@'))) {
		if (p > path && p[-1] != '/') {
			p++;
			continue;
		}
		end = p + strcspn(p, "/");
		cut = *end;
		*end = 0;
		n = getxattr(path, "user.ckptfs.view", NULL, 0);
		*end = cut;
		if (n > 0)
			return (size_t)(p - path);
		p = end;
	}
	return strlen(path);
}

/*
 * The longest prefix of @path (tidy) that is there and is a directory, and no
 * view, goes to @root_out as a real path, the rest to @rel_out.
 */
static int split(const char *path, char **root_out, char **rel_out)
{
	_cleanup_(cfs_freep) char *head = strdup(path);
	size_t len, rest;
	struct stat st;

	if (!head)
		return -ENOMEM;
	len = before_views(head);
	while (len > 1 && path[len] && head[len - 1] == '/')
		len--;
	head[len] = 0;
	while (len && (stat(head, &st) < 0 || !S_ISDIR(st.st_mode))) {
		if (len == 1 && head[0] == '/')
			break;
		while (len && head[len - 1] != '/')
			len--;
		if (len > 1)
			len--;
		head[len] = 0;
	}
	rest = len + (path[len] == '/');
	*root_out = realpath(len ? head : ".", NULL);
	if (!*root_out)
		return -errno;
	*rel_out = strdup(path + rest);
	if (*rel_out)
		return 0;
	free(*root_out);
	*root_out = NULL;
	return -ENOMEM;
}

static int open_views(const char *root, struct cfs_target *t,
		      struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *named = NULL;
	struct cfs_views_options options = {0};
	int r;

	/* as the daemon knows it, if it lies in a mount */
	r = cfs_live_translate(root, &named, err);
	if (r < 0)
		return r;
	options.source_path = named;
	options.real_path = root;
	r = cfs_source_dir_open(root, &t->source);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", root);
	return cfs_views_open(t->source, &options, &t->views, err);
}

static void close_views(struct cfs_target *t)
{
	if (t->share) { /* they are its own */
		cfs_store_share_put(t->share);
		t->share = NULL;
		t->views = NULL;
		t->source = NULL;
		return;
	}
	cfs_views_closep(&t->views);
	t->views = NULL;
	cfs_source_freep(&t->source);
	t->source = NULL;
}

static int root_is_step(struct cfs_target *t)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *root = NULL;

	root = cfs_views_root(t->views);
	return cfs_vnode_is_step(root);
}

/* A step's source is the directory it lies in. */
static int go_up(struct cfs_target *t, struct cfs_error *err)
{
	char *slash = strrchr(t->root, '/');
	char *rel;

	if (!slash || !slash[1])
		return 0;
	rel = cfs_path_join(slash + 1, t->rel);
	if (!rel)
		return -ENOMEM;
	free(t->rel);
	t->rel = rel;
	slash[slash == t->root] = 0;
	close_views(t);
	return open_views(t->root, t, err);
}

static int walk(struct cfs_target *t, const char *path, struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *root = NULL;
	struct cfs_error why = {""};
	int r;

	root = cfs_views_root(t->views);
	if (!t->rel[0]) {
		t->node = cfs_steal(root);
		return 0;
	}
	if (!cfs_source_path_ok(t->rel))
		return cfs_fail(err, -ENOENT, "%s: no such file or directory",
				path);
	r = cfs_vnode_walk(root, t->rel, &t->node, &why);
	if (r == -ENOENT && !why.text[0])
		return cfs_fail(err, r, "%s: no such file, step or view", path);
	if (r < 0 && why.text[0])
		return cfs_fail(err, r, "%s: %s", path, why.text);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", path) : 0;
}

/* The same path in the mount of a store that its daemon has open. */
static int move_to_mount(const struct cfs_store_path *path, char **moved)
{
	_cleanup_(cfs_freep) char *mount = NULL;
	int r = cfs_live_mount_of(path->store, &mount);

	if (r <= 0)
		return r < 0 ? r : -EBUSY;
	*moved = cfs_path_join(mount, path->inside);
	return *moved ? 0 : -ENOMEM;
}

/* 1 when the path leads into a store; 0 and *@moved when it leads into one that
 * is mounted. */
static int open_in_store(const char *clean, struct cfs_target *t, char **moved,
			 struct cfs_error *err)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};
	const struct cfs_opened *opened;
	struct cfs_error why = {""};
	int r;

	r = cfs_store_path_prefix(clean, &path);
	if (r <= 0)
		return r;
	r = cfs_store_share_get(path.store, &t->share, &why);
	if (r == -EBUSY)
		r = move_to_mount(&path, moved);
	if (*moved)
		return 0;
	if (r < 0)
		return cfs_fail(err, r, "%s", why.text);
	opened = cfs_store_share_opened(t->share);
	t->source = opened->source;
	t->views = opened->views;
	t->root = cfs_steal(path.store);
	t->rel = cfs_steal(path.inside);
	return 1;
}

static int target_open(const char *path, struct cfs_target *t,
		       struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *clean = tidy(path);
	_cleanup_(cfs_freep) char *moved = NULL;
	int r;

	if (!clean)
		return -ENOMEM;
	r = open_in_store(clean, t, &moved, err);
	if (r)
		return r < 0 ? r : walk(t, path, err);
	r = split(moved ? moved : clean, &t->root, &t->rel);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	r = open_views(t->root, t, err);
	if (r < 0)
		return r;
	r = root_is_step(t);
	if (r > 0)
		r = go_up(t, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	return walk(t, path, err);
}

int cfs_target_open(const char *path, struct cfs_target *out,
		    struct cfs_error *err)
{
	struct cfs_target t = {0};
	int r;

	if (!path[0])
		return cfs_fail(err, -EINVAL, "the path is empty");
	r = target_open(path, &t, err);
	if (r < 0) {
		cfs_target_close(&t);
		return r;
	}
	*out = t;
	return 0;
}

void cfs_target_close(struct cfs_target *target)
{
	cfs_vnode_unrefp(&target->node);
	close_views(target);
	free(target->root);
	free(target->rel);
	*target = (struct cfs_target){0};
}

char *cfs_target_path(const struct cfs_target *target)
{
	return cfs_path_join(target->root, target->rel ? target->rel : "");
}

int cfs_target_is_run(struct cfs_vnode *node)
{
	int r;

	switch (cfs_vnode_kind(node)) {
	case CFS_VNODE_RUN_VIEW:
		return 1;
	case CFS_VNODE_SOURCE:
		break;
	default:
		return 0;
	}
	/* an exported step may hold a `latest` of its own */
	r = cfs_vnode_is_step(node);
	return r ? (r < 0 ? r : 0) : cfs_vnode_is_run(node);
}

int cfs_target_latest(struct cfs_vnode *dir, struct cfs_buf *name_out,
		      struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	_cleanup_(cfs_vhandle_closep) struct cfs_vhandle *h = NULL;
	char text[4096];
	ssize_t n;
	int r;

	r = cfs_vnode_lookup(dir, "latest", &node, err);
	if (r < 0)
		return r;
	r = cfs_vnode_open(node, &h, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "latest");
	n = cfs_vhandle_pread(h, text, sizeof(text), 0);
	if (n < 0)
		return cfs_fail_prefix(err, (int)n, "latest");
	while (n > 0 && strchr(" \t\r\n", text[n - 1]) && text[n - 1])
		n--;
	if (n == 0 || n == (ssize_t)sizeof(text) ||
	    memchr(text, '/', (size_t)n) || memchr(text, 0, (size_t)n) ||
	    (n == 2 && memcmp(text, "..", 2) == 0))
		return cfs_fail(err, -EINVAL,
				"latest does not hold the name of a step");
	cfs_buf_reset(name_out);
	cfs_buf_put(name_out, text, (size_t)n);
	return name_out->failed ? -ENOMEM : 0;
}

int cfs_target_is_whole(const struct cfs_target *target,
			const struct cfs_vnode *run, const char *name,
			struct cfs_error *err)
{
	const char *dir = cfs_vnode_source_path(run);
	const struct cfs_format *format = NULL;
	_cleanup_(cfs_freep) char *path = NULL;
	struct stat st;
	int r;

	path = cfs_path_join(dir, name);
	if (!path)
		return -ENOMEM;
	if (!cfs_source_path_ok(path))
		return -ENOENT;
	r = target->source->ops->stat(target->source, path, &st);
	if (r < 0 || !S_ISDIR(st.st_mode))
		return r == -ENOENT || r == 0 ? -ENOENT : r;
	r = cfs_format_probe(target->source, path, &format);
	if (r < 0) /* what may not be read is no step of ours to speak of */
		return r == -EACCES ? -ENOENT : r;
	return format->complete(target->source, path, err);
}

int cfs_target_saved_step(const struct cfs_target *target,
			  const struct cfs_vnode *node,
			  struct cfs_step **step_out, struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *root = NULL;
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *source = NULL;
	const char *path = cfs_vnode_source_path(node);
	int r;

	root = cfs_views_root(target->views);
	if (!path[0])
		return cfs_vnode_step(root, step_out, err);
	r = cfs_vnode_walk(root, path, &source, err);
	return r < 0 ? r : cfs_vnode_step(source, step_out, err);
}
