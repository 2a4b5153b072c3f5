/* Keeps an export out of what it exports. */
#include "fs/cli/export_source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/cli/target.h"
#include "fs/view/view.h"
#include "store/util/error.h"
#include "store/util/path.h"

/* @dir as a real path, also when its last component is still to be made; NULL
 * where that cannot be told (making it will fail). */
static char *real_dir(const char *dir)
{
	_cleanup_(cfs_freep) char *parent = NULL;
	char *copy, *slash, *out = NULL, *real = realpath(dir, NULL);
	size_t len = strlen(dir);

	if (real)
		return real;
	copy = strdup(dir);
	if (!copy)
		return NULL;
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = 0;
	slash = strrchr(copy, '/');
	if (slash)
		*slash = 0;
	parent = realpath(!slash ? "." : slash == copy ? "/" : copy, NULL);
	if (parent && asprintf(&out, "%s/%s", strcmp(parent, "/") ? parent : "",
			       slash ? slash + 1 : copy) < 0)
		out = NULL;
	free(copy);
	return out;
}

static bool is_below(const char *path, const char *top)
{
	size_t len = strlen(top);

	return strncmp(path, top, len) == 0 &&
	       (!path[len] || path[len] == '/' || top[len - 1] == '/');
}

/* The source is never written: neither the run nor, of a single step, it or
 * the run around it, which its pointer tells. */
int cfs_export_source_refuse(const struct cfs_target *t, const char *dir,
			     struct cfs_error *err)
{
	const char *rel = cfs_vnode_source_path(t->node);
	_cleanup_(cfs_freep) char *real = real_dir(dir);
	_cleanup_(cfs_freep) char *top = NULL, *pointer = NULL;
	struct stat st;
	char *slash;

	if (!real)
		return 0;
	top = cfs_path_join(t->root, rel);
	if (!top)
		return -ENOMEM;
	slash = strrchr(top, '/');
	if (cfs_target_is_run(t->node) == 0 && slash && slash > top) {
		if (asprintf(&pointer, "%.*s/latest", (int)(slash - top), top) <
		    0)
			return pointer = NULL, -ENOMEM;
		if (stat(pointer, &st) == 0)
			*slash = 0;
	}
	if (!is_below(real, top))
		return 0;
	return cfs_fail(err, -EINVAL,
			"%s lies in %s, the source, which is never written; "
			"choose a directory elsewhere",
			dir, top);
}
