/* Which inode or view a number means, and what a name in it does. */
#include "fs/fuse/store.h"

#include <string.h>

#include "store/util/buf.h"
#include "store/util/log.h"

/* ---- looking up ---- */

void cfs_store_entry(const struct stat *st, bool in_view,
		     struct fuse_entry_param *out)
{
	*out = (struct fuse_entry_param){
		.ino = st->st_ino,
		.generation = 1, /* inode numbers are never used again */
		.attr = *st,
		.attr_timeout = CFS_STORE_SECONDS,
		.entry_timeout = in_view ? 0.0 : CFS_STORE_SECONDS,
	};
}

static int add_node(struct cfs_mount *mount, struct cfs_vnode *vnode,
		    struct fuse_entry_param *out)
{
	struct fuse_entry_param entry = {.entry_timeout = 0.0};
	uint64_t number = 0;
	int r;

	r = cfs_vnode_stat(vnode, &entry.attr, NULL);
	if (!r)
		r = cfs_nodes_add(mount->nodes, vnode, &number,
				  &entry.generation);
	if (r < 0)
		return r;
	entry.ino = number;
	entry.attr_timeout = cfs_vnode_immutable(vnode) ? CFS_FILE_ATTR_SECONDS
							: CFS_DIR_ATTR_SECONDS;
	*out = entry;
	return 0;
}

int cfs_store_lookup_in(struct cfs_mount *mount, struct cfs_vnode *dir,
			const char *name, struct fuse_entry_param *out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *child = NULL;
	struct stat st = {.st_ino = 0}, child_st;
	int r;

	r = cfs_vnode_lookup(dir, name, &child, NULL);
	if (r < 0)
		return r;
	if (cfs_vnode_kind(child) != CFS_VNODE_SOURCE ||
	    !cfs_vnode_immutable(child))
		return add_node(mount, child, out);
	/* The very file: under its number, with its pages. */
	r = cfs_vnode_stat(child, &child_st, NULL);
	if (!r)
		r = cfs_ns_lookup(mount->ns, cfs_vnode_dir_object(dir), name,
				  &st);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (S_ISDIR(st.st_mode)) { /* replaced just now */
		cfs_ns_forget(mount->ns, st.st_ino, 1);
		return -ESTALE;
	}
	cfs_store_entry(&st, true, out);
	return 0;
}

/* `@…` behind a directory of the store. */
static int lookup_view(struct cfs_mount *mount, fuse_ino_t dir,
		       const char *name, struct fuse_entry_param *out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf path = CFS_BUF_INIT;
	int r;

	r = cfs_ns_path(mount->ns, dir, &path);
	if (!r)
		r = cfs_views_at(mount->views, cfs_buf_str(&path), &node);
	if (r < 0)
		return r;
	return cfs_store_lookup_in(mount, node, name, out);
}

int cfs_store_lookup(struct cfs_mount *mount, fuse_ino_t dir, const char *name,
		     struct fuse_entry_param *out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	struct stat st;
	int r;

	if (cfs_is_view(mount, dir)) {
		node = cfs_nodes_vnode(mount->nodes, dir);
		return cfs_store_lookup_in(mount, node, name, out);
	}
	r = cfs_ns_lookup(mount->ns, dir, name, &st);
	if (!r)
		cfs_store_entry(&st, false, out);
	else if (r == -ENOENT && name[0] == '@')
		r = lookup_view(mount, dir, name, out);
	return r;
}

void cfs_store_forget(struct cfs_mount *mount, uint64_t number, uint64_t n)
{
	if (cfs_is_view(mount, number))
		cfs_nodes_forget(mount->nodes, number, n);
	else if (number != FUSE_ROOT_ID)
		cfs_ns_forget(mount->ns, number, n);
}

void cfs_store_reply_entry(fuse_req_t req, const struct fuse_entry_param *e)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	uint64_t number = e->ino;

	if (fuse_reply_entry(req, e) == -ENOENT)
		cfs_store_forget(mount, number, 1); /* interrupted */
}

/* ---- changing ---- */

int cfs_target_dir(struct cfs_mount *mount, fuse_ino_t ino, const char *name,
		   struct cfs_target *out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;

	*out = (struct cfs_target){.ino = ino, .node = ino};
	if (!cfs_is_view(mount, ino))
		return 0;
	node = cfs_nodes_vnode(mount->nodes, ino);
	if (cfs_vnode_immutable(node))
		return -ENOTDIR;
	out->ino = cfs_vnode_object(node);
	if (!out->ino)
		return cfs_vnode_refuse(node, name);
	out->view = cfs_steal(node);
	return 0;
}

int cfs_target_inode(struct cfs_mount *mount, fuse_ino_t ino,
		     struct cfs_target *out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;

	*out = (struct cfs_target){.ino = ino, .node = ino};
	if (!cfs_is_view(mount, ino))
		return 0;
	node = cfs_nodes_vnode(mount->nodes, ino);
	out->ino = cfs_vnode_object(node);
	if (!out->ino)
		return cfs_vnode_refuse(node, NULL);
	out->view = cfs_steal(node);
	return 0;
}

void cfs_target_fini(struct cfs_target *target)
{
	cfs_vnode_unref(target->view);
}

int cfs_target_check(struct cfs_mount *mount, const struct cfs_target *dir,
		     const char *name)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *child = NULL;
	struct stat st;
	int r;

	r = cfs_ns_lookup(mount->ns, dir->ino, name, &st);
	if (r == -ENOENT && name[0] == '@') {
		cfs_log(CFS_LOG_WARN,
			"%s: a view, so it cannot be removed or renamed", name);
		return -EPERM;
	}
	if (r < 0)
		return r;
	cfs_ns_forget(mount->ns, st.st_ino, 1);
	if (!dir->view || !S_ISDIR(st.st_mode))
		return 0;
	r = cfs_vnode_lookup(dir->view, name, &child, NULL);
	if (!r && cfs_vnode_kind(child) != CFS_VNODE_SOURCE)
		r = cfs_vnode_refuse(dir->view, name);
	return r;
}

void cfs_target_changed(struct cfs_mount *mount, const struct cfs_target *dir,
			const char *name, bool gone)
{
	if (!dir->view)
		return; /* views ask each time */
	cfs_vnode_wrote(dir->view);
	if (gone)
		cfs_notify_entry(mount->notify, dir->ino, name);
	cfs_notify_attr(mount->notify, dir->ino);
}
