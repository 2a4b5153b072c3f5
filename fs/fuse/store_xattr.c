/* Extended attributes.  What is absent is ENODATA, never ENOSYS: that would
 * switch them off for the whole mount. */
#include "fs/fuse/store.h"

#include <string.h>

#include "fs/fuse/fuse.h"

/* What a view makes, and the directories it shows, have the view's. */
static ssize_t get_store(struct cfs_mount *mount, fuse_ino_t ino,
			 const char *name, char *buf, size_t size)
{
	/* The kernel asks for this one with every write. */
	if (!strcmp(name, "security.capability"))
		return -ENODATA;
	if (ino == FUSE_ROOT_ID && !strcmp(name, CFS_FUSE_PID_XATTR))
		return cfs_pid_xattr(buf, size);
	return cfs_ns_getxattr(mount->ns, ino, name, buf, size);
}

void cfs_store_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			   size_t size)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_freep) char *buf = NULL;
	ssize_t n;

	if (cfs_is_view(mount, ino)) {
		cfs_op_getxattr(req, ino, name, size);
		return;
	}
	buf = size ? malloc(size) : NULL;
	n = size && !buf ? -ENOMEM : get_store(mount, ino, name, buf, size);
	cfs_reply_xattr(req, n == -EBADMSG ? -EIO : n, buf, size);
}

void cfs_store_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_freep) char *buf = NULL;
	ssize_t n;

	if (cfs_is_view(mount, ino)) {
		cfs_op_listxattr(req, ino, size);
		return;
	}
	buf = size ? malloc(size) : NULL;
	n = size && !buf ? -ENOMEM
			 : cfs_ns_listxattr(mount->ns, ino, buf, size);
	cfs_reply_xattr(req, n == -EBADMSG ? -EIO : n, buf, size);
}

/* Directories of views go through, what they make does not. */
static int target_of(struct cfs_mount *mount, fuse_ino_t ino, const char *name,
		     struct cfs_target *out)
{
	/* Would never be given out again, and kill no one's privileges. */
	if (!strcmp(name, "security.capability"))
		return -EOPNOTSUPP;
	return cfs_target_inode(mount, ino, out);
}

void cfs_store_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			   const char *value, size_t size, int flags)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_target_fini) struct cfs_target t = CFS_TARGET_INIT;
	int r;

	r = target_of(mount, ino, name, &t);
	if (!r)
		r = cfs_ns_setxattr(mount->ns, t.ino, name, value, size, flags);
	cfs_reply_result(req, r);
}

void cfs_store_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_target_fini) struct cfs_target t = CFS_TARGET_INIT;
	int r;

	r = target_of(mount, ino, name, &t);
	if (r == -EOPNOTSUPP)
		r = -ENODATA;
	if (!r)
		r = cfs_ns_removexattr(mount->ns, t.ino, name);
	cfs_reply_result(req, r);
}
