/* Vnodes: making them, their numbers, their attributes. */
#include "fs/view/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/format.h"
#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/path.h"

#define MADE_BIT (UINT64_C(1) << 63)

/* ---- life ---- */

struct cfs_vnode *cfs_vnode_new(struct cfs_views *views,
				enum cfs_vnode_kind kind, const char *path)
{
	struct cfs_vnode *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	node->refs = 1;
	node->kind = kind;
	node->views = views;
	node->path = strdup(path);
	if (!node->path) {
		free(node);
		return NULL;
	}
	return node;
}

struct cfs_vnode *cfs_vnode_ref(struct cfs_vnode *node)
{
	/* relaxed: who takes a reference already has one */
	__atomic_fetch_add(&node->refs, 1, __ATOMIC_RELAXED);
	return node;
}

void cfs_vnode_unref(struct cfs_vnode *node)
{
	/* acq_rel: the last one sees what the others wrote */
	if (!node || __atomic_sub_fetch(&node->refs, 1, __ATOMIC_ACQ_REL))
		return;
	cfs_tree_unref(node->tree);
	free(node->path);
	free(node->name);
	free(node->text);
	free(node);
}

void cfs_vnode_unrefp(struct cfs_vnode **node)
{
	cfs_vnode_unref(*node);
}

enum cfs_vnode_kind cfs_vnode_kind(const struct cfs_vnode *node)
{
	return node->kind;
}

const char *cfs_vnode_source_path(const struct cfs_vnode *node)
{
	return node->path;
}

uint64_t cfs_vnode_ino(const struct cfs_vnode *node)
{
	return node->ino;
}

uint64_t cfs_vnode_object(const struct cfs_vnode *node)
{
	switch (node->kind) {
	case CFS_VNODE_SOURCE:
	case CFS_VNODE_RUN_VIEW:
	case CFS_VNODE_POINTER:
		return node->src_ino;
	default:
		return 0;
	}
}

uint64_t cfs_vnode_dir_object(const struct cfs_vnode *dir)
{
	return dir->src_ino;
}

void cfs_vnode_wrote(struct cfs_vnode *dir)
{
	if (dir->kind == CFS_VNODE_SOURCE && dir->salt)
		cfs_written_note(dir->views->written, dir->src_ino, dir->salt,
				 CFS_WRITTEN_NOW);
}

int cfs_vnode_refuse(struct cfs_vnode *node, const char *name)
{
	_cleanup_(cfs_freep) char *path = NULL;

	path = cfs_path_join(node->path, name ? name : "");
	cfs_notes_say(node->views->notes, path && *path ? path : ".",
		      "made by a view, so it cannot be changed there");
	return -EROFS;
}

struct cfs_tree *cfs_vnode_tree(const struct cfs_vnode *node)
{
	return node->tree;
}

/* ---- numbers ---- */

/*
 * Directories shown through a view get numbers of their own: one directory
 * under two names would be a loop to find(1) and to the kernel's dentries.
 */
uint64_t cfs_vnode_source_ino(const struct cfs_views *views,
			      const struct stat *st, uint64_t salt)
{
	uint64_t key[3] = {st->st_dev, st->st_ino,
			   S_ISDIR(st->st_mode) ? salt : 0};
	uint64_t ino;

	if (views->writable && !S_ISDIR(st->st_mode))
		return st->st_ino;
	ino = cfs_hash64(key, sizeof(key), 0) & ~MADE_BIT;
	return ino > 1 ? ino : ino + 2; /* 0 and 1 mean something else */
}

uint64_t cfs_vnode_made_ino(uint64_t seed, const char *name)
{
	return cfs_hash64(name, strlen(name), seed) | MADE_BIT;
}

int cfs_vnode_new_source(struct cfs_views *views, const char *path,
			 const struct stat *st, uint64_t salt,
			 struct cfs_vnode **out)
{
	struct cfs_vnode *node = cfs_vnode_new(views, CFS_VNODE_SOURCE, path);

	if (!node)
		return -ENOMEM;
	node->dev = st->st_dev;
	node->src_ino = st->st_ino;
	node->salt = salt;
	node->ino = cfs_vnode_source_ino(views, st, salt);
	node->st.st_mode = st->st_mode & S_IFMT;
	if (!S_ISDIR(st->st_mode)) {
		node->st = *st;
		node->st.st_ino = node->ino;
		cfs_version_of(st, &node->version);
	}
	*out = node;
	return 0;
}

/* ---- attributes ---- */

