#include "rank_client/place.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/mounts.h"
#include "store/util/storepath.h"

/* What is wrong with one, its daemon knows. */
static int probe(const char *path)
{
	char file[PATH_MAX + 32];

	if (snprintf(file, sizeof(file), "%s/ckptfs.json", path) >=
	    (int)sizeof(file))
		return 0;
	if (!access(file, F_OK))
		return 1;
	return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
}

/* A path in a mount as one below its store; 0: it is in none of ours. */
static int from_mount(const char *path, struct cfs_buf *out,
		      struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf table = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf real = CFS_BUF_INIT;
	char mount[PATH_MAX] = "", source[PATH_MAX] = "";
	int r;

	r = cfs_mounts_real_path(path, &real);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	if (cfs_mounts_read(&table) < 0)
		return 0; /* without /proc there is no mount to see */
	r = cfs_mounts_find(cfs_buf_str(&table), cfs_buf_str(&real), mount,
			    source);
	if (r <= 0)
		return r;
	if (getxattr(mount, "user.ckptfs.view", NULL, 0) > 0)
		return cfs_fail(err, -EINVAL,
				"%s: what is mounted on %s is a view; ranks "
				"save to the mount of the whole store",
				path, mount);
	cfs_buf_put_str(out, source);
	cfs_buf_put_str(out,
			cfs_buf_str(&real) + (mount[1] ? strlen(mount) : 0));
	return out->failed ? -ENOMEM : 1;
}

int cfs_place_find(const char *path, char **store_out, char **run_out,
		   struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf moved = CFS_BUF_INIT;
	int r, denied;

	r = cfs_storepath_prefix(path, probe, store_out, run_out);
	denied = r == -EACCES; /* somebody's mount, maybe */
	if (!r || denied) {
		r = from_mount(path, &moved, err);
		if (r > 0)
			r = cfs_storepath_prefix(cfs_buf_str(&moved), probe,
						 store_out, run_out);
		else if (!r && denied)
			r = -EACCES;
	}
	if (r > 0)
		return 0;
	if (!r)
		return cfs_fail(err, access(path, F_OK) ? -ENOENT : -EINVAL,
				"%s: neither a ckptfs store nor the mount of "
				"one",
				path);
	return err->text[0] ? r : cfs_fail_prefix(err, r, "%s", path);
}
