/* Paths to inodes and back. */
#include "store/ns/ns_internal.h"

#include <errno.h>

int cfs_ns_walk(struct cfs_ns *ns, const char *path, struct stat *st_out)
{
	uint64_t at = CFS_ROOT_INO;

	for (;;) {
		char name[CFS_NAME_MAX + 1];
		struct cfs_dirent_value v;
		_cleanup_(cfs_ino_putp) struct cfs_ino *d = NULL;
		size_t n;
		int r;

		path += strspn(path, "/");
		if (!*path)
			return cfs_ns_getattr(ns, at, st_out);
		n = strcspn(path, "/");
		if (n > CFS_NAME_MAX)
			return -ENAMETOOLONG;
		memcpy(name, path, n);
		name[n] = '\0';
		path += n;
		r = cfs_ino_get(ns, at, &d);
		if (r == 0 && !S_ISDIR(d->type))
			r = -ENOTDIR;
		if (r == 0)
			r = cfs_dirent_get(ns, at, name, &v);
		if (r)
			return r;
		at = v.ino;
	}
}

/* The name of @child in @dir, in front of what *@out holds. */
static int name_in(struct cfs_ns *ns, uint64_t dir, uint64_t child,
		   struct cfs_buf *out)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf path = CFS_BUF_INIT;
	struct cfs_slice k, v;
	struct cfs_key prefix;
	int r;

	cfs_key_prefix(&prefix, 'd', dir);
	r = cfs_levels_iter(ns->levels, cfs_key_slice(&prefix),
			    (struct cfs_slice){NULL, 0}, &iter);
	while (r == 0) {
		struct cfs_dirent_value value;
		const char *name;
		uint64_t number;
		size_t len;

		r = iter->ops->next(iter, &k, &v);
		if (r <= 0)
			return r < 0 ? r : -ENOENT;
		r = cfs_dirent_decode(v.data, v.len, &value);
		if (r == 0)
			r = cfs_key_parse_name(k, &number, &name, &len);
		if (r || value.ino != child)
			continue;
		cfs_buf_put(&path, name, len);
		if (out->len) {
			cfs_buf_put_str(&path, "/");
			cfs_buf_put(&path, out->data, out->len);
		}
		if (path.failed)
			return -ENOMEM;
		cfs_buf_reset(out);
		cfs_buf_put(out, path.data, path.len);
		return out->failed ? -ENOMEM : 0;
	}
	return r;
}

int cfs_ns_path(struct cfs_ns *ns, uint64_t dir, struct cfs_buf *out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf path = CFS_BUF_INIT;
	int r = 0;

	(void)pthread_rwlock_rdlock(&ns->names);
	while (r == 0 && dir != CFS_ROOT_INO) {
		_cleanup_(cfs_ino_putp) struct cfs_ino *d = NULL;

		r = cfs_ino_get(ns, dir, &d);
		if (r == 0 && !S_ISDIR(d->type))
			r = -ENOTDIR;
		if (r == 0)
			r = name_in(ns, d->parent, dir, &path);
		if (r == 0)
			dir = d->parent;
	}
	(void)pthread_rwlock_unlock(&ns->names);
	if (r < 0)
		return r;
	cfs_buf_put(out, path.data, path.len);
	return out->failed ? -ENOMEM : 0;
}
