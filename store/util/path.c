#include "store/util/path.h"

#include <errno.h>
#include <stdio.h>

static const char *slash(const char *dir, const char *name)
{
	return *dir && *name ? "/" : "";
}

char *cfs_path_join(const char *dir, const char *name)
{
	char *path;

	if (asprintf(&path, "%s%s%s", dir, slash(dir, name), name) < 0)
		return NULL;
	return path;
}

int cfs_path_put(char *buf, size_t size, const char *dir, const char *name)
{
	int n = snprintf(buf, size, "%s%s%s", dir, slash(dir, name), name);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}
