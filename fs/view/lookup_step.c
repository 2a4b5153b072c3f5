/* Looking names up in a step's view: made files and directories, and what lies
 * beside them in the source. */
#include "fs/view/internal.h"

#include <errno.h>
#include <string.h>

#include "fs/format/format.h"
#include "store/util/error.h"
#include "store/util/path.h"

static int new_file(struct cfs_vnode *dir, struct cfs_tree *tree, uint32_t row,
		    struct cfs_vnode **out, struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	const struct cfs_tree_file *file = &tree->files[row];
	const struct cfs_step *step = tree->step;
	struct stat *st;
	uint64_t size;
	int r;

	r = cfs_tree_size(tree, row, &size, err);
	if (r < 0)
		return r;
	node = cfs_vnode_new(dir->views, CFS_VNODE_FILE, dir->path);
	if (!node)
		return -ENOMEM;
	node->name = strdup(file->name);
	if (!node->name)
		return -ENOMEM;
	node->request = dir->request;
	memcpy(node->view, dir->view, sizeof(node->view));
	node->identity = step->identity;
	node->ino = cfs_vnode_made_ino(
		cfs_vnode_made_ino(step->identity, node->view), node->name);
	if (!dir->views->forget_trees)
		node->tree = cfs_tree_ref(tree);
	st = &node->st;
	st->st_ino = node->ino;
	st->st_mode = S_IFREG | (file->mode & step->mode & 0444);
	st->st_nlink = 1;
	st->st_uid = step->uid;
	st->st_gid = step->gid;
	st->st_size = (off_t)size;
	st->st_blksize = 1 << 20;
	st->st_blocks = (st->st_size + 511) / 512;
	st->st_mtim.tv_sec = step->mtime_ns / 1000000000;
	st->st_mtim.tv_nsec = step->mtime_ns % 1000000000;
	st->st_atim = st->st_ctim = st->st_mtim;
	*out = cfs_steal(node);
	return 0;
}

/* A directory that the names of a tree's files make: @name is the whole. */
static int new_made_dir(struct cfs_vnode *dir, struct cfs_tree *tree,
			const char *name, struct cfs_vnode **out)
{
	struct cfs_vnode *node =
		cfs_vnode_new(dir->views, CFS_VNODE_STEP_VIEW, dir->path);
	const char *slash = strrchr(name, '/');

	if (!node)
		return -ENOMEM;
	node->name = strdup(name);
	if (!node->name) {
		cfs_vnode_unref(node);
		return -ENOMEM;
	}
	node->request = dir->request;
	memcpy(node->view, dir->view, sizeof(node->view));
	node->dev = dir->dev;
	node->src_ino = dir->src_ino;
	node->st.st_mode = S_IFDIR;
	node->identity = tree->step->identity;
	node->ino = cfs_vnode_made_ino(dir->ino, slash ? slash + 1 : name);
	node->salt = node->ino;
	node->floating = dir->floating;
	if (!dir->views->forget_trees)
		node->tree = cfs_tree_ref(tree);
	*out = node;
	return 0;
}

/* -ENOENT: no file of the tree is called that, or lies below it. */
static int lookup_in_tree(struct cfs_vnode *dir, struct cfs_tree *tree,
			  const char *name, struct cfs_vnode **out,
			  struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *full =
		cfs_path_join(dir->name ? dir->name : "", name);
	uint32_t row;
	int r;

	if (!full)
		return -ENOMEM;
	if (!cfs_tree_find(tree, full, &row)) {
		r = new_file(dir, tree, row, out, err);
		/* Found out while building: the next look-up is to know. */
		if (r == -ESTALE || r == -ENOENT)
			cfs_plans_suspect(dir->views->plans, dir->path);
		return r;
	}
	row = cfs_tree_below(tree, full);
	return row == tree->n_files ? -ENOENT
				    : new_made_dir(dir, tree, full, out);
}

int cfs_view_lookup_in_step(struct cfs_vnode *dir, const char *name,
			    struct cfs_vnode **out, struct cfs_error *err)
{
	struct cfs_source *source = dir->views->source;
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	_cleanup_(cfs_freep) char *path = NULL;
	struct stat st;
	int r;

	r = cfs_vnode_check(dir, &st);
	if (!r)
		r = cfs_vnode_plan(dir, &tree, err);
	if (r < 0)
		return r;
	r = tree ? lookup_in_tree(dir, tree, name, out, err) : -ENOENT;
	if (r != -ENOENT || dir->name)
		return r;
	if (tree && tree->step->format->owns(name))
		return -ENOENT; /* a file of the layout as saved */
	path = cfs_path_join(dir->path, name);
	if (!path)
		return -ENOMEM;
	r = source->ops->stat(source, path, &st);
	if (!r)
		return cfs_vnode_new_source(dir->views, path, &st, dir->salt,
					    out);
	if (r == -ENOENT && dir->has_pointer &&
	    (!strcmp(name, CFS_POINTER) || cfs_pointer_is_universal(dir, name)))
		return cfs_pointer_inside(dir, out);
	if (r == -ENOENT && name[0] == '@')
		return cfs_view_refuse_nested(name, err);
	return r;
}
