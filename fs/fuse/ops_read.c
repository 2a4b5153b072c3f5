/* Opening and reading. */
#include "fs/fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "store/util/spares.h"

static struct cfs_vhandle *handle_of(const struct fuse_file_info *fi)
{
	return (struct cfs_vhandle *)(uintptr_t)fi->fh; /* set by open */
}

void cfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		cfs_req_vnode(req, ino);
	struct cfs_mount *mount = cfs_mount_of(req);
	struct cfs_vhandle *handle;
	int r;

	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	r = cfs_vnode_open(node, &handle, NULL);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	fi->fh = (uintptr_t)handle;
	/* A node is one version of a file: its pages stay true. */
	fi->keep_cache = 1;
	fi->direct_io = mount->direct_io;
	fi->noflush = 1;
	if (fuse_reply_open(req, fi) == -ENOENT)
		cfs_vhandle_close(handle); /* interrupted */
}

void cfs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	cfs_vhandle_close(handle_of(fi));
	fuse_reply_err(req, 0);
}

/*
 * A reply's buffers, kept: a fresh one would fault in its pages for every
 * reply.  They start at a page: 24 bytes behind one, where malloc() puts it,
 * copies out of the page cache take three times as long.
 */
static struct cfs_spares replies = CFS_SPARES_INIT;

char *cfs_reply_take(size_t size)
{
	char *buf;

	if (size > CFS_MAX_IO)
		return NULL;
	buf = cfs_spares_take(&replies);
	return buf ? buf : aligned_alloc(CFS_PAGE_BYTES, CFS_MAX_IO);
}

void cfs_reply_putp(char **buf)
{
	if (*buf)
		cfs_spares_put(&replies, *buf);
}

void cfs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		 struct fuse_file_info *fi)
{
	_cleanup_(cfs_reply_putp) char *buf = cfs_reply_take(size);
	ssize_t n;

	(void)ino;
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	n = cfs_vhandle_pread(handle_of(fi), buf, size, (uint64_t)off);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}
