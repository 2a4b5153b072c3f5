/*
 * The index beside the log: opened, and made anew where it does not go with the
 * log.  The one there was stays until the new one is whole.
 */
#include "store/core/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "store/util/error.h"
#include "store/util/log.h"

#define INDEX_ROOM (8u << 20) /* that RocksDB should find free */

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path) < 0 ? -errno : 0;
}

static int index_path(const struct cfs_store *s, const char *name, char *out,
		      size_t size)
{
	int n = snprintf(out, size, "%s/%s", s->path, name);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static int index_delete(const char *path)
{
	int r = nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);

	return r < 0 && errno == ENOENT ? 0 : r;
}

static bool has_room(const struct cfs_store *s)
{
	struct statvfs st;

	return statvfs(s->path, &st) < 0 ||
	       (uint64_t)st.f_bavail * st.f_frsize >= INDEX_ROOM;
}

static int index_open_in_memory(struct cfs_store *s)
{
	s->index = cfs_index_mem_new();
	s->index_in_memory = true;
	return s->index ? 0 : -ENOMEM;
}

/* Where there is no room for what opening it writes, it is made anew in memory
 * for this time: a full disk must open, or nothing could be deleted. */
static int index_open_at(struct cfs_store *s, const char *path,
			 struct cfs_error *err)
{
	struct cfs_error own = {""};
	int r = -ENOSPC;

	if (s->untouched)
		return index_open_in_memory(s);
	if (has_room(s))
		r = cfs_index_rocksdb_open(path, &s->index, &own);
	if (r != -ENOSPC && r != -EDQUOT)
		return r < 0 ? cfs_fail(err, r, "%s", own.text) : 0;
	cfs_log(CFS_LOG_WARN,
		"store %s: the disk has no room for the index, which is kept "
		"in memory until the next opening",
		s->path);
	return index_open_in_memory(s);
}

/* A damaged one is as good as none. */
int cfs_openindex(struct cfs_store *s, struct cfs_error *err)
{
	char path[4096];
	int r = index_path(s, "index", path, sizeof(path));

	if (r < 0)
		return cfs_fail(err, r, "%s: path too long", s->path);
	r = index_open_at(s, path, err);
	if (r != -EBADMSG)
		return r;
	cfs_log(CFS_LOG_WARN, "store %s: the index is damaged; rebuilding",
		s->path);
	r = index_delete(path);
	if (r < 0)
		return cfs_fail(err, r, "%s cannot be deleted: %s", path,
				strerror(-r));
	return index_open_at(s, path, err);
}

/* Every key one by one: an index that was handed in. */
int cfs_openindex_empty(struct cfs_index *index)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch batch = CFS_BATCH_INIT;
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *it = NULL;
	static const struct cfs_slice all = {"", 0};
	struct cfs_slice key, val;
	int r;

	r = index->ops->iter_new(index, all, all, &it);
	if (r < 0)
		return r;
	while ((r = it->ops->next(it, &key, &val)) > 0)
		cfs_batch_del(&batch, key);
	if (r == 0 && batch.bytes.failed)
		r = -ENOMEM;
	if (r == 0 && batch.count)
		r = index->ops->commit(index, &batch);
	return r;
}

/* All that the log tells, into the empty index. */
static int fill(struct cfs_store *s, struct cfs_index *before,
		struct cfs_recovered *found, struct cfs_error *err)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch batch = CFS_BATCH_INIT;
	struct cfs_applied a;
	int r;

	if (s->salvage)
		return cfs_salvage_fill(s, before, found, err);
	r = cfs_replay(s, true, found, err);

	if (r == 0)
		r = cfs_rebuild_objects(s, found->end, err);
	if (r < 0 || !found->group)
		return r;
	a = (struct cfs_applied){found->group, found->from, found->digest};
	cfs_applied_put(&batch, &a);
	if (batch.bytes.failed)
		return -ENOMEM;
	return s->index->ops->commit(s->index, &batch);
}

