/*
 * The namespace: POSIX files and directories over a store, by inode number.
 * It knows nothing of FUSE; the mount, import and the views are its users.
 *
 * Permissions are the caller's business (the mount lets the kernel check them);
 * ownership and mode rules of new inodes are kept here.  Every call is for any
 * thread and returns a negative errno on failure.  Times are set by the calls
 * themselves, and never stand still: two changes of an inode have two ctimes.
 */
#ifndef CFS_NS_NS_H
#define CFS_NS_NS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_error;
struct cfs_extent;
struct cfs_ns;
struct cfs_ns_content;
struct cfs_ns_file;
struct cfs_region;
struct cfs_sniffer_ops;
struct cfs_source;
struct cfs_store;

struct cfs_ns_options {
	const struct cfs_sniffer_ops *sniffer; /* NULL: none */
};
/* Makes the root directory of an empty store (0755, owner: this process) and
 * removes orphans a crash left.  @store is borrowed. */
CFS_MUST_CHECK int cfs_ns_open(struct cfs_store *store,
			       const struct cfs_ns_options *options,
			       struct cfs_ns **ns_out, struct cfs_error *err);
/* No file is open any more.  Seals what was closed, commits. */
int cfs_ns_close(struct cfs_ns *ns);
struct cfs_store *cfs_ns_store(struct cfs_ns *ns);

struct cfs_ns_cred { /* of whom a new inode belongs to */
	uid_t uid;
	gid_t gid; /* a setgid directory overrides it */
};

/* ---- names; the root is inode 1 ---- */

/*
 * Calls that say "looked up" return attributes in @st_out and count the inode
 * as known to the caller until cfs_ns_forget(): an inode that is known or open
 * keeps its bytes after its last name went.
 */
CFS_MUST_CHECK int cfs_ns_lookup(struct cfs_ns *ns, uint64_t dir,
				 const char *name,
				 struct stat *st_out); /* looked up */
void cfs_ns_forget(struct cfs_ns *ns, uint64_t ino, uint64_t n);
/* '/'-separated from the root, symbolic links not followed; not counted. */
CFS_MUST_CHECK int cfs_ns_walk(struct cfs_ns *ns, const char *path,
			       struct stat *st_out);
/* The path of a directory, without leading '/'; appended to @out. */
CFS_MUST_CHECK int cfs_ns_path(struct cfs_ns *ns, uint64_t dir,
			       struct cfs_buf *out);
CFS_MUST_CHECK int cfs_ns_getattr(struct cfs_ns *ns, uint64_t ino,
				  struct stat *st_out);

enum { /* which members of the stat setattr takes */
	CFS_SET_MODE = 1,
	CFS_SET_UID = 2,
	CFS_SET_GID = 4,
	CFS_SET_SIZE = 8,
	CFS_SET_ATIME = 16,
	CFS_SET_MTIME = 32,
	CFS_SET_ATIME_NOW = 64,
	CFS_SET_MTIME_NOW = 128,
	CFS_SET_CTIME = 256,
};
CFS_MUST_CHECK int cfs_ns_setattr(struct cfs_ns *ns, uint64_t ino,
				  const struct stat *st, unsigned set,
				  struct stat *st_out);

/* @mode with its type: regular, FIFO, socket, device.  All: looked up. */
CFS_MUST_CHECK int cfs_ns_mknod(struct cfs_ns *ns,
				const struct cfs_ns_cred *cred, uint64_t dir,
				const char *name, mode_t mode, dev_t rdev,
				struct stat *st_out);
CFS_MUST_CHECK int cfs_ns_mkdir(struct cfs_ns *ns,
				const struct cfs_ns_cred *cred, uint64_t dir,
				const char *name, mode_t mode,
				struct stat *st_out);
CFS_MUST_CHECK int cfs_ns_symlink(struct cfs_ns *ns,
				  const struct cfs_ns_cred *cred, uint64_t dir,
				  const char *name, const char *target,
				  struct stat *st_out);
CFS_MUST_CHECK int cfs_ns_link(struct cfs_ns *ns, uint64_t ino, uint64_t dir,
			       const char *name, struct stat *st_out);
CFS_MUST_CHECK int cfs_ns_unlink(struct cfs_ns *ns, uint64_t dir,
				 const char *name);
CFS_MUST_CHECK int cfs_ns_rmdir(struct cfs_ns *ns, uint64_t dir,
				const char *name);
/* @flags: RENAME_NOREPLACE, RENAME_EXCHANGE.  A completion marker that is
 * renamed into place is durable, with all before it, when this returns. */
CFS_MUST_CHECK int cfs_ns_rename(struct cfs_ns *ns, uint64_t dir,
				 const char *name, uint64_t new_dir,
				 const char *new_name, unsigned flags);
struct cfs_ns_move {
	uint64_t dir, new_dir;
	const char *name, *new_name;
	unsigned flags; /* as of cfs_ns_rename() */
};
/*
 * Several renames as one change: whoever looks, also after a crash, finds all
 * of them or none.  No name may occur twice; one of the moves at most may be of
 * a directory, which can be exchanged with another but not put over one
 * (-EINVAL).  When a rename fails, *@which_out (if not NULL) says which, and
 * nothing happened.  Markers as with cfs_ns_rename(); where that sync fails,
 * *@which_out is @n: the moves are done, and not known to be durable.
 */
CFS_MUST_CHECK int cfs_ns_publish(struct cfs_ns *ns,
				  const struct cfs_ns_move *moves, size_t n,
				  size_t *which_out);
CFS_MUST_CHECK int cfs_ns_readlink(struct cfs_ns *ns, uint64_t ino,
				   struct cfs_buf *target_out);

