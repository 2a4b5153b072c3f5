/* Listings.  Nothing is planned for one. */
#include "fs/view/internal.h"

#include <errno.h>
#include <string.h>

#include "fs/format/format.h"
#include "store/util/buf.h"

struct listing {
	const struct cfs_vnode *dir;
	struct cfs_tree *tree; /* STEP_VIEW: what replaces the format's files */
	uint64_t dev;
	bool has_pointer;
	cfs_dirent_fn *fn;
	void *arg;
};

static bool is_replaced(const struct listing *l, const char *name)
{
	uint32_t row;

	return l->tree && (l->tree->step->format->owns(name) ||
			   !cfs_tree_find(l->tree, name, &row));
}

/* In a run's view a directory's number depends on whether it is a step. */
static bool number_known(const struct listing *l, const char *name,
			 const struct stat *st)
{
	if (l->dir->kind != CFS_VNODE_RUN_VIEW)
		return true;
	return !S_ISDIR(st->st_mode) && strcmp(name, CFS_POINTER) != 0;
}

static int list_source(void *arg, const char *name, const struct stat *st)
{
	struct listing *l = arg;
	struct stat shown = {.st_mode = st->st_mode};
	struct stat id = *st;

	if (is_replaced(l, name))
		return 0;
	if (!strcmp(name, CFS_POINTER))
		l->has_pointer = true;
	id.st_dev = l->dev;
	if (number_known(l, name, st))
		shown.st_ino =
			cfs_vnode_source_ino(l->dir->views, &id, l->dir->salt);
	return l->fn(l->arg, name, &shown);
}

static int list_tree(struct listing *l)
{
	struct stat st = {.st_mode = S_IFREG};
	uint64_t seed;
	uint32_t i;
	int r;

	seed = cfs_vnode_made_ino(l->tree->step->identity, l->dir->view);
	for (i = 0; i < l->tree->n_files; i++) {
		st.st_ino = cfs_vnode_made_ino(seed, l->tree->files[i].name);
		r = l->fn(l->arg, l->tree->files[i].name, &st);
		if (r)
			return r;
	}
	return 0;
}

int cfs_vnode_readdir(struct cfs_vnode *dir, cfs_dirent_fn *fn, void *arg)
{
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	struct cfs_source *source = dir->views->source;
	struct listing l = {.dir = dir, .fn = fn, .arg = arg};
	struct stat st;
	int r;

	if (dir->kind == CFS_VNODE_FILE || dir->kind == CFS_VNODE_POINTER)
		return -ENOTDIR;
	r = cfs_vnode_check(dir, &st);
	if (!r && dir->kind == CFS_VNODE_STEP_VIEW)
		r = cfs_vnode_plan(dir, &tree, NULL);
	if (r < 0)
		return r;
	l.tree = tree;
	l.dev = st.st_dev;
	if (tree)
		r = list_tree(&l);
	if (!r)
		r = source->ops->readdir(source, dir->path, list_source, &l);
	if (!r && dir->has_pointer && !l.has_pointer) {
		struct stat pointer = {.st_mode = S_IFREG};

		r = fn(arg, CFS_POINTER, &pointer);
	}
	return r;
}

int cfs_vnode_readlink(struct cfs_vnode *node, struct cfs_buf *out)
{
	struct cfs_source *source = node->views->source;
	struct stat st;
	int r;

	if (node->kind != CFS_VNODE_SOURCE || !S_ISLNK(node->st.st_mode))
		return -EINVAL;
	r = cfs_vnode_check(node, &st);
	if (r < 0)
		return r;
	return source->ops->readlink(source, node->path, out);
}
