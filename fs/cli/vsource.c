/* A source's calls, each answered by walking to a vnode. */
#include "fs/cli/vsource.h"

#include <errno.h>

#include "fs/view/view.h"
#include "store/map/source.h"
#include "store/util/error.h"
#include "store/util/log.h"

struct vsource {
	struct cfs_source base;
	struct cfs_source *under;
	struct cfs_vnode *root;
};

struct vfile {
	struct cfs_file base;
	struct cfs_vnode *node;
	struct cfs_vhandle *handle;
};

static struct vsource *vsource_of(struct cfs_source *source)
{
	return container_of(source, struct vsource, base);
}

static int find(struct cfs_source *source, const char *path,
		struct cfs_vnode **node_out)
{
	struct vsource *vs = vsource_of(source);
	struct cfs_error err = {""};
	int r;

	if (!path[0]) {
		*node_out = cfs_vnode_ref(vs->root);
		return 0;
	}
	r = cfs_vnode_walk(vs->root, path, node_out, &err);
	if (r < 0 && err.text[0] && r != -ENOENT)
		cfs_log(CFS_LOG_ERR, "%s: %s", path, err.text);
	return r;
}

static int vs_stat(struct cfs_source *source, const char *path,
		   struct stat *st_out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	int r;

	r = find(source, path, &node);
	return r < 0 ? r : cfs_vnode_stat(node, st_out, NULL);
}

static int vs_readdir(struct cfs_source *source, const char *path,
		      cfs_dirent_fn *fn, void *arg)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	int r;

	r = find(source, path, &node);
	return r < 0 ? r : cfs_vnode_readdir(node, fn, arg);
}

static int vs_readlink(struct cfs_source *source, const char *path,
		       struct cfs_buf *target_out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	int r;

	r = find(source, path, &node);
	return r < 0 ? r : cfs_vnode_readlink(node, target_out);
}

static ssize_t vs_getxattr(struct cfs_source *source, const char *path,
			   const char *name, void *buf, size_t size)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	int r;

	r = find(source, path, &node);
	return r < 0 ? r : cfs_vnode_getxattr(node, name, buf, size);
}

static ssize_t vs_listxattr(struct cfs_source *source, const char *path,
			    char *buf, size_t size)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	int r;

	r = find(source, path, &node);
	return r < 0 ? r : cfs_vnode_listxattr(node, buf, size);
}

static int vs_statfs(struct cfs_source *source, struct statvfs *out)
{
	struct cfs_source *under = vsource_of(source)->under;

	return under->ops->statfs(under, out);
}

static void vs_free(struct cfs_source *source)
{
	struct vsource *vs = vsource_of(source);

	cfs_vnode_unref(vs->root);
	free(vs);
}

static struct vfile *vfile_of(struct cfs_file *file)
{
	return container_of(file, struct vfile, base);
}

static int vf_stat(struct cfs_file *file, struct stat *st_out)
{
	return cfs_vnode_stat(vfile_of(file)->node, st_out, NULL);
}

static ssize_t vf_pread(struct cfs_file *file, void *buf, size_t len,
			uint64_t off)
{
	return cfs_vhandle_pread(vfile_of(file)->handle, buf, len, off);
}

static void vf_advise(struct cfs_file *file, uint64_t off, uint64_t len)
{
	(void)file;
	(void)off;
	(void)len;
}

static void vf_close(struct cfs_file *file)
{
	struct vfile *vf = vfile_of(file);

	cfs_vhandle_close(vf->handle);
	cfs_vnode_unref(vf->node);
	free(vf);
}

static const struct cfs_file_ops vfile_ops = {
	.stat = vf_stat,
	.pread = vf_pread,
	.advise = vf_advise,
	.close = vf_close,
};

static int vs_open(struct cfs_source *source, const char *path,
		   struct cfs_file **file_out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	_cleanup_(cfs_freep) struct vfile *vf = calloc(1, sizeof(*vf));
	struct cfs_error err = {""};
	int r;

	if (!vf)
		return -ENOMEM;
	r = find(source, path, &node);
	if (r < 0)
		return r;
	r = cfs_vnode_open(node, &vf->handle, &err);
	if (r < 0) {
		if (err.text[0])
			cfs_log(CFS_LOG_ERR, "%s: %s", path, err.text);
		return r;
	}
	vf->base.ops = &vfile_ops;
	vf->node = cfs_steal(node);
	*file_out = &cfs_steal(vf)->base;
	return 0;
}

static const struct cfs_source_ops vsource_ops = {
	.stat = vs_stat,
	.readdir = vs_readdir,
	.readlink = vs_readlink,
	.open = vs_open,
	.getxattr = vs_getxattr,
	.listxattr = vs_listxattr,
	.statfs = vs_statfs,
	.free = vs_free,
};

struct cfs_source *cfs_vsource_new(struct cfs_vnode *root,
				   struct cfs_source *under)
{
	struct vsource *vs = calloc(1, sizeof(*vs));

	if (!vs)
		return NULL;
	vs->base.ops = &vsource_ops;
	vs->under = under;
	vs->root = cfs_vnode_ref(root);
	return &vs->base;
}
