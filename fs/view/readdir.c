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
	bool has_pointer, has_universal;
	cfs_dirent_fn *fn;
	void *arg;
};

static bool is_replaced(const struct listing *l, const char *name)
{
	uint32_t row;

	return l->tree && (l->tree->step->format->owns(name) ||
			   !cfs_tree_find(l->tree, name, &row) ||
			   cfs_tree_below(l->tree, name) < l->tree->n_files);
}

/* In a run's view a directory's number depends on whether it is a step. */
static bool number_known(const struct listing *l, const char *name,
			 const struct stat *st)
{
	if (l->dir->kind != CFS_VNODE_RUN_VIEW)
		return true;
	return !S_ISDIR(st->st_mode) && strcmp(name, CFS_POINTER) != 0 &&
	       !cfs_pointer_is_universal(l->dir, name);
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
	if (!strcmp(name, CFS_POINTER_UNIVERSAL))
		l->has_universal = true;
	id.st_dev = l->dev;
	if (number_known(l, name, st))
		shown.st_ino =
			cfs_vnode_source_ino(l->dir->views, &id, l->dir->salt);
	return l->fn(l->arg, name, &shown);
}

/* What lies below a directory of the tree is listed as one entry. */
static int list_below(const struct listing *l, const char *name, size_t len)
{
	struct stat st = {.st_mode = S_IFDIR};
	_cleanup_(cfs_freep) char *part = strndup(name, len);

	if (!part)
		return -ENOMEM;
	st.st_ino = cfs_vnode_made_ino(l->dir->ino, part);
	return l->fn(l->arg, part, &st);
}

static int list_tree(struct listing *l)
{
	const char *prefix = l->dir->name ? l->dir->name : "";
	size_t skip = *prefix ? strlen(prefix) + 1 : 0;
	uint32_t i = *prefix ? cfs_tree_below(l->tree, prefix) : 0;
	const char *last = "";
	size_t last_len = 0;
	uint64_t seed;
	int r = 0;

	seed = cfs_vnode_made_ino(l->tree->step->identity, l->dir->view);
	for (; !r && i < l->tree->n_files; i++) {
		const char *full = l->tree->files[i].name;
		const char *name = full + skip, *slash;
		struct stat st = {.st_mode = S_IFREG};

		if (skip &&
		    (strncmp(full, prefix, skip - 1) || full[skip - 1] != '/'))
			break;
		slash = strchr(name, '/');
		if (!slash) {
			st.st_ino = cfs_vnode_made_ino(seed, full);
			r = l->fn(l->arg, name, &st);
		} else if ((size_t)(slash - name) != last_len ||
			   strncmp(name, last, last_len)) {
			last = name;
			last_len = (size_t)(slash - name);
			r = list_below(l, name, last_len);
		}
	}
	return r;
}

/* Those that are not in the source. */
static int list_pointers(const struct listing *l)
{
	bool run = l->dir->kind == CFS_VNODE_RUN_VIEW;
	struct stat st = {.st_mode = S_IFREG};
	int r = 0;

	if (!l->has_pointer &&
	    (l->dir->has_pointer || (run && l->has_universal)))
		r = l->fn(l->arg, CFS_POINTER, &st);
	if (!r && !l->has_universal && l->dir->request.universal > 0 &&
	    (run ? l->has_pointer : l->dir->has_pointer))
		r = l->fn(l->arg, CFS_POINTER_UNIVERSAL, &st);
	return r;
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
	if (!r && !dir->name)
		r = source->ops->readdir(source, dir->path, list_source, &l);
	return r ? r : list_pointers(&l);
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
