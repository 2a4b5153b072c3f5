/* An index, `idx`, in a directory of its own unless it is in memory. */
#ifndef CFS_INDEX_BED_H
#define CFS_INDEX_BED_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/index/index.h"
#include "store/util/endian.h"
#include "store/util/error.h"
#include "tests/test.h"

static char dir[64], path[80];
static struct cfs_index *idx;

static inline struct cfs_slice str(const char *s)
{
	return (struct cfs_slice){s, strlen(s)};
}

static inline void remove_index(void)
{
	struct dirent *e;
	DIR *d = opendir(path);

	while (d && (e = readdir(d)))
		(void)unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		(void)closedir(d);
	(void)rmdir(path);
}

static inline int open_index(void)
{
	struct cfs_error err;

	return cfs_index_rocksdb_open(path, &idx, &err);
}

static inline void setup_dir(void)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/cfs_index_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/index", dir);
	idx = NULL;
}

static inline void teardown_dir(void)
{
	cfs_index_close(idx);
	remove_index();
	(void)rmdir(dir);
}

/* To the disk and back, where there is one. */
static inline void reopen(void)
{
	if (!dir[0])
		return;
	cfs_index_close(idx);
	idx = NULL;
	ck_assert_int_eq(open_index(), 0);
}

static inline void commit(struct cfs_batch *batch)
{
	ck_assert(!batch->bytes.failed);
	ck_assert_int_eq(idx->ops->commit(idx, batch), 0);
	cfs_batch_fini(batch);
}

static inline void put(const char *key, const char *val)
{
	struct cfs_batch batch = CFS_BATCH_INIT;

	cfs_batch_put(&batch, str(key), str(val));
	commit(&batch);
}

static inline void expect(const char *key, const char *val)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	int r = idx->ops->get(idx, str(key), &buf);

	ck_assert_int_eq(r, val ? 0 : -ENOENT);
	ck_assert_uint_eq(buf.len, val ? strlen(val) : 0);
	if (val)
		ck_assert_int_eq(memcmp(buf.data, val, buf.len), 0);
}

static inline struct cfs_index_iter *list(const char *prefix, const char *from)
{
	struct cfs_index_iter *iter;

	ck_assert_int_eq(idx->ops->iter_new(idx, str(prefix), str(from), &iter),
			 0);
	return iter;
}

/* Each batch sets all of these to its number. */
#define TOGETHER 8

static inline void commit_together(uint64_t n, size_t extra_bytes)
{
	struct cfs_batch batch = CFS_BATCH_INIT;
	_cleanup_(cfs_freep) char *extra = calloc(1, extra_bytes + 1);
	uint8_t raw[8];
	char key[24];

	ck_assert_ptr_nonnull(extra);
	cfs_put_le64(raw, n);
	for (int i = 0; i < TOGETHER; i++) {
		(void)snprintf(key, sizeof(key), "t%d", i);
		cfs_batch_put(&batch, str(key), (struct cfs_slice){raw, 8});
	}
	(void)snprintf(key, sizeof(key), "n%08d", (int)n);
	cfs_put_le64(raw, n * 3);
	cfs_batch_put(&batch, str(key), (struct cfs_slice){raw, 8});
	(void)snprintf(key, sizeof(key), "x%08d", (int)n);
	cfs_batch_put(&batch, str(key), (struct cfs_slice){extra, extra_bytes});
	if (n > 1) { /* the one before goes: deletes are in it, too */
		(void)snprintf(key, sizeof(key), "x%08d", (int)n - 1);
		cfs_batch_del(&batch, str(key));
	}
	commit(&batch);
}

/* The number of the last batch, all of which must be there. */
static inline uint64_t expect_together(void)
{
	struct cfs_index_iter *iter = list("t", "");
	struct cfs_slice key, val;
	uint64_t n = 0;
	int count = 0;

	while (iter->ops->next(iter, &key, &val) == 1) {
		ck_assert_uint_eq(val.len, 8);
		if (count++)
			ck_assert_uint_eq(cfs_get_le64(val.data), n);
		n = cfs_get_le64(val.data);
	}
	ck_assert(count == TOGETHER || count == 0);
	cfs_index_iter_freep(&iter);
	return n;
}

#endif
