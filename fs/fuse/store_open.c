/* Files opened, synced, closed. */
#include "fs/fuse/store.h"

#include <fcntl.h>

static bool writes(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

/*
 * Streams of large writes go past the page cache (several times as fast), which
 * nobody can map.  All else is cached, and stays so: what changes a file's
 * bytes goes through this kernel.
 */
static void say_how(const struct cfs_mount *mount, struct fuse_file_info *fi)
{
	fi->direct_io = mount->direct_io || (fi->flags & O_ACCMODE) == O_WRONLY;
	fi->keep_cache = 1;
	fi->noflush = !writes(fi->flags);
}

/* Takes @file over. */
static int wrap(struct cfs_mount *mount, struct cfs_ns_file *file,
		struct fuse_file_info *fi)
{
	struct cfs_handle *handle = cfs_handles_add(mount->handles, file);

	if (!handle)
		return -ENOMEM;
	fi->fh = cfs_handle_put(handle);
	say_how(mount, fi);
	return 0;
}

/* ---- creating ---- */

/* Somebody else made it since the kernel looked. */
static int open_existing(struct cfs_mount *mount, uint64_t dir,
			 const char *name, int flags, struct stat *st,
			 struct cfs_ns_file **file_out)
{
	int r = cfs_ns_lookup(mount->ns, dir, name, st);

	if (r < 0)
		return r;
	r = S_ISREG(st->st_mode)
		    ? cfs_ns_open_file(mount->ns, st->st_ino, flags, file_out)
		    : -ESTALE; /* upon which the kernel looks again */
	if (r < 0)
		cfs_ns_forget(mount->ns, st->st_ino, 1);
	return r;
}

void cfs_store_op_create(fuse_req_t req, fuse_ino_t dir, const char *name,
			 mode_t mode, struct fuse_file_info *fi)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	struct cfs_ns_cred cred = cfs_cred_of(req);
	_cleanup_(cfs_target_fini) struct cfs_target t = CFS_TARGET_INIT;
	struct fuse_entry_param entry;
	struct cfs_ns_file *file = NULL;
	struct stat st = {.st_ino = 0};
	int r;

	r = cfs_target_dir(mount, dir, name, &t);
	if (!r)
		r = cfs_ns_create(mount->ns, &cred, t.ino, name, mode,
				  fi->flags, &st, &file);
	if (r == -EEXIST && !(fi->flags & O_EXCL))
		r = open_existing(mount, t.ino, name, fi->flags, &st, &file);
	if (!r) {
		r = wrap(mount, file, fi);
		if (r < 0)
			cfs_ns_forget(mount->ns, st.st_ino, 1);
	}
	if (r < 0) {
		cfs_reply_result(req, r);
		return;
	}
	cfs_target_changed(mount, &t, name, false);
	cfs_store_entry(&st, t.view != NULL, &entry);
	if (fuse_reply_create(req, &entry, fi) == -ENOENT) { /* interrupted */
		cfs_handles_close(mount->handles, cfs_handle_of(fi));
		cfs_ns_forget(mount->ns, st.st_ino, 1);
	}
}

/* ---- opening ---- */

static void open_inode(fuse_req_t req, const struct cfs_target *t,
		       struct fuse_file_info *fi)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	struct cfs_ns_file *file;
	int r;

	r = cfs_ns_open_file(mount->ns, t->ino, fi->flags, &file);
	if (t->view && r == -ENOENT)
		r = -ESTALE; /* replaced: the kernel looks again */
	if (!r)
		r = wrap(mount, file, fi);
	if (r < 0) {
		cfs_reply_result(req, r);
		return;
	}
	if (t->view) {
		cfs_handle_of(fi)->foreign = true;
		cfs_handle_of(fi)->append = fi->flags & O_APPEND;
		fi->direct_io = 1; /* its pages are another text's */
		if (fi->flags & O_TRUNC)
			cfs_notify_inode(mount->notify, t->ino);
	}
	if (fuse_reply_open(req, fi) == -ENOENT) /* interrupted */
		cfs_handles_close(mount->handles, cfs_handle_of(fi));
}

void cfs_store_op_open(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_target_fini) struct cfs_target t = CFS_TARGET_INIT;
	int r;

	if (cfs_is_view(mount, ino) && !writes(fi->flags)) {
		cfs_op_open(req, ino, fi);
		return;
	}
	r = cfs_target_inode(mount, ino, &t); /* a pointer may be written */
	if (r < 0)
		cfs_reply_result(req, r);
	else
		open_inode(req, &t, fi);
}

/* ---- closing ---- */

/* What was written under a view's number is another file's pages, too. */
static void tell_foreign(struct cfs_mount *mount, const struct cfs_handle *h)
{
	if (!h->foreign)
		return;
	cfs_notify_inode(mount->notify, cfs_ns_file_ino(h->file));
	cfs_notify_wait(mount->notify);
}

void cfs_store_op_flush(fuse_req_t req, fuse_ino_t ino,
			struct fuse_file_info *fi)
{
	struct cfs_handle *handle = cfs_handle_of(fi);
	int r = 0;

	(void)ino;
	if (handle) {
		r = cfs_ns_flush(handle->file);
		tell_foreign(cfs_mount_of(req), handle);
	}
	cfs_reply_result(req, r);
}

void cfs_store_op_release(fuse_req_t req, fuse_ino_t ino,
			  struct fuse_file_info *fi)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	struct cfs_handle *handle = cfs_handle_of(fi);

	if (!handle) {
		cfs_op_release(req, ino, fi);
		return;
	}
	if (handle->foreign)
		cfs_notify_inode(mount->notify, cfs_ns_file_ino(handle->file));
	cfs_handles_close(mount->handles, handle);
	fuse_reply_err(req, 0);
}

void cfs_store_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
			struct fuse_file_info *fi)
{
	struct cfs_handle *handle = cfs_handle_of(fi);

	(void)ino;
	(void)datasync; /* one log: there is nothing to leave out */
	cfs_reply_result(req, handle ? cfs_ns_fsync(handle->file) : 0);
}