/* The last group that the index has; 0: none. */
uint64_t cfs_openindex_group(struct cfs_index *index)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_applied a;
	struct cfs_key key;

	cfs_key_applied(&key);
	if (index->ops->get(index, cfs_key_slice(&key), &buf) < 0 ||
	    cfs_applied_decode(buf.data, buf.len, &a) < 0)
		return 0;
	return a.group;
}

static void exchange_back(const char *from, const char *to)
{
	(void)renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE);
}

/* Never neither of them, whenever the power fails: in salvage the index may
 * have the only copy.  Where there was one, it is at @from then. */
static int index_exchange(struct cfs_store *s, const char *from, const char *to)
{
	int r = 0;

	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) < 0)
		r = -errno;
	/* not every filesystem can */
	if (r == -EINVAL || r == -ENOSYS || r == -ENOTSUP || r == -ENOENT) {
		r = index_delete(to);
		if (r == 0 && rename(from, to) < 0)
			r = -errno;
	}
	if (r == 0 && fsync(s->dirfd) < 0) {
		r = -errno;
		exchange_back(from, to);
	}
	return r;
}

/* The new one, which is whole, in the place of the one there was. */
static int index_switch(struct cfs_store *s, const char *from,
			struct cfs_recovered *found, struct cfs_error *err)
{
	char path[4096];
	int r = index_path(s, "index", path, sizeof(path));

	cfs_index_close(cfs_steal(s->index));
	if (r == 0)
		r = index_exchange(s, from, path);
	if (r < 0)
		return cfs_fail(err, r, "%s cannot be replaced: %s", path,
				strerror(-r));
	r = index_open_at(s, path, err);
	/* closing may have found no room for the last of it */
	if (r == 0 && !s->index_in_memory &&
	    cfs_openindex_group(s->index) != found->group)
		r = cfs_fail(err, -ENOSPC, "%s cannot be written", path);
	if (r == 0 && s->index_in_memory)
		r = s->salvage ? cfs_fail(err, -ENOSPC,
					  "there is no room for %s", path)
			       : fill(s, NULL, found, err);
	if (r == 0) {
		(void)index_delete(from);
		return 0;
	}
	if (s->index)
		cfs_index_close(cfs_steal(s->index));
	exchange_back(from, path);
	return r;
}

/* Until the next opening. */
static int index_in_memory(struct cfs_store *s, struct cfs_recovered *found,
			   struct cfs_error *err)
{
	struct cfs_index *before = cfs_steal(s->index);
	int r = index_open_in_memory(s);

	if (r == 0)
		r = fill(s, before, found, err);
	if (before)
		cfs_index_close(before);
	return r;
}

/* Beside the one there is: it may lead to what a log with damage cannot. */
static int index_beside(struct cfs_store *s, struct cfs_recovered *found,
			struct cfs_error *err)
{
	struct cfs_index *before = cfs_steal(s->index);
	char path[4096];
	int r = index_path(s, "index.new", path, sizeof(path));

	if (r == 0)
		r = index_delete(path);
	if (r == 0)
		r = index_open_at(s, path, err);
	if (r == 0)
		r = fill(s, before, found, err);
	if (r < 0) {
		if (s->index)
			cfs_index_close(s->index);
		(void)index_delete(path);
		s->index = cfs_steal(before);
	}
	if (r == -ENOSPC || r == -EDQUOT) /* not for two */
		return index_in_memory(s, found, err);
	if (before)
		cfs_index_close(before);
	if (r < 0)
		return r;
	return s->index_in_memory ? 0 : index_switch(s, path, found, err);
}

int cfs_openindex_renew(struct cfs_store *s, struct cfs_recovered *found,
			struct cfs_error *err)
{
	int r;

	if (s->salvage && (s->dirfd < 0 || s->options.read_only))
		return index_in_memory(s, found, err);
	if (s->dirfd < 0 || s->index_in_memory) {
		r = cfs_openindex_empty(s->index);
		return r < 0 ? r : fill(s, NULL, found, err);
	}
	return index_beside(s, found, err);
}
