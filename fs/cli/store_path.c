/* Which store a path leads into. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/live.h"
#include "fs/cli/store_verb.h"
#include "store/core/store.h"
#include "store/util/error.h"

void cfs_store_path_free(struct cfs_store_path *path)
{
	free(path->store);
	free(path->inside);
	*path = (struct cfs_store_path){0};
}

static int absolute(const char *path, char **out)
{
	char cwd[PATH_MAX];

	if (path[0] == '/') {
		*out = strdup(path);
		return *out ? 0 : -ENOMEM;
	}
	if (!getcwd(cwd, sizeof(cwd)))
		return -errno;
	if (asprintf(out, "%s/%s", cwd, path) < 0)
		return *out = NULL, -ENOMEM;
	return 0;
}

/* Does @path, below a directory, lead out of it again? */
static bool leads_out(const char *path)
{
	int depth = 0;

	while (*path) {
		size_t n = strcspn(path, "/");

		if (n == 2 && !strncmp(path, "..", 2))
			depth--;
		else if (n && !(n == 1 && *path == '.'))
			depth++;
		if (depth < 0)
			return true;
		path += n + (path[n] == '/');
	}
	return false;
}

/* The shortest prefix that is a store wins: what looks like one inside a store
 * is a file of it. */
static int find_prefix(char *path, struct cfs_store_path *out)
{
	bool denied = false;
	char *p = path;

	for (;;) {
		char cut;
		int is;

		while (*p == '/')
			p++;
		while (*p && *p != '/')
			p++;
		cut = *p;
		*p = '\0';
		is = leads_out(p + (cut == '/')) ? 0 : cfs_store_probe(path);
		denied |= is == -EACCES;
		if (is > 0)
			out->store = realpath(path, NULL);
		*p = cut;
		if (is > 0) {
			while (*p == '/')
				p++;
			out->inside = strdup(p);
			if (out->store && out->inside)
				return 1;
			cfs_store_path_free(out);
			return -ENOMEM;
		}
		if (!cut)
			return denied ? -EACCES : 0;
	}
}

int cfs_store_path_prefix(const char *path, struct cfs_store_path *out)
{
	_cleanup_(cfs_freep) char *full = NULL;
	size_t len;
	int r;

	*out = (struct cfs_store_path){0};
	r = absolute(path, &full);
	if (!r)
		r = full ? find_prefix(full, out) : -ENOMEM;
	len = r > 0 ? strlen(out->inside) : 0;
	while (len && out->inside[len - 1] == '/')
		out->inside[--len] = '\0';
	return r;
}

int cfs_store_path_find(const char *path, struct cfs_store_path *out,
			struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *real = NULL;
	bool denied;
	int r;

	r = cfs_store_path_prefix(path, out);
	if (r > 0 || (r < 0 && r != -EACCES))
		return r;
	denied = r < 0; /* somebody's mount, maybe */
	r = cfs_live_translate(path, &real, err);
	if (r < 0)
		return r;
	if (strcmp(real, path) != 0)
		return cfs_store_path_prefix(real, out);
	return denied ? cfs_fail(err, -EACCES, "%s: %s", path, strerror(EACCES))
		      : 0;
}
