/* Which mount of ours a path lies in, by the kernel's table of mounts. */
#include "fs/cli/live.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/xattr.h>

#include "store/core/store.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/mounts.h"

/* A mount whose root is a view says so itself. */
static void put_root_view(const char *mount, struct cfs_buf *out)
{
	char view[256];
	ssize_t n = getxattr(mount, "user.ckptfs.view", view, sizeof(view) - 1);

	if (n <= 0)
		return;
	view[n] = 0;
	cfs_buf_printf(out, "/%s", view);
}

static int translate(const char *path, bool stores, char **out,
		     struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf table = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf real = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf moved = CFS_BUF_INIT;
	char mount[PATH_MAX] = "", source[PATH_MAX] = "";
	const char *text;
	int r;

	r = cfs_mounts_real_path(path, &real);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	r = cfs_mounts_read(&table);
	if (r == 0)
		r = cfs_mounts_find(cfs_buf_str(&table), cfs_buf_str(&real),
				    mount, source);
	if (r > 0 && !stores && cfs_store_probe(source) > 0)
		r = 0;
	if (r <= 0) { /* also without /proc: then there is no mount to see */
		*out = strdup(path);
		return *out ? 0 : -ENOMEM;
	}
	text = cfs_buf_str(&real) + (mount[1] ? strlen(mount) : 0);
	cfs_buf_put_str(&moved, source);
	put_root_view(mount, &moved);
	cfs_buf_put_str(&moved, text);
	if (moved.failed)
		return -ENOMEM;
	*out = strdup(cfs_buf_str(&moved));
	return *out ? 0 : -ENOMEM;
}

int cfs_live_mount_of(const char *store, char **mount_out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf table = CFS_BUF_INIT;
	char mount[PATH_MAX], source[PATH_MAX], view[2];
	const char *text, *end;
	bool ours;
	int r = cfs_mounts_read(&table);

	if (r < 0)
		return r;
	for (text = cfs_buf_str(&table); *text; text = end + (*end == '\n')) {
		end = strchrnul(text, '\n');
		if (!cfs_mounts_line(text, end, mount, source, &ours) ||
		    !ours || strcmp(source, store) != 0 ||
		    getxattr(mount, "user.ckptfs.view", view, 0) > 0)
			continue;
		*mount_out = strdup(mount);
		return *mount_out ? 1 : -ENOMEM;
	}
	return 0;
}

int cfs_live_translate(const char *path, char **out, struct cfs_error *err)
{
	return translate(path, true, out, err);
}

int cfs_live_translate_plain(const char *path, char **out,
			     struct cfs_error *err)
{
	return translate(path, false, out, err);
}
