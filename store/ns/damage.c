/*
 * Whose bytes cannot be read: the store names chunk and pack, here is the path.
 * Finding it walks all names, so it is told once a file, and of so many files
 * only: a disk that fails does not keep its readers with walks.
 */
#include "store/ns/ns_internal.h"

#include <errno.h>

#include "store/util/log.h"

/* A name of @ino, the first in the order of the keys: 1, 0: it has none. */
static int name_of(struct cfs_ns *ns, uint64_t ino, uint64_t *dir_out,
		   struct cfs_buf *name_out)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *it = NULL;
	struct cfs_dirent_value v;
	struct cfs_slice key, val;
	struct cfs_key prefix;
	const char *name;
	size_t len;
	int r;

	cfs_key_prefix(&prefix, 'd', 0);
	r = cfs_levels_iter(ns->levels, cfs_key_slice(&prefix),
			    (struct cfs_slice){NULL, 0}, &it);
	if (r < 0)
		return r;
	while ((r = it->ops->next(it, &key, &val)) > 0) {
		if (cfs_dirent_decode(val.data, val.len, &v) < 0 ||
		    v.ino != ino ||
		    cfs_key_parse_name(key, dir_out, &name, &len) < 0)
			continue;
		cfs_buf_put(name_out, name, len);
		return name_out->failed ? -ENOMEM : 1;
	}
	return r;
}

static int path_of(struct cfs_ns *ns, uint64_t ino, struct cfs_buf *out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf name = CFS_BUF_INIT;
	uint64_t dir = 0;
	int r = name_of(ns, ino, &dir, &name);

	if (r > 0)
		r = cfs_ns_path(ns, dir, out);
	else if (r == 0)
		r = -ENOENT;
	if (r < 0)
		return r;
	if (out->len)
		cfs_buf_put_str(out, "/");
	cfs_buf_put(out, name.data, name.len);
	for (size_t i = 0; i < out->len; i++)
		if (out->data[i] < ' ' || out->data[i] == 0x7f)
			out->data[i] = '?';
	return out->failed ? -ENOMEM : 0;
}

#define FILES (CFS_NS_TOLD - 1) /* behind them: that there are more */
#define MORE  UINT64_MAX	/* no inode's number */

/* Is it @ino's turn?  Relaxed: a slot is all that is shared. */
static bool is_first(struct cfs_ns *ns, uint64_t ino)
{
	for (size_t i = 0; i < FILES; i++) {
		uint64_t is = 0;

		if (atomic_compare_exchange_strong_explicit(
			    &ns->told[i], &is, ino, memory_order_relaxed,
			    memory_order_relaxed))
			return true;
		if (is == ino)
			return false;
	}
	if (atomic_exchange_explicit(&ns->told[FILES], MORE,
				     memory_order_relaxed) != MORE)
		cfs_log(CFS_LOG_ERR,
			"more files cannot be read: ckptfs scrub names them");
	return false;
}

void cfs_ns_tell_damage(struct cfs_ns *ns, uint64_t ino, int r)
{
	_cleanup_(cfs_buf_free) struct cfs_buf path = CFS_BUF_INIT;

	if ((r != -EBADMSG && r != -EIO) || !is_first(ns, ino))
		return;
	if (path_of(ns, ino, &path) == 0)
		cfs_log(CFS_LOG_ERR, "file %s cannot be read: %s",
			cfs_buf_str(&path),
			r == -EBADMSG ? "a part of it is damaged"
				      : "a part of it is missing, or the disk "
					"fails");
}
