/*
 * Extended attributes.  What is absent is ENODATA, never ENOSYS: that would
 * switch them off for the whole mount.
 */
#include "fs/fuse/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/fuse/fuse.h"

void cfs_reply_xattr(fuse_req_t req, ssize_t n, const char *buf, size_t size)
{
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

ssize_t cfs_pid_xattr(char *buf, size_t size)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "%ld", (long)getpid());

	if (!size)
		return n;
	if ((size_t)n > size)
		return -ERANGE;
	memcpy(buf, text, (size_t)n);
	return n;
}

void cfs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		     size_t size)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		cfs_req_vnode(req, ino);
	_cleanup_(cfs_freep) char *buf = size ? malloc(size) : NULL;
	ssize_t n;

	if (size && !buf)
		n = -ENOMEM;
	else if (ino == FUSE_ROOT_ID && !strcmp(name, CFS_FUSE_PID_XATTR))
		n = cfs_pid_xattr(buf, size);
	else
		n = cfs_vnode_getxattr(node, name, buf, size);
	cfs_reply_xattr(req, n, buf, size);
}

void cfs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		cfs_req_vnode(req, ino);
	_cleanup_(cfs_freep) char *buf = size ? malloc(size) : NULL;
	ssize_t n;

	if (size && !buf)
		n = -ENOMEM;
	else
		n = cfs_vnode_listxattr(node, buf, size);
	cfs_reply_xattr(req, n, buf, size);
}
