/* Names made, removed and moved. */
#include "fs/fuse/store.h"

#include <stdio.h>

#include "fs/view/view.h"
#include "store/util/log.h"

/* What was made in @dir is counted as looked up in the store; in a view's
 * directory the kernel may know it by a node instead. */
static void reply_made(fuse_req_t req, const struct cfs_target *dir,
		       const char *name, const struct stat *st)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	struct fuse_entry_param entry;
	int r;

	cfs_target_changed(mount, dir, name, false);
	if (!dir->view || !S_ISDIR(st->st_mode)) {
		cfs_store_entry(st, dir->view != NULL, &entry);
		cfs_store_reply_entry(req, &entry);
		return;
	}
	cfs_ns_forget(mount->ns, st->st_ino, 1);
	r = cfs_store_lookup_in(mount, dir->view, name, &entry);
	if (r < 0) {
		cfs_reply_result(req, r);
		return;
	}
	if (entry.ino & CFS_NODE_BIT) { /* a step may be saved in it now */
		_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *made =
			cfs_nodes_vnode(mount->nodes, entry.ino);

		cfs_vnode_wrote(made);
	}
	cfs_store_reply_entry(req, &entry);
}

/* A request that makes a name: begin, make it, end. */
struct making {
	fuse_req_t req;
	const char *name;
	struct cfs_ns *ns;
	struct cfs_ns_cred cred;
	struct cfs_target dir;
	struct stat st; /* of what was made */
};

static int begin(fuse_req_t req, fuse_ino_t dir, const char *name,
		 struct making *m)
{
	struct cfs_mount *mount = cfs_mount_of(req);

	*m = (struct making){.req = req,
			     .name = name,
			     .ns = mount->ns,
			     .cred = cfs_cred_of(req)};
	return cfs_target_dir(mount, dir, name, &m->dir);
}

/* Replies. */
static void end(struct making *m, int r)
{
	if (r < 0)
		cfs_reply_result(m->req, r);
	else
		reply_made(m->req, &m->dir, m->name, &m->st);
	cfs_target_fini(&m->dir);
}

void cfs_store_op_mknod(fuse_req_t req, fuse_ino_t dir, const char *name,
			mode_t mode, dev_t rdev)
{
	struct making m;
	int r = begin(req, dir, name, &m);

	if (!r)
		r = cfs_ns_mknod(m.ns, &m.cred, m.dir.ino, name, mode, rdev,
				 &m.st);
	end(&m, r);
}

/* A directory called as a view is would stand before the view for ever: a
 * trainer that saves to RUN/@dp32 before RUN has a step must be told. */
static int check_view_name(const char *name)
{
	struct cfs_request request = CFS_REQUEST_INIT;

	if (name[0] != '@' || cfs_view_name_parse(name + 1, &request, NULL) < 0)
		return 0;
	cfs_log(CFS_LOG_WARN,
		"%s: not made: it is the name of a view, which is there once "
		"the run has a step; save that to the run itself",
		name);
	return -EINVAL;
}

void cfs_store_op_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name,
			mode_t mode)
{
	struct making m;
	int r = begin(req, dir, name, &m);

	if (!r)
		r = check_view_name(name);
	if (!r)
		r = cfs_ns_mkdir(m.ns, &m.cred, m.dir.ino, name, mode, &m.st);
	end(&m, r);
}

void cfs_store_op_symlink(fuse_req_t req, const char *target, fuse_ino_t dir,
			  const char *name)
{
	struct making m;
	int r = begin(req, dir, name, &m);

	if (!r)
		r = cfs_ns_symlink(m.ns, &m.cred, m.dir.ino, name, target,
				   &m.st);
	end(&m, r);
}

void cfs_store_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir,
		       const char *name)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_target_fini) struct cfs_target from = CFS_TARGET_INIT;
	struct making m;
	int r = begin(req, dir, name, &m);

	if (!r)
		r = cfs_target_inode(mount, ino, &from);
	if (!r && from.view)
		r = -EPERM; /* a pointer as a view shows it, or a directory */
	if (!r)
		r = cfs_ns_link(m.ns, from.ino, m.dir.ino, name, &m.st);
	end(&m, r);
}

static void remove_name(fuse_req_t req, fuse_ino_t dir, const char *name,
			int (*remove)(struct cfs_ns *ns, uint64_t dir,
				      const char *name))
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_target_fini) struct cfs_target t = CFS_TARGET_INIT;
	int r;

	r = cfs_target_dir(mount, dir, name, &t);
	if (!r && (t.view || name[0] == '@'))
		r = cfs_target_check(mount, &t, name);
	if (!r)
		r = remove(mount->ns, t.ino, name);
	if (!r && t.view) {
		cfs_target_changed(mount, &t, name, true);
		cfs_notify_wait(mount->notify);
	}
	cfs_reply_result(req, r);
}

void cfs_store_op_unlink(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	remove_name(req, dir, name, cfs_ns_unlink);
}

void cfs_store_op_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	remove_name(req, dir, name, cfs_ns_rmdir);
}

/* ---- moving ---- */

/* May @new_name be replaced?  What is not there may. */
static int check_new(struct cfs_mount *mount, const struct cfs_target *dir,
		     const char *name)
{
	int r;

	if (!dir->view)
		return 0; /* also `@…`: a real name wins */
	r = cfs_target_check(mount, dir, name);
	return r == -ENOENT ? 0 : r;
}

static void tell_moved(struct cfs_mount *mount, const struct cfs_target *from,
		       const char *name, const struct cfs_target *to,
		       const char *new_name)
{
	cfs_target_changed(mount, from, name, true);
	cfs_target_changed(mount, to, new_name, true);
	/* Between a view's directory and the store's the kernel holds locks
	 * that the news wait for. */
	if (from->view && to->view)
		cfs_notify_wait(mount->notify);
	/* What the kernel moves into a view keeps the number that it had.  It
	 * hears of that when it is done with this request. */
	if (to->view)
		cfs_notify_entry_later(mount->notify, to->node, new_name);
	if (from->view) /* exchanged */
		cfs_notify_entry_later(mount->notify, from->node, name);
}

void cfs_store_op_rename(fuse_req_t req, fuse_ino_t dir, const char *name,
			 fuse_ino_t new_dir, const char *new_name,
			 unsigned flags)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_target_fini) struct cfs_target from = CFS_TARGET_INIT;
	_cleanup_(cfs_target_fini) struct cfs_target to = CFS_TARGET_INIT;
	int r = 0;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		r = -EINVAL;
	if (!r)
		r = cfs_target_dir(mount, dir, name, &from);
	if (!r)
		r = cfs_target_dir(mount, new_dir, new_name, &to);
	if (!r && (from.view || name[0] == '@'))
		r = cfs_target_check(mount, &from, name);
	if (!r)
		r = check_new(mount, &to, new_name);
	if (!r)
		r = cfs_ns_rename(mount->ns, from.ino, name, to.ino, new_name,
				  flags);
	if (!r && (from.view || to.view))
		tell_moved(mount, &from, name, &to, new_name);
	cfs_reply_result(req, r);
}
