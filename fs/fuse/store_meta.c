/* Names looked up, attributes read and set. */
#include "fs/fuse/store.h"

#include "store/util/buf.h"

void cfs_store_op_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct fuse_entry_param entry;
	int r = cfs_store_lookup(cfs_mount_of(req), dir, name, &entry);

	if (r < 0)
		cfs_reply_result(req, r);
	else
		cfs_store_reply_entry(req, &entry);
}

void cfs_store_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	cfs_store_forget(cfs_mount_of(req), ino, n);
	fuse_reply_none(req);
}

void cfs_store_op_forget_multi(fuse_req_t req, size_t count,
			       struct fuse_forget_data *forgets)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	size_t i;

	for (i = 0; i < count; i++)
		cfs_store_forget(mount, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/* ---- attributes ---- */

/* Of a directory in a view as the store has it, whatever became of its path;
 * of a file opened through a view's pointer: the pointer's own. */
static int stat_through(struct cfs_mount *mount, const struct cfs_target *t,
			struct stat *st_out)
{
	int r = cfs_ns_getattr(mount->ns, t->ino, st_out);

	if (!r && t->view) {
		st_out->st_ino = cfs_vnode_ino(t->view);
		if (cfs_vnode_kind(t->view) != CFS_VNODE_SOURCE)
			st_out->st_nlink = 1;
	}
	return r;
}

/* Is what the kernel calls @ino made up, to be asked of the view? */
static bool is_made(struct cfs_mount *mount, fuse_ino_t ino,
		    const struct fuse_file_info *fi)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;

	if (!cfs_is_view(mount, ino) || cfs_handle_of(fi))
		return false;
	node = cfs_nodes_vnode(mount->nodes, ino);
	return !cfs_vnode_object(node) || cfs_vnode_immutable(node);
}

void cfs_store_op_getattr(fuse_req_t req, fuse_ino_t ino,
			  struct fuse_file_info *fi)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_target_fini) struct cfs_target t = CFS_TARGET_INIT;
	struct stat st;
	int r;

	if (is_made(mount, ino, fi)) {
		cfs_op_getattr(req, ino, fi);
		return;
	}
	r = cfs_target_inode(mount, ino, &t);
	if (!r)
		r = stat_through(mount, &t, &st);
	if (r < 0)
		cfs_reply_result(req, r);
	else
		fuse_reply_attr(req, &st, t.view ? 0.0 : CFS_STORE_SECONDS);
}

static unsigned set_of(int to_set)
{
	static const struct {
		int fuse;
		unsigned ns;
	} bits[] = {
		{FUSE_SET_ATTR_MODE, CFS_SET_MODE},
		{FUSE_SET_ATTR_UID, CFS_SET_UID},
		{FUSE_SET_ATTR_GID, CFS_SET_GID},
		{FUSE_SET_ATTR_SIZE, CFS_SET_SIZE},
		{FUSE_SET_ATTR_ATIME, CFS_SET_ATIME},
		{FUSE_SET_ATTR_MTIME, CFS_SET_MTIME},
		{FUSE_SET_ATTR_ATIME_NOW, CFS_SET_ATIME_NOW},
		{FUSE_SET_ATTR_MTIME_NOW, CFS_SET_MTIME_NOW},
		{FUSE_SET_ATTR_CTIME, CFS_SET_CTIME},
	};
	unsigned set = 0;
	size_t i;

	for (i = 0; i < CFS_ARRAY_SIZE(bits); i++)
		if (to_set & bits[i].fuse)
			set |= bits[i].ns;
	/* The kernel sets both where it means "now". */
	if (set & CFS_SET_ATIME_NOW)
		set &= ~(unsigned)CFS_SET_ATIME;
	if (set & CFS_SET_MTIME_NOW)
		set &= ~(unsigned)CFS_SET_MTIME;
	return set;
}

void cfs_store_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr,
			  int to_set, struct fuse_file_info *fi)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_target_fini) struct cfs_target t = CFS_TARGET_INIT;
	struct stat st;
	int r;

	(void)fi; /* an open file is the inode it was opened by */
	r = cfs_target_inode(mount, ino, &t);
	if (!r)
		r = cfs_ns_setattr(mount->ns, t.ino, attr, set_of(to_set), &st);
	if (!r)
		r = stat_through(mount, &t, &st);
	if (!r && t.view) { /* the kernel knows it by another number, too */
		cfs_notify_inode(mount->notify, t.ino);
		cfs_notify_wait(mount->notify);
	}
	if (r < 0)
		cfs_reply_result(req, r);
	else
		fuse_reply_attr(req, &st, t.view ? 0.0 : CFS_STORE_SECONDS);
}

void cfs_store_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_buf_free) struct cfs_buf target = CFS_BUF_INIT;
	int r;

	if (cfs_is_view(mount, ino)) {
		cfs_op_readlink(req, ino);
		return;
	}
	r = cfs_ns_readlink(mount->ns, ino, &target);
	if (r < 0)
		cfs_reply_result(req, r);
	else
		fuse_reply_readlink(req, cfs_buf_str(&target));
}

void cfs_store_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;
	int r;

	(void)ino;
	r = cfs_ns_statfs(cfs_mount_of(req)->ns, &st);
	if (r < 0)
		cfs_reply_result(req, r);
	else
		fuse_reply_statfs(req, &st);
}
