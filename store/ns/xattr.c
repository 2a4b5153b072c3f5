/* Extended attributes: one key each. */
#include "store/ns/ns_internal.h"

#include <errno.h>
#include <sys/xattr.h>

#define XATTR_VALUE_MAX (64u << 10)

/* system.* is the kernel's own: an access control list that was only kept, and
 * not obeyed, would make cp think that it had set the mode. */
static bool is_ours(const char *name)
{
	static const char *const ours[] = {"user.", "trusted.", "security."};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(ours); i++)
		if (!strncmp(name, ours[i], strlen(ours[i])))
			return true;
	return false;
}

static int make_key(uint64_t ino, const char *name, struct cfs_key *key)
{
	size_t len = strlen(name);

	if (!is_ours(name))
		return -EOPNOTSUPP;
	if (len > CFS_NAME_MAX)
		return -ERANGE;
	cfs_key_xattr(key, ino, name, len);
	return 0;
}

ssize_t cfs_ns_getxattr(struct cfs_ns *ns, uint64_t ino, const char *name,
			void *buf, size_t size)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;
	int r;

	/* security.capability is asked for at every write */
	if (is_ours(name) &&
	    !atomic_load_explicit(&ns->has_xattrs, memory_order_relaxed))
		return -ENODATA;
	r = make_key(ino, name, &key);
	if (r == 0)
		r = cfs_levels_get(ns->levels, cfs_key_slice(&key), &val);
	if (r < 0)
		return r == -ENOENT ? -ENODATA : r;
	if (!size)
		return (ssize_t)val.len;
	if (val.len > size)
		return -ERANGE;
	if (val.len)
		memcpy(buf, val.data, val.len);
	return (ssize_t)val.len;
}

ssize_t cfs_ns_listxattr(struct cfs_ns *ns, uint64_t ino, char *buf,
			 size_t size)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_slice k, v;
	struct cfs_key prefix;
	size_t used = 0;
	int r;

	if (!atomic_load_explicit(&ns->has_xattrs, memory_order_relaxed))
		return 0;
	cfs_key_prefix(&prefix, 'x', ino);
	r = cfs_levels_iter(ns->levels, cfs_key_slice(&prefix),
			    (struct cfs_slice){NULL, 0}, &iter);
	while (r == 0) {
		const char *name;
		uint64_t number;
		size_t len;

		r = iter->ops->next(iter, &k, &v);
		if (r <= 0)
			return r < 0 ? r : (ssize_t)used;
		r = cfs_key_parse_name(k, &number, &name, &len);
		if (r < 0)
			return r;
		if (size && len + 1 > size - used)
			return -ERANGE;
		if (size) {
			memcpy(buf + used, name, len);
			buf[used + len] = '\0';
		}
		used += len + 1;
	}
	return r;
}

/* @value NULL: removes it.  names and lock are not held. */
static int change(struct cfs_ns *ns, struct cfs_ino *i,
		  const struct cfs_key *key, const struct cfs_slice *value,
		  int flags)
{
	_cleanup_(cfs_buf_free) struct cfs_buf old = CFS_BUF_INIT;
	int r;

	r = cfs_levels_get(ns->levels, cfs_key_slice(key), &old);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && flags & XATTR_CREATE)
		return -EEXIST;
	if (r == -ENOENT && (!value || flags & XATTR_REPLACE))
		return -ENODATA;
	if (value) {
		atomic_store_explicit(&ns->has_xattrs, true,
				      memory_order_relaxed);
		r = cfs_levels_put(ns->levels, cfs_key_slice(key), *value);
	} else {
		r = cfs_levels_del(ns->levels, cfs_key_slice(key));
	}
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&i->lock);
	i->ctime = cfs_ino_now(i);
	cfs_ino_save(i);
	(void)pthread_mutex_unlock(&i->lock);
	return 0;
}

static int change_name(struct cfs_ns *ns, uint64_t ino, const char *name,
		       const struct cfs_slice *value, int flags)
{
	struct cfs_ino *i;
	struct cfs_key key;
	int r = make_key(ino, name, &key);

	if (r < 0)
		return r;
	r = cfs_ino_get(ns, ino, &i);
	if (r < 0)
		return r;
	/* names: two that create one attribute do not both succeed */
	(void)pthread_rwlock_wrlock(&ns->names);
	cfs_store_enter(ns->store);
	r = change(ns, i, &key, value, flags);
	cfs_store_leave(ns->store);
	(void)pthread_rwlock_unlock(&ns->names);
	cfs_ino_put(i);
	return r;
}

int cfs_ns_setxattr(struct cfs_ns *ns, uint64_t ino, const char *name,
		    const void *value, size_t size, int flags)
{
	struct cfs_slice val = {value, size};
	int r;

	if (size > XATTR_VALUE_MAX)
		return -E2BIG;
	r = cfs_ns_room(ns);
	return r < 0 ? r : change_name(ns, ino, name, &val, flags);
}

int cfs_ns_removexattr(struct cfs_ns *ns, uint64_t ino, const char *name)
{
	return change_name(ns, ino, name, NULL, 0);
}
