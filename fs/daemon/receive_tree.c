/*
 * A tree as it comes in, made where nobody sees it (CFS_NSTREE_TRASH).  The
 * sender is not trusted: names stay below the top and no link is followed,
 * bytes lie inside their file, every chunk has the digest it is called by.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fs/daemon/nstree.h"
#include "fs/daemon/receive.h"
#include "store/ns/ns.h"

#define SWEPT_MAX 100

static int odd(struct cfs_receive_tree *t, const char *what)
{
	(void)cfs_fail(t->err, -EBADMSG, "the stream is damaged: %s", what);
	return -EBADMSG;
}

static void close_file(struct cfs_receive_tree *t)
{
	if (t->file)
		cfs_ns_close_file(t->file);
	t->file = NULL;
}

void cfs_receive_tree_fini(struct cfs_receive_tree *t)
{
	close_file(t);
	if (t->made &&
	    cfs_nstree_remove(t->context->ns, t->top_dir, t->top_name) < 0)
		t->made = false; /* a later sweep removes it */
	free(t->dirs);
	free(t->places);
	free(t->buffer);
	cfs_chunkset_free(&t->known);
}

/* ---- names ---- */

static int step_into(struct cfs_receive_tree *t, uint64_t dir, const char *name,
		     struct stat *st)
{
	int r = cfs_ns_lookup(t->context->ns, dir, name, st);

	if (!r)
		cfs_ns_forget(t->context->ns, st->st_ino, 1);
	return r;
}

/* The object at @path below the top. */
static int find(struct cfs_receive_tree *t, const char *path, struct stat *st)
{
	int r = step_into(t, t->top_dir, t->top_name, st);

	while (!r && *path) {
		size_t n = strcspn(path, "/");
		char name[256];

		if (n >= sizeof(name) || !S_ISDIR(st->st_mode))
			return -ENOTDIR;
		memcpy(name, path, n);
		name[n] = '\0';
		r = step_into(t, st->st_ino, name, st);
		path += n + (path[n] == '/');
	}
	return r;
}

/* Directory and name of a node that is to be made. */
static int find_parent(struct cfs_receive_tree *t, const char *path,
		       uint64_t *dir_out, const char **name_out)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	struct stat st;
	int r;

	if (!*path) {
		if (t->made)
			return odd(t, "two tops");
		r = cfs_nstree_trash(t->context->ns, &t->top_dir, t->top_name);
		if (r < 0)
			return r;
		*dir_out = t->top_dir;
		*name_out = t->top_name;
		return 0;
	}
	*name_out = slash ? slash + 1 : path;
	if (!t->made)
		return odd(t, "no top");
	if (!t->parent_ino || strlen(t->parent) != len ||
	    memcmp(t->parent, path, len) != 0) {
		memcpy(t->parent, path, len);
		t->parent[len] = '\0';
		t->parent_ino = 0;
		r = find(t, t->parent, &st);
		if (r == -ENOENT || r == -ENOTDIR ||
		    (!r && !S_ISDIR(st.st_mode)))
			return odd(t, "a name without a directory");
		if (r < 0)
			return r;
		t->parent_ino = st.st_ino;
	}
	*dir_out = t->parent_ino;
	return 0;
}

/* ---- nodes ---- */

static int make_node(struct cfs_receive_tree *t, uint64_t dir, const char *name,
		     struct stat *st)
{
	struct cfs_ns *ns = t->context->ns;
	mode_t mode = t->node.st.st_mode;

	switch (mode & S_IFMT) {
	case S_IFREG:
		return cfs_ns_create(ns, t->cred, dir, name, 0600, O_RDWR, st,
				     &t->file);
	case S_IFDIR:
		return cfs_ns_mkdir(ns, t->cred, dir, name, 0700, st);
	case S_IFLNK:
		if (!t->node.target[0])
			return -EBADMSG;
		return cfs_ns_symlink(ns, t->cred, dir, name, t->node.target,
				      st);
	case S_IFBLK:
	case S_IFCHR:
		if (!t->owners) /* not for who may not mknod */
			return -EPERM;
		return cfs_ns_mknod(ns, t->cred, dir, name,
				    (mode & S_IFMT) | 0600, t->node.st.st_rdev,
				    st);
	case S_IFIFO:
	case S_IFSOCK:
		return cfs_ns_mknod(ns, t->cred, dir, name,
				    (mode & S_IFMT) | 0600, 0, st);
	default:
		return -EBADMSG;
	}
}

