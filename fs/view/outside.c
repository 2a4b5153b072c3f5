/*
 * A source with the machine's files beside it: a path with a leading '/' is one
 * of those.  For templates of views, which may lie anywhere; nothing else asks
 * for such a path.
 */
#include "fs/view/internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/path.h"

struct outside {
	struct cfs_source base;
	struct cfs_source *inner; /* borrowed */
	pthread_mutex_t lock;
	struct cfs_source *root; /* guarded by lock until set; or NULL */
};

/* Whose path it is, and what that source calls it. */
static int pick(struct cfs_source *source, const char **path,
		struct cfs_source **out)
{
	struct outside *o = container_of(source, struct outside, base);
	int r = 0;

	*out = o->inner;
	if ((*path)[0] != '/')
		return 0;
	(*path)++;
	pthread_mutex_lock(&o->lock);
	if (!o->root)
		r = cfs_source_dir_open("/", &o->root);
	*out = o->root;
	pthread_mutex_unlock(&o->lock);
	return r;
}

static int o_stat(struct cfs_source *source, const char *path,
		  struct stat *st_out)
{
	struct cfs_source *s;
	int r = pick(source, &path, &s);

	return r < 0 ? r : s->ops->stat(s, path, st_out);
}

static int o_readdir(struct cfs_source *source, const char *path,
		     cfs_dirent_fn *fn, void *arg)
{
	struct cfs_source *s;
	int r = pick(source, &path, &s);

	return r < 0 ? r : s->ops->readdir(s, path, fn, arg);
}

static int o_readlink(struct cfs_source *source, const char *path,
		      struct cfs_buf *target_out)
{
	struct cfs_source *s;
	int r = pick(source, &path, &s);

	return r < 0 ? r : s->ops->readlink(s, path, target_out);
}

static int o_open(struct cfs_source *source, const char *path,
		  struct cfs_file **file_out)
{
	struct cfs_source *s;
	int r = pick(source, &path, &s);

	return r < 0 ? r : s->ops->open(s, path, file_out);
}

static ssize_t o_getxattr(struct cfs_source *source, const char *path,
			  const char *name, void *buf, size_t size)
{
	struct cfs_source *s;
	int r = pick(source, &path, &s);

	return r < 0 ? r : s->ops->getxattr(s, path, name, buf, size);
}

static ssize_t o_listxattr(struct cfs_source *source, const char *path,
			   char *buf, size_t size)
{
	struct cfs_source *s;
	int r = pick(source, &path, &s);

	return r < 0 ? r : s->ops->listxattr(s, path, buf, size);
}

static int o_statfs(struct cfs_source *source, struct statvfs *out)
{
	struct outside *o = container_of(source, struct outside, base);

	return o->inner->ops->statfs(o->inner, out);
}

static void o_free(struct cfs_source *source)
{
	struct outside *o = container_of(source, struct outside, base);

	cfs_source_free(o->root);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

static const struct cfs_source_ops outside_ops = {
	.stat = o_stat,
	.readdir = o_readdir,
	.readlink = o_readlink,
	.open = o_open,
	.getxattr = o_getxattr,
	.listxattr = o_listxattr,
	.statfs = o_statfs,
	.free = o_free,
};

struct cfs_source *cfs_outside_new(struct cfs_source *inner)
{
	struct outside *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->base.ops = &outside_ops;
	o->inner = inner;
	pthread_mutex_init(&o->lock, NULL);
	return &o->base;
}

/* What follows "DIR/" in @path, "" for the directory itself; or NULL. */
static const char *below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	while (n && dir[n - 1] == '/')
		n--;
	if (strncmp(path, dir, n) != 0 || (path[n] && path[n] != '/'))
		return NULL;
	return path + n + (path[n] == '/');
}

/* What @a and @b end in alike goes: /mnt/a/run, /store/a/run to /mnt, /store */
static void cut_common_end(char *a, char *b)
{
	for (;;) {
		char *x = strrchr(a, '/'), *y = strrchr(b, '/');

		if (!x || !y || x == a || y == b || strcmp(x, y) != 0)
			return;
		*x = *y = '\0';
	}
}

int cfs_outside_path(const char *path, const char *named, const char *real,
		     char **out)
{
	_cleanup_(cfs_freep) char *from = NULL, *to = NULL;
	const char *rest = named ? below(path, named) : NULL;

	if (rest) {
		*out = strdup(rest);
		return *out ? 0 : -ENOMEM;
	}
	if (named && real && strcmp(named, real) != 0) {
		/* the source is a directory of a live mount: so is what lies
		 * beside it */
		from = strdup(named);
		to = strdup(real);
		if (!from || !to)
			return -ENOMEM;
		cut_common_end(from, to);
		rest = below(path, from);
	}
	*out = rest ? cfs_path_join(to, rest) : strdup(path);
	return *out ? 0 : -ENOMEM;
}
