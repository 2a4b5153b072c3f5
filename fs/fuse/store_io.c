/* Bytes read, written, punched and copied. */
#include "fs/fuse/store.h"

#include <fcntl.h>
#include <unistd.h>

/* The kernel's field for the count has 32 bits. */
#define COPY_MAX ((size_t)1 << 30)

void cfs_store_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	_cleanup_(cfs_reply_putp) char *buf = NULL;
	struct cfs_handle *handle = cfs_handle_of(fi);
	ssize_t n;

	if (!handle) {
		cfs_op_read(req, ino, size, off, fi);
		return;
	}
	buf = cfs_reply_take(size);
	n = buf ? cfs_ns_pread(handle->file, buf, size, (uint64_t)off)
		: -ENOMEM;
	if (n < 0)
		cfs_reply_result(req, (int)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

/*
 * Writing by other than root takes away set-user-ID and set-group-ID.  The
 * kernel does that itself only where the page cache is written to.
 */
static void drop_privileges(struct cfs_mount *mount, struct cfs_ns_file *file)
{
	uint64_t ino = cfs_ns_file_ino(file);
	struct stat st;
	mode_t mode;

	if (cfs_ns_getattr(mount->ns, ino, &st) < 0)
		return;
	mode = st.st_mode & ~(mode_t)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(mode_t)S_ISGID;
	if (mode == st.st_mode)
		return;
	st.st_mode = mode;
	if (!cfs_ns_setattr(mount->ns, ino, &st, CFS_SET_MODE, &st)) {
		cfs_notify_attr(mount->notify, ino);
		cfs_notify_wait(mount->notify);
	}
}

void cfs_store_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf,
			size_t size, off_t off, struct fuse_file_info *fi)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	struct cfs_handle *handle = cfs_handle_of(fi);
	struct stat st;
	ssize_t n = -EBADF;

	if (handle) {
		if (handle->append &&
		    !cfs_ns_getattr(mount->ns, cfs_ns_file_ino(handle->file),
				    &st))
			off = st.st_size;
		n = cfs_ns_pwrite(handle->file, buf, size, (uint64_t)off);
	}
	if (n < 0) {
		cfs_reply_result(req, (int)n);
		return;
	}
	if (mount->stale_pages && (fi->flags & O_ACCMODE) == O_WRONLY) {
		cfs_notify_pages(mount->notify, ino, (uint64_t)off, size);
		cfs_notify_wait(mount->notify);
	}
	if (fuse_req_ctx(req)->uid)
		drop_privileges(mount, handle->file);
	fuse_reply_write(req, (size_t)n);
}

void cfs_store_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off,
			    off_t len, struct fuse_file_info *fi)
{
	struct cfs_handle *handle = cfs_handle_of(fi);

	(void)ino;
	cfs_reply_result(req,
			 handle ? cfs_ns_fallocate(handle->file, mode,
						   (uint64_t)off, (uint64_t)len)
				: -EBADF);
}

/* What a view makes has no holes but the one at the end. */
static int64_t seek_made(struct cfs_mount *mount, fuse_ino_t ino, off_t off,
			 int whence)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		cfs_nodes_vnode(mount->nodes, ino);
	struct stat st;
	int r = cfs_vnode_stat(node, &st, NULL);

	if (r < 0)
		return r;
	if (off < 0 || off >= st.st_size)
		return -ENXIO;
	return whence == SEEK_HOLE ? st.st_size : off;
}

void cfs_store_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
			struct fuse_file_info *fi)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	struct cfs_handle *handle = cfs_handle_of(fi);
	int64_t to;

	if (off < 0)
		to = -ENXIO;
	else if (handle)
		to = cfs_ns_lseek(handle->file, (uint64_t)off, whence);
	else
		to = seek_made(mount, ino, off, whence);
	if (to < 0)
		cfs_reply_result(req, (int)to);
	else
		fuse_reply_lseek(req, (off_t)to);
}

void cfs_store_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in,
				  off_t off_in, struct fuse_file_info *fi_in,
				  fuse_ino_t ino_out, off_t off_out,
				  struct fuse_file_info *fi_out, size_t len,
				  int flags)
{
	struct cfs_handle *in = cfs_handle_of(fi_in);
	struct cfs_handle *out = cfs_handle_of(fi_out);
	ssize_t n = -EOPNOTSUPP; /* from a view: the kernel copies bytes */

	(void)ino_in;
	(void)ino_out;
	if (flags)
		n = -EINVAL;
	else if (in && out)
		n = cfs_ns_copy_range(in->file, (uint64_t)off_in, out->file,
				      (uint64_t)off_out,
				      CFS_MIN(len, COPY_MAX));
	if (n < 0)
		cfs_reply_result(req, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
}
