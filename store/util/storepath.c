/* Which directory of a path is a store, and what follows it. */
#include "store/util/storepath.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

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
static int find_prefix(char *path, cfs_storepath_probe_fn *probe, char **store,
		       char **inside)
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
		is = leads_out(p + (cut == '/')) ? 0 : probe(path);
		denied |= is == -EACCES;
		if (is > 0)
			*store = realpath(path, NULL);
		*p = cut;
		if (is > 0) {
			while (*p == '/')
				p++;
			*inside = strdup(p);
			if (*store && *inside)
				return 1;
			free(*store);
			free(*inside);
			*store = *inside = NULL;
			return -ENOMEM;
		}
		if (!cut)
			return denied ? -EACCES : 0;
	}
}

int cfs_storepath_prefix(const char *path, cfs_storepath_probe_fn *probe,
			 char **store_out, char **inside_out)
{
	_cleanup_(cfs_freep) char *full = NULL;
	size_t len;
	int r;

	*store_out = *inside_out = NULL;
	r = absolute(path, &full);
	if (!r)
		r = full ? find_prefix(full, probe, store_out, inside_out)
			 : -ENOMEM;
	len = *inside_out ? strlen(*inside_out) : 0;
	while (len && (*inside_out)[len - 1] == '/')
		(*inside_out)[--len] = '\0';
	return r;
}
