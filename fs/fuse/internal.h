/* What the callbacks share.  Private to fs/fuse. */
#ifndef CFS_FUSE_INTERNAL_H
#define CFS_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "fs/fuse/node.h"
#include "fs/view/view.h"

struct cfs_ns;

/* libfuse 3.14 has buffers of 1 MiB; more breaks the mount. */
#define CFS_MAX_IO     (1u << 20)
#define CFS_PAGE_BYTES 4096u

struct cfs_mount {
	struct cfs_views *views;
	struct cfs_nodes *nodes;
	bool direct_io;
	/* Of a store only: */
	struct cfs_ns *ns; /* NULL: a plain directory */
	bool view_root;	   /* the root is a view's */
	struct cfs_notify *notify;
	struct cfs_handles *handles;
	bool stale_pages; /* the kernel keeps pages that a write goes past */
	/* As cfs_mount_lookup(), or NULL for that. */
	int (*lookup_in)(struct cfs_mount *mount, struct cfs_vnode *dir,
			 const char *name, struct fuse_entry_param *out);
};

/*
 * How long the kernel may believe.  A node is one version of a file, so its
 * attributes never change; a name may mean another node at any moment, so each
 * walk asks again.  A listing's entries are believed just long enough for the
 * stat() of each that mostly follows: opening one that changed meanwhile is
 * -ESTALE, upon which the kernel looks the name up again by itself.
 */
#define CFS_FILE_ATTR_SECONDS 86400.0
#define CFS_DIR_ATTR_SECONDS  0.1
#define CFS_NAME_SECONDS      0.0
#define CFS_LISTED_SECONDS    0.2

static inline struct cfs_mount *cfs_mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* The vnode behind a number of the kernel's; caller unrefs. */
static inline struct cfs_vnode *cfs_req_vnode(fuse_req_t req, fuse_ino_t ino)
{
	return cfs_nodes_vnode(cfs_mount_of(req)->nodes, ino);
}

/* session.c */
void cfs_on_init(void *data, struct fuse_conn_info *conn);

/* ops_meta.c */
/* Looks @name up and counts it as known to the kernel: undo with
 * cfs_nodes_forget(…, 1) where the reply does not reach it. */
int cfs_mount_lookup(struct cfs_mount *mount, struct cfs_vnode *dir,
		     const char *name, struct fuse_entry_param *out);
void cfs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void cfs_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void cfs_op_forget_multi(fuse_req_t req, size_t count,
			 struct fuse_forget_data *forgets);
void cfs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cfs_op_readlink(fuse_req_t req, fuse_ino_t ino);
void cfs_op_statfs(fuse_req_t req, fuse_ino_t ino);

/* ops_dir.c */
void cfs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cfs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);
void cfs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			struct fuse_file_info *fi);
void cfs_op_releasedir(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi);

/* ops_read.c */
/* A reply's buffer, page-aligned; NULL: no memory. */
char *cfs_reply_take(size_t size);
void cfs_reply_putp(char **buf);
void cfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cfs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		 struct fuse_file_info *fi);
void cfs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* ops_xattr.c */
void cfs_reply_xattr(fuse_req_t req, ssize_t n, const char *buf, size_t size);
ssize_t cfs_pid_xattr(char *buf, size_t size);
void cfs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		     size_t size);
void cfs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);

#endif