int cfs_receive_node(struct cfs_receive_tree *t, const void *data, size_t len)
{
	const char *name;
	struct stat st;
	uint64_t dir;
	int r, tries = 0;

	if (t->open)
		return odd(t, "a node in a node");
	r = cfs_transfer_get_node(data, len, &t->node);
	if (r < 0)
		return odd(t, "a node");
	do {
		r = find_parent(t, t->node.path, &dir, &name);
		if (!r)
			r = make_node(t, dir, name, &st);
		/* another verb's sweep may find the place empty just now */
	} while (r == -ENOENT && !t->made && tries++ < SWEPT_MAX);
	if (r == -EBADMSG)
		return odd(t, "a node");
	if (r)
		return cfs_fail_prefix(t->err, r, "%s", t->node.path);
	cfs_ns_forget(t->context->ns, st.st_ino, 1);
	t->made = true;
	t->open = true;
	t->ino = st.st_ino;
	t->end = 0;
	return 0;
}

int cfs_receive_link(struct cfs_receive_tree *t, const void *data, size_t len)
{
	const char *name;
	struct stat st;
	uint64_t dir;
	int r;

	if (t->open || cfs_transfer_get_node(data, len, &t->node) < 0 ||
	    (t->node.target[0] && t->node.target[0] == '/'))
		return odd(t, "a link");
	r = find_parent(t, t->node.path, &dir, &name);
	if (!r)
		r = find(t, t->node.target, &st);
	if (!r && S_ISDIR(st.st_mode))
		return odd(t, "a link to a directory");
	if (!r)
		r = cfs_ns_link(t->context->ns, st.st_ino, dir, name, &st);
	if (r)
		return cfs_fail_prefix(t->err, r, "%s", t->node.path);
	cfs_ns_forget(t->context->ns, st.st_ino, 1);
	return 0;
}

int cfs_receive_xattr(struct cfs_receive_tree *t, const void *data, size_t len)
{
	const char *name = data;
	size_t n = len ? strnlen(name, len) : 0;
	int r;

	if (!t->open || !n || n > 255 || n == len)
		return odd(t, "an attribute");
	if (strncmp(name, "user.", 5) != 0 && !t->owners)
		return 0; /* not for this user to set */
	r = cfs_ns_setxattr(t->context->ns, t->ino, name, name + n + 1,
			    len - n - 1, 0);
	return r < 0 ? cfs_fail_prefix(t->err, r, "%s", t->node.path) : 0;
}

static int write_at(struct cfs_receive_tree *t, const void *data, size_t len,
		    uint64_t off)
{
	ssize_t n = cfs_ns_pwrite(t->file, data, len, off);

	if (n < 0)
		return cfs_fail_prefix(t->err, (int)n, "%s", t->node.path);
	t->bytes += len;
	return 0;
}

int cfs_receive_data(struct cfs_receive_tree *t, const void *data, size_t len)
{
	if (!t->open || !t->file || len > (uint64_t)t->node.st.st_size ||
	    t->end)
		return odd(t, "bytes outside a file");
	t->end = len;
	return len ? write_at(t, data, len, 0) : 0;
}

static int keep_dir(struct cfs_receive_tree *t)
{
	struct cfs_receive_dir *dirs;

	if (t->n_dirs == t->cap_dirs) {
		size_t cap = t->cap_dirs ? 2 * t->cap_dirs : 16;

		dirs = reallocarray(t->dirs, cap, sizeof(*dirs));
		if (!dirs)
			return -ENOMEM;
		t->dirs = dirs;
		t->cap_dirs = cap;
	}
	t->dirs[t->n_dirs++] = (struct cfs_receive_dir){t->ino, t->node.st};
	return 0;
}

static int set_attributes(struct cfs_receive_tree *t, uint64_t ino,
			  const struct stat *from, bool size)
{
	unsigned set =
		CFS_SET_UID | CFS_SET_GID | CFS_SET_ATIME | CFS_SET_MTIME;
	struct stat st = *from, out;

	if (!t->owners) {
		st.st_uid = t->cred->uid;
		st.st_gid = t->cred->gid;
	}
	if (!S_ISLNK(st.st_mode))
		set |= CFS_SET_MODE;
	if (size)
		set |= CFS_SET_SIZE;
	return cfs_ns_setattr(t->context->ns, ino, &st, set, &out);
}

int cfs_receive_node_end(struct cfs_receive_tree *t)
{
	bool regular = t->file != NULL;
	int r;

	if (!t->open)
		return odd(t, "the end of no node");
	if (S_ISDIR(t->node.st.st_mode))
		r = keep_dir(t);
	else
		r = set_attributes(
			t, t->ino, &t->node.st,
			regular && t->end < (uint64_t)t->node.st.st_size);
	close_file(t);
	t->files += regular;
	t->open = false;
	return r < 0 ? cfs_fail_prefix(t->err, r, "%s", t->node.path) : 0;
}

int cfs_receive_finish(struct cfs_receive_tree *t)
{
	int r = 0;

	if (!t->made || t->open)
		return odd(t, "it ends too early");
	while (!r && t->n_dirs) {
		const struct cfs_receive_dir *dir = &t->dirs[--t->n_dirs];

		r = set_attributes(t, dir->ino, &dir->st, false);
	}
	return r;
}
