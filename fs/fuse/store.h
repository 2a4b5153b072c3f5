/*
 * What the callbacks of a store's mount share.  Private to fs/fuse.
 *
 * Numbers: a store's inodes have their own; what views show has CFS_NODE_BIT
 * set, and is in the table of nodes.  Files and links that a view shows as they
 * are go by the store's number: one file is one set of pages.  Directories get
 * a node a view, since the kernel takes one directory in two places for a loop;
 * what is done in those goes through to the store's directory.
 */
#ifndef CFS_FUSE_STORE_H
#define CFS_FUSE_STORE_H

#include <errno.h>
#include <stddef.h>

#include "fs/fuse/handles.h"
#include "fs/fuse/internal.h"
#include "fs/fuse/notify.h"
#include "store/ns/ns.h"

/* Everything that changes a store goes through this kernel or is told to it
 * (notify.h).  Names that are not there are asked for again each time. */
#define CFS_STORE_SECONDS 3600.0

extern const struct fuse_lowlevel_ops cfs_store_ops;

static inline bool cfs_is_view(const struct cfs_mount *mount, fuse_ino_t ino)
{
	return ino & CFS_NODE_BIT || (ino == FUSE_ROOT_ID && mount->view_root);
}

/* @r: 0 or an errno of ours, which says more than a caller knows of. */
static inline void cfs_reply_result(fuse_req_t req, int r)
{
	fuse_reply_err(req, r == -EBADMSG ? EIO : -r);
}

/* Open files: a handle of the store's, or a vnode's of a view. */
static inline uint64_t cfs_handle_put(struct cfs_handle *handle)
{
	return (uint64_t)(uintptr_t)handle | 1;
}
static inline struct cfs_handle *cfs_handle_of(const struct fuse_file_info *fi)
{
	if (!fi || !(fi->fh & 1))
		return NULL;
	return (struct cfs_handle *)(uintptr_t)(fi->fh & ~UINT64_C(1));
}

/* Who asks owns what is made. */
static inline struct cfs_ns_cred cfs_cred_of(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct cfs_ns_cred){.uid = ctx->uid, .gid = ctx->gid};
}

/* ---- store_node.c ---- */

/* Attributes as a looked up entry; @in_view: its name is in a view. */
void cfs_store_entry(const struct stat *st, bool in_view,
		     struct fuse_entry_param *out);
/* As cfs_mount_lookup(), in a view's directory. */
int cfs_store_lookup_in(struct cfs_mount *mount, struct cfs_vnode *dir,
			const char *name, struct fuse_entry_param *out);
int cfs_store_lookup(struct cfs_mount *mount, fuse_ino_t dir, const char *name,
		     struct fuse_entry_param *out);
void cfs_store_forget(struct cfs_mount *mount, uint64_t number, uint64_t n);
/* Replies; what the reply does not deliver is forgotten. */
void cfs_store_reply_entry(fuse_req_t req, const struct fuse_entry_param *e);

/* A directory to change, or a file or link whose inode is to be changed. */
struct cfs_target {
	uint64_t ino;		/* in the store */
	struct cfs_vnode *view; /* through which it is changed; or NULL */
	uint64_t node;		/* what the kernel calls it */
};
#define CFS_TARGET_INIT                                                        \
	{                                                                      \
		0, NULL, 0                                                     \
	}
/* -EROFS, and the log says so once, for what a view makes up. */
CFS_MUST_CHECK int cfs_target_dir(struct cfs_mount *mount, fuse_ino_t ino,
				  const char *name, struct cfs_target *out);
CFS_MUST_CHECK int cfs_target_inode(struct cfs_mount *mount, fuse_ino_t ino,
				    struct cfs_target *out);
void cfs_target_fini(struct cfs_target *target);
/* May the name that is there be removed or renamed?  Not a step that a view
 * shows at another topology. */
CFS_MUST_CHECK int cfs_target_check(struct cfs_mount *mount,
				    const struct cfs_target *dir,
				    const char *name);
/* @name in @dir was made, or (@gone) is another one now or none: the other
 * directories that have it hear of it. */
void cfs_target_changed(struct cfs_mount *mount, const struct cfs_target *dir,
			const char *name, bool gone);

/* ---- the callbacks ---- */

/* store_meta.c */
void cfs_store_op_lookup(fuse_req_t req, fuse_ino_t dir, const char *name);
void cfs_store_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void cfs_store_op_forget_multi(fuse_req_t req, size_t count,
			       struct fuse_forget_data *forgets);
void cfs_store_op_getattr(fuse_req_t req, fuse_ino_t ino,
			  struct fuse_file_info *fi);
void cfs_store_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr,
			  int to_set, struct fuse_file_info *fi);
void cfs_store_op_readlink(fuse_req_t req, fuse_ino_t ino);
void cfs_store_op_statfs(fuse_req_t req, fuse_ino_t ino);

/* store_names.c */
void cfs_store_op_mknod(fuse_req_t req, fuse_ino_t dir, const char *name,
			mode_t mode, dev_t rdev);
void cfs_store_op_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name,
			mode_t mode);
void cfs_store_op_symlink(fuse_req_t req, const char *target, fuse_ino_t dir,
			  const char *name);
void cfs_store_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir,
		       const char *name);
void cfs_store_op_unlink(fuse_req_t req, fuse_ino_t dir, const char *name);
void cfs_store_op_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name);
void cfs_store_op_rename(fuse_req_t req, fuse_ino_t dir, const char *name,
			 fuse_ino_t new_dir, const char *new_name,
			 unsigned flags);

/* store_open.c */
void cfs_store_op_create(fuse_req_t req, fuse_ino_t dir, const char *name,
			 mode_t mode, struct fuse_file_info *fi);
void cfs_store_op_open(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi);
void cfs_store_op_flush(fuse_req_t req, fuse_ino_t ino,
			struct fuse_file_info *fi);
void cfs_store_op_release(fuse_req_t req, fuse_ino_t ino,
			  struct fuse_file_info *fi);
void cfs_store_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
			struct fuse_file_info *fi);

/* store_io.c */
void cfs_store_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi);
void cfs_store_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf,
			size_t size, off_t off, struct fuse_file_info *fi);
void cfs_store_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off,
			    off_t len, struct fuse_file_info *fi);
void cfs_store_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
			struct fuse_file_info *fi);
void cfs_store_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in,
				  off_t off_in, struct fuse_file_info *fi_in,
				  fuse_ino_t ino_out, off_t off_out,
				  struct fuse_file_info *fi_out, size_t len,
				  int flags);

/* store_dir.c */
void cfs_store_op_opendir(fuse_req_t req, fuse_ino_t ino,
			  struct fuse_file_info *fi);
void cfs_store_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size,
			  off_t off, struct fuse_file_info *fi);
void cfs_store_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size,
			      off_t off, struct fuse_file_info *fi);
void cfs_store_op_releasedir(fuse_req_t req, fuse_ino_t ino,
			     struct fuse_file_info *fi);
void cfs_store_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
			   struct fuse_file_info *fi);

/* store_xattr.c */
void cfs_store_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			   size_t size);
void cfs_store_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void cfs_store_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			   const char *value, size_t size, int flags);
void cfs_store_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
