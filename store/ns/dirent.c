/* Names: entries of directories and their cookies. */
#include "store/ns/ns_internal.h"

#include <dirent.h>
#include <errno.h>

#include "store/util/endian.h"
#include "store/util/log.h"

int cfs_name_check(const char *name, size_t *len_out)
{
	size_t len = strlen(name);

	if (!len)
		return -ENOENT;
	if (len > CFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (memchr(name, '/', len))
		return -EINVAL;
	*len_out = len;
	return 0;
}

int cfs_dirent_get(struct cfs_ns *ns, uint64_t dir, const char *name,
		   struct cfs_dirent_value *out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;
	size_t len;
	int r = cfs_name_check(name, &len);

	if (r < 0)
		return r;
	cfs_key_dirent(&key, dir, name, len);
	r = cfs_levels_get(ns->levels, cfs_key_slice(&key), &val);
	if (r < 0)
		return r;
	r = cfs_dirent_decode(val.data, val.len, out);
	if (r < 0)
		return cfs_log_err(r, "entry '%s' of directory %llu", name,
				   (unsigned long long)dir);
	return 0;
}

int cfs_dirent_add(struct cfs_ns *ns, struct cfs_batch *batch, uint64_t dir,
		   const char *name, uint64_t ino, mode_t mode)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_dirent_value v = {.ino = ino, .type = (uint8_t)IFTODT(mode)};
	struct cfs_key key;
	size_t len;
	int r = cfs_name_check(name, &len);

	if (r == 0)
		r = cfs_ns_new_cookie(ns, &v.cookie);
	if (r < 0)
		return r;
	cfs_absent_drop(ns, dir, name);
	cfs_dirent_encode(&v, &val);
	if (val.failed)
		return -ENOMEM;
	cfs_key_cookie(&key, dir, v.cookie);
	cfs_batch_put(batch, cfs_key_slice(&key),
		      (struct cfs_slice){name, len});
	cfs_key_dirent(&key, dir, name, len);
	cfs_batch_put(batch, cfs_key_slice(&key),
		      (struct cfs_slice){val.data, val.len});
	return 0;
}

int cfs_dirent_del(struct cfs_batch *batch, uint64_t dir, const char *name,
		   uint64_t cookie)
{
	struct cfs_key key;
	size_t len;
	int r = cfs_name_check(name, &len);

	if (r < 0)
		return r;
	cfs_key_dirent(&key, dir, name, len);
	cfs_batch_del(batch, cfs_key_slice(&key));
	cfs_key_cookie(&key, dir, cookie);
	cfs_batch_del(batch, cfs_key_slice(&key));
	return 0;
}

int cfs_dir_empty(struct cfs_ns *ns, uint64_t dir)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_slice k, v;
	struct cfs_key prefix;
	int r;

	cfs_key_prefix(&prefix, 'd', dir);
	r = cfs_levels_iter(ns->levels, cfs_key_slice(&prefix),
			    (struct cfs_slice){NULL, 0}, &iter);
	if (r < 0)
		return r;
	r = iter->ops->next(iter, &k, &v);
	return r > 0 ? -ENOTEMPTY : r;
}

int cfs_dir_get(struct cfs_ns *ns, uint64_t dir, struct cfs_ino **out)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *d = NULL;
	int r = cfs_ino_get(ns, dir, &d);

	if (r < 0)
		return r;
	if (!S_ISDIR(d->type))
		return -ENOTDIR;
	if (!d->nlink)
		return -ENOENT; /* removed, still known */
	*out = cfs_steal(d);
	return 0;
}

void cfs_dir_changed(struct cfs_ino *dir, int links)
{
	(void)pthread_mutex_lock(&dir->lock);
	dir->nlink += (uint32_t)links;
	dir->ctime = cfs_ino_now(dir);
	dir->cur.mtime = dir->ctime;
	dir->meta_dirty = true; /* many names, one record a group */
	cfs_ino_mark(dir);
	(void)pthread_mutex_unlock(&dir->lock);
}

/* Will its last name be gone?  names held, or its lock. */
static bool is_last(const struct cfs_ino *ino)
{
	return S_ISDIR(ino->type) || ino->nlink == 1;
}

void cfs_ino_unlink(const struct cfs_ino *ino, struct cfs_batch *batch)
{
	struct cfs_key key;

	if (!is_last(ino))
		return;
	/* whoever finds this after a crash removes what is left */
	cfs_key_orphan(&key, ino->ino);
	cfs_batch_put(batch, cfs_key_slice(&key), (struct cfs_slice){"", 0});
}

void cfs_ino_unlinked(struct cfs_ino *ino)
{
	(void)pthread_mutex_lock(&ino->lock);
	if (is_last(ino))
		ino->nlink = 0;
	else if (ino->nlink)
		ino->nlink--;
	ino->ctime = cfs_ino_now(ino);
	if (ino->nlink) {
		cfs_ino_save(ino);
	} else { /* mostly gone by the next cut, and never written again */
		ino->meta_dirty = true;
		cfs_ino_mark(ino);
	}
	(void)pthread_mutex_unlock(&ino->lock);
}

void cfs_ino_found(struct cfs_ino *ino, const char *name)
{
	bool marker;

	if (!S_ISREG(ino->type))
		return;
	marker = cfs_ns_is_marker(ino->ns, name);
	/* another of its names may be a marker's */
	ino->marker = marker || (ino->marker && ino->nlink > 1);
	if (ino->ns->sniffer && !ino->name)
		ino->name = strdup(name); /* only a hint */
}

/* names held shared. */
static int find(struct cfs_ns *ns, uint64_t dir, const char *name,
		struct cfs_dirent_value *out)
{
	int r = cfs_dirent_get(ns, dir, name, out);

	if (r == -ENOENT)
		cfs_absent_put(ns, dir, name);
	return r;
}

int cfs_ns_lookup(struct cfs_ns *ns, uint64_t dir, const char *name,
		  struct stat *st_out)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *d = NULL;
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	struct cfs_dirent_value v;
	int r;

	/* shared: what a name leads to is not taken away before it counts */
	(void)pthread_rwlock_rdlock(&ns->names);
	r = cfs_ino_get(ns, dir, &d);
	if (r == 0 && !S_ISDIR(d->type))
		r = -ENOTDIR;
	if (r == 0 && !strcmp(name, "."))
		v.ino = dir;
	else if (r == 0 && !strcmp(name, ".."))
		v.ino = d->parent;
	else if (r == 0)
		r = find(ns, dir, name, &v);
	if (r == 0)
		r = cfs_ino_get(ns, v.ino, &i);
	if (r == 0)
		cfs_ino_looked_up(i);
	(void)pthread_rwlock_unlock(&ns->names);
	if (r)
		return r;
	(void)pthread_mutex_lock(&i->lock);
	cfs_ino_stat(i, st_out);
	cfs_ino_found(i, name);
	(void)pthread_mutex_unlock(&i->lock);
	return 0;
}

int cfs_ns_getattr(struct cfs_ns *ns, uint64_t ino, struct stat *st_out)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	int r = cfs_ino_get(ns, ino, &i);

	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&i->lock);
	cfs_ino_stat(i, st_out);
	(void)pthread_mutex_unlock(&i->lock);
	return 0;
}
