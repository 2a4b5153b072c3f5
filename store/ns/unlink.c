/* Taking names away. */
#include "store/ns/ns_internal.h"

#include <errno.h>

/* names held; @is_dir: rmdir. */
static int remove_name(struct cfs_ns *ns, uint64_t dir, const char *name,
		       bool is_dir, struct cfs_ino *d, struct cfs_ino **i_out)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch b = CFS_BATCH_INIT;
	struct cfs_dirent_value v;
	struct cfs_ino *i;
	int r = cfs_dirent_get(ns, dir, name, &v);

	if (r < 0)
		return r;
	r = cfs_ino_get(ns, v.ino, &i);
	if (r < 0)
		return r;
	*i_out = i;
	if (is_dir && !S_ISDIR(i->type))
		return -ENOTDIR;
	if (!is_dir && S_ISDIR(i->type))
		return -EISDIR;
	if (is_dir)
		r = cfs_dir_empty(ns, v.ino);
	if (r < 0)
		return r;
	r = cfs_dirent_del(&b, dir, name, v.cookie);
	if (r < 0)
		return r;
	cfs_ino_unlink(i, &b);
	cfs_store_enter(ns->store);
	/* what was there instead of it must not go first */
	cfs_ns_points(ns);
	r = cfs_levels_apply(ns->levels, &b);
	if (r == 0) {
		cfs_ino_unlinked(i);
		cfs_dir_changed(d, is_dir ? -1 : 0);
	}
	cfs_store_leave(ns->store);
	return r;
}

static int unlink_any(struct cfs_ns *ns, uint64_t dir, const char *name,
		      bool is_dir)
{
	struct cfs_ino *d = NULL, *i = NULL;
	int r;

	(void)pthread_rwlock_wrlock(&ns->names);
	r = cfs_dir_get(ns, dir, &d);
	if (r == 0)
		r = remove_name(ns, dir, name, is_dir, d, &i);
	(void)pthread_rwlock_unlock(&ns->names);
	cfs_ino_put(i);
	cfs_ino_put(d);
	return r;
}

int cfs_ns_unlink(struct cfs_ns *ns, uint64_t dir, const char *name)
{
	return unlink_any(ns, dir, name, false);
}

int cfs_ns_rmdir(struct cfs_ns *ns, uint64_t dir, const char *name)
{
	if (!strcmp(name, "."))
		return -EINVAL;
	if (!strcmp(name, ".."))
		return -ENOTEMPTY;
	return unlink_any(ns, dir, name, true);
}