int cfs_vnode_check(const struct cfs_vnode *node, struct stat *st_out)
{
	struct cfs_source *source = node->views->source;
	int r;

	r = source->ops->stat(source, node->path, st_out);
	if (r < 0)
		return r;
	if (node->floating)
		return 0;
	if (st_out->st_dev != node->dev || st_out->st_ino != node->src_ino ||
	    (st_out->st_mode & S_IFMT) != (node->st.st_mode & S_IFMT))
		return -ESTALE;
	return 0;
}

int cfs_vnode_stat(struct cfs_vnode *node, struct stat *st_out,
		   struct cfs_error *err)
{
	struct stat st;
	int r;

	(void)err;
	if (cfs_vnode_immutable(node)) {
		*st_out = node->st;
		return 0;
	}
	r = cfs_vnode_check(node, &st);
	if (r < 0)
		return r;
	if (node->kind != CFS_VNODE_SOURCE) {
		if (!node->views->writable || !cfs_vnode_object(node))
			st.st_mode &= ~(mode_t)0222;
		st.st_nlink = 1; /* says nothing about sub-directories */
	}
	st.st_ino = node->ino;
	*st_out = st;
	return 0;
}

bool cfs_vnode_immutable(const struct cfs_vnode *node)
{
	return !S_ISDIR(node->st.st_mode);
}

uint64_t cfs_vnode_key(const struct cfs_vnode *node)
{
	if (node->kind != CFS_VNODE_SOURCE || S_ISDIR(node->st.st_mode))
		return node->ino;
	return cfs_hash64(&node->version, sizeof(node->version), node->ino);
}

/* ---- the plan behind a vnode ---- */

int cfs_vnode_plan(const struct cfs_vnode *node, struct cfs_tree **tree_out,
		   struct cfs_error *err)
{
	struct cfs_views *views = node->views;
	struct cfs_plan plan = CFS_PLAN_INIT;
	struct stat st;
	int r;

	if (node->tree) {
		*tree_out = cfs_tree_ref(node->tree);
		return 0;
	}
	r = views->source->ops->stat(views->source, node->path, &st);
	if (r < 0)
		return r;
	r = cfs_plans_get(views->plans, node->path, &st, &node->request, &plan,
			  err);
	if (r > 0)
		return -ESTALE; /* was a step and is none any more */
	if (r < 0)
		return r;
	if (!node->floating && plan.step->identity != node->identity)
		r = cfs_fail(err, -ESTALE, "%s: changed since it was looked up",
			     node->path);
	else
		*tree_out = cfs_steal(plan.tree);
	cfs_plan_fini(&plan);
	return r;
}

int cfs_vnode_map(struct cfs_vnode *node, struct cfs_map **map_out,
		  struct cfs_error *err)
{
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	uint32_t row;
	int r;

	if (node->kind != CFS_VNODE_FILE)
		return cfs_fail(err, -EINVAL, "%s: not a file of a view",
				node->path);
	r = cfs_vnode_plan(node, &tree, err);
	if (r < 0)
		return r;
	if (!tree)
		return -ESTALE;
	r = cfs_tree_find(tree, node->name, &row);
	if (r < 0)
		return r;
	return cfs_tree_map(tree, row, map_out, err);
}

int cfs_vnode_step(struct cfs_vnode *node, struct cfs_step **step_out,
		   struct cfs_error *err)
{
	struct cfs_views *views = node->views;
	struct cfs_plan plan = CFS_PLAN_INIT;
	struct stat st;
	int r;

	if (node->kind != CFS_VNODE_SOURCE || !S_ISDIR(node->st.st_mode))
		return cfs_fail(err, -ENOTDIR, "%s: not a directory",
				node->path);
	r = cfs_vnode_check(node, &st);
	if (r < 0)
		return r;
	r = cfs_plans_get(views->plans, node->path, &st, NULL, &plan, err);
	if (r > 0)
		return cfs_fail(err, -EINVAL,
				"%s: not a step of any known format",
				*node->path ? node->path : ".");
	if (r < 0)
		return r;
	*step_out = cfs_steal(plan.step);
	return 0;
}

void cfs_vnode_suspect(struct cfs_vnode *node)
{
	cfs_plans_suspect(node->views->plans, node->path);
}

int cfs_vnode_is_run(struct cfs_vnode *node)
{
	if (node->kind == CFS_VNODE_RUN_VIEW)
		return 1;
	if (node->kind != CFS_VNODE_SOURCE || !S_ISDIR(node->st.st_mode))
		return 0;
	return cfs_view_is_run(node->views, node->path);
}

int cfs_vnode_is_step(struct cfs_vnode *node)
{
	if (node->kind == CFS_VNODE_STEP_VIEW)
		return 1;
	if (node->kind != CFS_VNODE_SOURCE || !S_ISDIR(node->st.st_mode))
		return 0;
	return cfs_view_is_step(node->views, node->path);
}
