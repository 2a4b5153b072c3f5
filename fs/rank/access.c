/* Owners, groups and modes on the way to a path. */
#include "fs/rank/access.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "store/ns/ns.h"
#include "store/util/error.h"

#define ROOT_INO 1u

static bool in_group(const struct cfs_access_user *user, gid_t gid)
{
	if (user->gid == gid)
		return true;
	for (size_t i = 0; i < user->n_groups; i++)
		if (user->groups[i] == gid)
			return true;
	return false;
}

/* The first class that fits decides, as the kernel has it. */
static bool may(const struct cfs_access_user *user, const struct stat *st,
		int want)
{
	unsigned shift = 0;

	if (!user->uid)
		return true;
	if (st->st_uid == user->uid)
		shift = 6;
	else if (in_group(user, st->st_gid))
		shift = 3;
	/* R_OK, W_OK and X_OK are the bits of a mode */
	return !(want & ~((int)(st->st_mode >> shift) & 7));
}

static int refuse(struct cfs_error *err, const char *path, size_t len,
		  bool search)
{
	return cfs_fail(err, -EACCES, "%.*s: permission denied%s",
			len ? (int)len : 1, len ? path : "/",
			search ? " to search it" : "");
}

static int refuse_link(struct cfs_error *err, const char *path, size_t len)
{
	return cfs_fail(err, -ELOOP,
			"%.*s: is a symbolic link: name what it leads to",
			(int)len, path);
}

/* @at becomes the entry @name (of @n bytes) of it. */
static int step(struct cfs_ns *ns, uint64_t *at, const char *name, size_t n,
		struct stat *st)
{
	char part[256];
	int r;

	if (n >= sizeof(part))
		return -ENAMETOOLONG;
	memcpy(part, name, n);
	part[n] = '\0';
	r = cfs_ns_lookup(ns, *at, part, st);
	if (r < 0)
		return r;
	cfs_ns_forget(ns, st->st_ino, 1);
	*at = st->st_ino;
	return 0;
}

int cfs_access_check(struct cfs_ns *ns, const char *path,
		     const struct cfs_access_user *user, int want,
		     struct cfs_error *err)
{
	uint64_t at = ROOT_INO;
	size_t i = 0;
	struct stat st;
	int r = cfs_ns_getattr(ns, at, &st);

	while (!r && path[i]) {
		struct stat next;
		size_t n = strcspn(path + i, "/");

		if (S_ISLNK(st.st_mode))
			return refuse_link(err, path, i - 1);
		if (!S_ISDIR(st.st_mode))
			return cfs_fail(err, -ENOTDIR, "%.*s: not a directory",
					(int)i - 1, path);
		if (!may(user, &st, X_OK))
			return refuse(err, path, i ? i - 1 : 0, true);
		r = step(ns, &at, path + i, n, &next);
		if (r == -ENOENT)
			return may(user, &st, want)
				       ? 0
				       : refuse(err, path, i ? i - 1 : 0,
						false);
		if (r < 0)
			break;
		st = next;
		i += n;
		while (path[i] == '/')
			i++;
	}
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path[0] ? path : "/");
	if (S_ISLNK(st.st_mode) && want & W_OK)
		return refuse_link(err, path, i);
	return may(user, &st, want) ? 0 : refuse(err, path, i, false);
}
