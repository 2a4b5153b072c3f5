/* Names and attributes. */
#include "fs/fuse/internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/buf.h"
#include "store/util/error.h"

static double attr_seconds(const struct cfs_vnode *node)
{
	return cfs_vnode_immutable(node) ? CFS_FILE_ATTR_SECONDS
					 : CFS_DIR_ATTR_SECONDS;
}

int cfs_mount_lookup(struct cfs_mount *mount, struct cfs_vnode *dir,
		     const char *name, struct fuse_entry_param *out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *child = NULL;
	struct fuse_entry_param entry = {.entry_timeout = CFS_NAME_SECONDS};
	uint64_t number = 0, generation = 0;
	int r;

	if (mount->lookup_in)
		return mount->lookup_in(mount, dir, name, out);
	r = cfs_vnode_lookup(dir, name, &child, NULL);
	if (!r)
		r = cfs_vnode_stat(child, &entry.attr, NULL);
	if (!r)
		r = cfs_nodes_add(mount->nodes, child, &number, &generation);
	if (r < 0)
		return r;
	entry.ino = number;
	entry.generation = generation;
	entry.attr_timeout = attr_seconds(child);
	*out = entry;
	return 0;
}

void cfs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *dir =
		cfs_req_vnode(req, parent);
	struct cfs_mount *mount = cfs_mount_of(req);
	struct fuse_entry_param entry;
	int r;

	r = cfs_mount_lookup(mount, dir, name, &entry);
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (fuse_reply_entry(req, &entry) == -ENOENT)
		cfs_nodes_forget(mount->nodes, entry.ino, 1); /* interrupted */
}

void cfs_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	cfs_nodes_forget(cfs_mount_of(req)->nodes, ino, n);
	fuse_reply_none(req);
}

void cfs_op_forget_multi(fuse_req_t req, size_t count,
			 struct fuse_forget_data *forgets)
{
	struct cfs_nodes *nodes = cfs_mount_of(req)->nodes;
	size_t i;

	for (i = 0; i < count; i++)
		cfs_nodes_forget(nodes, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

void cfs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		cfs_req_vnode(req, ino);
	struct stat st;
	int r;

	(void)fi;
	r = cfs_vnode_stat(node, &st, NULL);
	if (r < 0)
		fuse_reply_err(req, -r);
	else /* the root is never looked up, so it is always asked */
		fuse_reply_attr(req, &st,
				ino == FUSE_ROOT_ID ? 0.0 : attr_seconds(node));
}

void cfs_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		cfs_req_vnode(req, ino);
	_cleanup_(cfs_buf_free) struct cfs_buf target = CFS_BUF_INIT;
	int r;

	r = cfs_vnode_readlink(node, &target);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_readlink(req, cfs_buf_str(&target));
}

void cfs_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct cfs_source *source = cfs_views_source(cfs_mount_of(req)->views);
	struct statvfs st;
	int r;

	(void)ino;
	r = source->ops->statfs(source, &st);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_statfs(req, &st);
}
