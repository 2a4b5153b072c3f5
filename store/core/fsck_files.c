/*
 * What fsck says; and which files damage is in, by the paths the user knows:
 * chunks and maps have no names, and what refers to them are inodes.
 */
#include "store/core/fsck_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/util/grow.h"

#define FILES_MAX 100u /* told by name */
#define PATH_MOST 4096u

CFS_PRINTF(2, 0)
static void say(const struct cfs_fsck *f, const char *fmt, va_list ap)
{
	char text[PATH_MOST + 64];

	if (!f->control || !f->control->finding)
		return;
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?'; /* names may hold anything: one line */
	f->control->finding(f->control->arg, text);
}

void cfs_fsck_problem(struct cfs_fsck *f, const char *fmt, ...)
{
	va_list ap;

	if (f->content_only)
		return;
	f->result.problems++;
	va_start(ap, fmt);
	say(f, fmt, ap);
	va_end(ap);
}

void cfs_fsck_missing(struct cfs_fsck *f, const char *fmt, ...)
{
	va_list ap;

	f->result.problems++;
	f->missing++;
	va_start(ap, fmt);
	say(f, fmt, ap);
	va_end(ap);
}

static void CFS_PRINTF(2, 3)
	tell(const struct cfs_fsck *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(f, fmt, ap);
	va_end(ap);
}

void cfs_fsck_affected(struct cfs_fsck *f, uint64_t ino)
{
	struct cfs_fsck_inode *inode = cfs_fsck_inode(f, ino);

	if (!inode || inode->affected)
		return;
	inode->affected = true;
	f->affected++;
}

/* ---- paths ---- */

/* The name of @child in @dir, in front of what @path holds: 0, -ENOENT. */
static int prepend(struct cfs_fsck *f, uint64_t dir, uint64_t child,
		   struct cfs_buf *path)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *it = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf all = CFS_BUF_INIT;
	struct cfs_index *index = f->store->index;
	struct cfs_dirent_value v = {0};
	struct cfs_slice key, val;
	struct cfs_key prefix;
	const char *name;
	uint64_t number;
	size_t len;
	int r;

	cfs_key_prefix(&prefix, 'd', dir);
	r = index->ops->iter_new(index, cfs_key_slice(&prefix),
				 (struct cfs_slice){NULL, 0}, &it);
	if (r < 0)
		return r;
	while ((r = it->ops->next(it, &key, &val)) > 0)
		if (cfs_dirent_decode(val.data, val.len, &v) == 0 &&
		    v.ino == child &&
		    cfs_key_parse_name(key, &number, &name, &len) == 0)
			break;
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	cfs_buf_put(&all, name, len);
	cfs_buf_put_str(&all, "/");
	cfs_buf_put(&all, path->data, path->len);
	cfs_buf_reset(path);
	cfs_buf_put(path, all.data, all.len);
	return all.failed || path->failed ? -ENOMEM : 0;
}

static int path_of(struct cfs_fsck *f, uint64_t dir, struct cfs_buf *path)
{
	while (dir != CFS_ROOT_INO && path->len < PATH_MOST) {
		const struct cfs_fsck_inode *i = cfs_fsck_inode(f, dir);
		int r = i ? prepend(f, i->parent, dir, path) : -ENOENT;

		if (r < 0)
			return r;
		dir = i->parent;
	}
	return 0;
}

int cfs_fsck_file(struct cfs_fsck *f, uint64_t dir, const char *name,
		  size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf path = CFS_BUF_INIT;
	int r;

	if (f->result.files++ >= FILES_MAX)
		return 0;
	cfs_buf_put(&path, name, len);
	r = path_of(f, dir, &path);
	/* a name that hangs on nothing is told as it is */
	if (r < 0 && r != -ENOENT)
		return r;
	if (path.failed)
		return -ENOMEM;
	tell(f, "file %s is affected", cfs_buf_str(&path));
	return 0;
}

void cfs_fsck_files_end(struct cfs_fsck *f)
{
	if (f->result.files > FILES_MAX)
		tell(f, "and %llu more files are affected",
		     (unsigned long long)(f->result.files - FILES_MAX));
}

int cfs_fsck_bad_add(struct cfs_fsck_bad *bad, bool is_map,
		     const struct cfs_digest *digest)
{
	if (!CFS_GROW(bad->v[is_map], bad->n[is_map], bad->cap[is_map]))
		return -ENOMEM;
	bad->v[is_map][bad->n[is_map]++] = *digest;
	return 0;
}

void cfs_fsck_bad_fini(struct cfs_fsck_bad *bad)
{
	free(bad->v[0]);
	free(bad->v[1]);
}
