/* Listing a tree of vnodes: names first, then a look-up of each. */
#include "fs/cli/files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/view/view.h"
#include "store/util/error.h"
#include "store/util/grow.h"
#include "store/util/path.h"

#define DEPTH_MAX 64

void cfs_files_names_free(struct cfs_files_names *names)
{
	size_t i;

	for (i = 0; i < names->n; i++)
		free(names->list[i]);
	free(names->list);
	*names = (struct cfs_files_names){0};
}

static int keep_name(void *arg, const char *name, const struct stat *st)
{
	struct cfs_files_names *names = arg;

	(void)st;
	if (!CFS_GROW(names->list, names->n, names->cap))
		return -ENOMEM;
	names->list[names->n] = strdup(name);
	return names->list[names->n++] ? 0 : -ENOMEM;
}

static int by_name(const void *a, const void *b)
{
	return strverscmp(*(char *const *)a, *(char *const *)b);
}

int cfs_files_names(struct cfs_vnode *dir, struct cfs_files_names *out)
{
	struct cfs_files_names names = {0};
	int r;

	r = cfs_vnode_readdir(dir, keep_name, &names);
	if (r < 0) {
		cfs_files_names_free(&names);
		return r;
	}
	if (names.n)
		qsort(names.list, names.n, sizeof(*names.list), by_name);
	*out = names;
	return 0;
}

static struct cfs_files_entry *grow(struct cfs_files *files)
{
	if (!CFS_GROW(files->entries, files->n, files->cap))
		return NULL;
	files->entries[files->n] = (struct cfs_files_entry){0};
	return &files->entries[files->n++];
}

static int list_dir(struct cfs_vnode *dir, const char *prefix, int depth,
		    struct cfs_files *out, struct cfs_error *err);

static int add_entry(struct cfs_vnode *dir, const char *prefix,
		     const char *name, int depth, struct cfs_files *out,
		     struct cfs_error *err)
{
	struct cfs_files_entry *e = grow(out);
	int r;

	if (!e)
		return -ENOMEM;
	e->path = cfs_path_join(prefix, name);
	if (!e->path)
		return -ENOMEM;
	r = cfs_vnode_lookup(dir, name, &e->node, err);
	if (r == 0)
		r = cfs_vnode_stat(e->node, &e->st, err);
	if (r < 0)
		return err && strstr(err->text, name)
			       ? r
			       : cfs_fail_prefix(err, r, "%s", e->path);
	if (!S_ISDIR(e->st.st_mode) || depth < 0)
		return 0;
	if (depth == 0)
		return cfs_fail(err, -ELOOP,
				"%s: directories in it lie too "
				"deep",
				e->path);
	/* the array moves while it grows; node and path stay where they are */
	return list_dir(e->node, e->path, depth - 1, out, err);
}

static int list_dir(struct cfs_vnode *dir, const char *prefix, int depth,
		    struct cfs_files *out, struct cfs_error *err)
{
	_cleanup_(cfs_files_names_free) struct cfs_files_names names = {0};
	size_t i;
	int r;

	r = cfs_files_names(dir, &names);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", prefix[0] ? prefix : ".");
	for (i = 0; i < names.n; i++) {
		r = add_entry(dir, prefix, names.list[i], depth, out, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int cfs_files_list(struct cfs_vnode *dir, bool deep, struct cfs_files *out,
		   struct cfs_error *err)
{
	struct cfs_files files = {0};
	int r;

	r = list_dir(dir, "", deep ? DEPTH_MAX : -1, &files, err);
	if (r < 0) {
		cfs_files_free(&files);
		return r;
	}
	*out = files;
	return 0;
}

void cfs_files_free(struct cfs_files *files)
{
	size_t i;

	for (i = 0; i < files->n; i++) {
		free(files->entries[i].path);
		cfs_vnode_unrefp(&files->entries[i].node);
	}
	free(files->entries);
	*files = (struct cfs_files){0};
}

uint64_t cfs_files_bytes(const struct cfs_files *files)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < files->n; i++)
		if (S_ISREG(files->entries[i].st.st_mode))
			sum += (uint64_t)files->entries[i].st.st_size;
	return sum;
}