/*
 * From behind @cookie (0: the first), "." and ".." included, in an order that
 * creating and removing names does not disturb.  @fn gets the cookie to go on
 * behind this name; non-zero from it stops the listing (not an error): the name
 * it refused comes again.  st: type and inode number, with @full all of it,
 * and then the inode counts as looked up if fn returns 0 ("." and ".." not).
 */
typedef int cfs_ns_dirent_fn(void *arg, const char *name, const struct stat *st,
			     uint64_t cookie);
CFS_MUST_CHECK int cfs_ns_readdir(struct cfs_ns *ns, uint64_t dir,
				  uint64_t cookie, bool full,
				  cfs_ns_dirent_fn *fn, void *arg);

/* As getxattr(2) and its kin; @size 0 asks for the length. */
ssize_t cfs_ns_getxattr(struct cfs_ns *ns, uint64_t ino, const char *name,
			void *buf, size_t size);
ssize_t cfs_ns_listxattr(struct cfs_ns *ns, uint64_t ino, char *buf,
			 size_t size);
CFS_MUST_CHECK int cfs_ns_setxattr(struct cfs_ns *ns, uint64_t ino,
				   const char *name, const void *value,
				   size_t size, int flags);
CFS_MUST_CHECK int cfs_ns_removexattr(struct cfs_ns *ns, uint64_t ino,
				      const char *name);

/* ---- files ---- */

/* @flags as open(2): O_TRUNC counts, O_APPEND is the kernel's.  Truncating a
 * small file is staged: until it is closed or synced a crash shows the old
 * content, whole. */
CFS_MUST_CHECK int cfs_ns_open_file(struct cfs_ns *ns, uint64_t ino, int flags,
				    struct cfs_ns_file **file_out);
/* Looked up and open.  -EEXIST if the name is there. */
CFS_MUST_CHECK int cfs_ns_create(struct cfs_ns *ns,
				 const struct cfs_ns_cred *cred, uint64_t dir,
				 const char *name, mode_t mode, int flags,
				 struct stat *st_out,
				 struct cfs_ns_file **file_out);
uint64_t cfs_ns_file_ino(const struct cfs_ns_file *file);
/* Short at the end only. */
ssize_t cfs_ns_pread(struct cfs_ns_file *file, void *buf, size_t len,
		     uint64_t off);
/* All of it or an error: -ENOSPC, -EDQUOT (nothing of it was taken), -EFBIG,
 * -EIO, -ENOMEM.  Blocks while too much is on its way to the log. */
ssize_t cfs_ns_pwrite(struct cfs_ns_file *file, const void *buf, size_t len,
		      uint64_t off);
/*
 * What the bytes appended next are (store/chunk/chunker.h): for who knows it
 * better than a sniffer, which no longer looks at this file.  Before they come;
 * ascending.
 */
CFS_MUST_CHECK int cfs_ns_hint(struct cfs_ns_file *file,
			       const struct cfs_region *region);
CFS_MUST_CHECK int cfs_ns_fallocate(struct cfs_ns_file *file, int mode,
				    uint64_t off, uint64_t len);
/* SEEK_HOLE, SEEK_DATA: the offset or -ENXIO. */
int64_t cfs_ns_lseek(struct cfs_ns_file *file, uint64_t off, int whence);
/* By reference; the number of bytes, short at the end of @in only. */
ssize_t cfs_ns_copy_range(struct cfs_ns_file *in, uint64_t in_off,
			  struct cfs_ns_file *out, uint64_t out_off,
			  size_t len);

/* What a file holds at this moment, kept whatever becomes of the file.  Any
 * thread; @st_out may be NULL.  Closed before the namespace. */
CFS_MUST_CHECK int cfs_ns_content_open(struct cfs_ns *ns, uint64_t ino,
				       struct cfs_ns_content **content_out,
				       struct stat *st_out);
void cfs_ns_content_close(struct cfs_ns_content *content);
void cfs_ns_content_closep(struct cfs_ns_content **content);

struct cfs_ns_part {
	uint64_t off, len;		      /* in the file that is made */
	const struct cfs_ns_content *content; /* by reference; NULL: @data */
	uint64_t content_off;
	const void *data;
};
/* Many parts at once, where copy_range would be dear, behind the end of what
 * the file has (-EINVAL); what lies between them is zeros.  -EIO: a content is
 * shorter than that.  All of it or an error. */
CFS_MUST_CHECK int cfs_ns_compose(struct cfs_ns_file *file,
				  const struct cfs_ns_part *parts, size_t n);
/* This file (and, being one log, all before it) is durable. */
CFS_MUST_CHECK int cfs_ns_fsync(struct cfs_ns_file *file);
/* close(2) of one descriptor: durable for a completion marker that was
 * written through it. */
CFS_MUST_CHECK int cfs_ns_flush(struct cfs_ns_file *file);

/* The last descriptor is gone.  Never fails; the last one of an inode seals it.
 */
void cfs_ns_close_file(struct cfs_ns_file *file);
CFS_MUST_CHECK int cfs_ns_sync(struct cfs_ns *ns);
CFS_MUST_CHECK int cfs_ns_statfs(struct cfs_ns *ns, struct statvfs *out);

/* What a file is made of, for du, stats, derive and send: extents ascending,
 * as they are in the log or will be (pending ones are waited for). */
CFS_MUST_CHECK int cfs_ns_extents(struct cfs_ns *ns, uint64_t ino,
				  int (*fn)(void *arg,
					    const struct cfs_extent *extent),
				  void *arg);

/* ---- as a source (source_ns.c) ---- */

/*
 * Views read the namespace through this.  An open file keeps the content it
 * opened whatever happens to the inode; its version never changes.  Borrows
 * @ns.
 */
CFS_MUST_CHECK int cfs_source_ns_open(struct cfs_ns *ns,
				      struct cfs_source **source_out);

#endif
