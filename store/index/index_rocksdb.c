/*
 * The index on disk.  RocksDB's own log is off; commits gather in a tree in
 * memory, and now and then all of it goes to RocksDB in one batch and is
 * flushed into one table file.  So:
 * - what is on disk is always a prefix of the commits, whole;
 * - a full or failing disk does not stop commits at once: the tree grows to
 *   PENDING_MAX first, and nothing that was committed is forgotten;
 * - a commit costs no I/O most of the time.
 *
 *   get ──▶ tree (since the last flush) ──▶ RocksDB
 *
 * Found damage leaves a file behind that makes the next open say so.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <rocksdb/c.h>

#include "store/index/index.h"
#include "store/index/merge.h"
#include "store/index/tree.h"
#include "store/util/error.h"
#include "store/util/log.h"
#include "store/util/owner.h"

#define FLUSH_BYTES   (16u << 20) /* of the tree, all told */
#define FLUSH_MIN     (1u << 20)  /* worth a flush when FLUSH_SECONDS old */
#define FLUSH_SECONDS 30
#define RETRY_SECONDS 5 /* after a failed flush */
#define PENDING_MAX   (64u << 20)
#define WRITE_BUFFER  (8u << 20)
#define CACHE_BYTES   (32u << 20)
#define OPEN_FILES    256
#define VERIFY_BYTES  (256u << 20) /* up to that, open reads all of it */
#define DAMAGED_NAME  "DAMAGED"

struct rocks {
	struct cfs_index base;
	char *path;
	rocksdb_t *db;
	rocksdb_options_t *options;
	rocksdb_readoptions_t *read;
	rocksdb_writeoptions_t *write;
	rocksdb_flushoptions_t *flush;
	pthread_rwlock_t lock;
	struct cfs_memtree *pending; /* guarded by lock */
	/* the committer's */
	size_t pending_bytes;
	time_t flush_at; /* not before, unless there is FLUSH_BYTES of it */
	time_t retry_at; /* not before, whatever there is */
};

static struct rocks *rocks_of(struct cfs_index *index)
{
	return container_of(index, struct rocks, base);
}

static time_t now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* ---- errors ---- */

/* RocksDB tells its errors in words only. */
static int errno_of(const char *text)
{
	if (!strncmp(text, "Corruption", 10) || strstr(text, "No such file"))
		return -EBADMSG;
	if (strstr(text, "No space left") || strstr(text, "quota exceeded"))
		return -ENOSPC;
	return -EIO;
}

static char *damaged_path(const char *path)
{
	char *full;

	return asprintf(&full, "%s/" DAMAGED_NAME, path) < 0 ? NULL : full;
}

static void mark_damaged(const struct rocks *rocks)
{
	_cleanup_(cfs_freep) char *path = damaged_path(rocks->path);
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;

	if (fd >= 0)
		(void)close(fd);
}

static int failed(const struct rocks *rocks, char *text, const char *what)
{
	int r = errno_of(text);

	cfs_log(CFS_LOG_ERR, "index: %s: %s", what, text);
	if (r == -EBADMSG)
		mark_damaged(rocks);
	rocksdb_free(text);
	return r;
}

/* ---- reading ---- */

static struct cfs_memtree *snapshot(struct rocks *rocks)
{
	struct cfs_memtree *root;

	(void)pthread_rwlock_rdlock(&rocks->lock);
	root = cfs_memtree_ref(rocks->pending);
	(void)pthread_rwlock_unlock(&rocks->lock);
	return root;
}

static int db_get(struct rocks *rocks, struct cfs_slice key,
		  struct cfs_buf *val_out)
{
	rocksdb_pinnableslice_t *slice;
	char *err = NULL;
	const char *val;
	size_t len;

	slice = rocksdb_get_pinned(rocks->db, rocks->read, key.data, key.len,
				   &err);
	if (err)
		return failed(rocks, err, "reading");
	if (!slice)
		return -ENOENT;
	val = rocksdb_pinnableslice_value(slice, &len);
	cfs_buf_put(val_out, val, len);
	rocksdb_pinnableslice_destroy(slice);
	return val_out->failed ? -ENOMEM : 0;
}

static int rocks_get(struct cfs_index *index, struct cfs_slice key,
		     struct cfs_buf *val_out)
{
	struct rocks *rocks = rocks_of(index);
	_cleanup_(cfs_memtree_unrefp) struct cfs_memtree *root =
		snapshot(rocks);
	const struct cfs_memtree_item *item = cfs_memtree_get(root, key);
	struct cfs_slice val;

	if (!item)
		return db_get(rocks, key, val_out);
	if (item->deleted)
		return -ENOENT;
	val = cfs_memtree_item_val(item);
	cfs_buf_put(val_out, val.data, val.len);
	return val_out->failed ? -ENOMEM : 0;
}

struct db_iter {
	struct cfs_index_iter base;
	struct rocks *rocks;
	rocksdb_iterator_t *it;
	bool started;
	size_t prefix_len, from_len;
	uint8_t bytes[]; /* prefix, from */
};

static int db_iter_next(struct cfs_index_iter *iter, struct cfs_slice *key_out,
			struct cfs_slice *val_out)
{
	struct db_iter *d = container_of(iter, struct db_iter, base);
	const struct cfs_slice prefix = {d->bytes, d->prefix_len};
	char *err = NULL;

	if (!d->started)
		rocksdb_iter_seek(d->it, (const char *)d->bytes + d->prefix_len,
				  d->from_len);
	else if (rocksdb_iter_valid(d->it))
		rocksdb_iter_next(d->it);
	d->started = true;
	if (!rocksdb_iter_valid(d->it)) {
		rocksdb_iter_get_error(d->it, &err);
		return err ? failed(d->rocks, err, "listing") : 0;
	}
	key_out->data = rocksdb_iter_key(d->it, &key_out->len);
	if (!cfs_memtree_has_prefix(*key_out, prefix))
		return 0;
	val_out->data = rocksdb_iter_value(d->it, &val_out->len);
	return 1;
}

static void db_iter_free(struct cfs_index_iter *iter)
{
	struct db_iter *d = container_of(iter, struct db_iter, base);

	rocksdb_iter_destroy(d->it);
	free(d);
}

/* Sees RocksDB as it is now; reads nothing before the first next(). */
static struct cfs_index_iter *db_iter_new(struct rocks *rocks,
					  const rocksdb_readoptions_t *read,
					  struct cfs_slice prefix,
					  struct cfs_slice from)
{
	static const struct cfs_index_iter_ops ops = {db_iter_next,
						      db_iter_free};
	struct db_iter *d;

	if (cfs_memtree_cmp(from, prefix) < 0)
		from = prefix;
	d = calloc(1, sizeof(*d) + prefix.len + from.len);
	if (!d)
		return NULL;
	d->base.ops = &ops;
	d->rocks = rocks;
	d->prefix_len = prefix.len;
	d->from_len = from.len;
	if (prefix.len)
		memcpy(d->bytes, prefix.data, prefix.len);
	if (from.len)
		memcpy(d->bytes + prefix.len, from.data, from.len);
	d->it = rocksdb_create_iterator(rocks->db, read);
	return &d->base;
}

static int rocks_iter_new(struct cfs_index *index, struct cfs_slice prefix,
			  struct cfs_slice from, struct cfs_index_iter **out)
{
	struct rocks *rocks = rocks_of(index);
	struct cfs_index_iter *under;
	int r = -ENOMEM;

	/* together: a flush moves keys from the one to the other */
	(void)pthread_rwlock_rdlock(&rocks->lock);
	under = db_iter_new(rocks, rocks->read, prefix, from);
	if (under) {
		struct cfs_memtree *const roots[CFS_MERGE_TREES] = {
			rocks->pending, NULL};

		r = cfs_merge_new(roots, under, prefix, from, out);
	}
	(void)pthread_rwlock_unlock(&rocks->lock);
	return r;
}

/* ---- writing ---- */

static rocksdb_writebatch_t *batch_of(const struct cfs_memtree *root)
{
	rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
	const struct cfs_memtree_item *item =
		cfs_memtree_seek(root, (struct cfs_slice){NULL, 0}, false);

	for (; item;
	     item = cfs_memtree_seek(root, cfs_memtree_item_key(item), true)) {
		const char *key = (const char *)item->bytes;

		if (item->deleted)
			rocksdb_writebatch_delete(batch, key, item->key_len);
		else
			rocksdb_writebatch_put(batch, key, item->key_len,
					       key + item->key_len,
					       item->val_len);
	}
	return batch;
}

static int db_flush(struct rocks *rocks, const struct cfs_memtree *root)
{
	rocksdb_writebatch_t *batch = batch_of(root);
	char *err = NULL;

	rocksdb_write(rocks->db, rocks->write, batch, &err);
	rocksdb_writebatch_destroy(batch);
	if (!err)
		rocksdb_flush(rocks->db, rocks->flush, &err);
	return err ? failed(rocks, err, "writing") : 0;
}

/* Everything pending into RocksDB and onto the disk; the committer only. */
static int flush(struct rocks *rocks)
{
	_cleanup_(cfs_memtree_unrefp) struct cfs_memtree *root =
		snapshot(rocks);
	struct cfs_memtree *old;
	int r = root ? db_flush(rocks, root) : 0;

	if (r < 0) {
		rocks->retry_at = now() + RETRY_SECONDS;
		return r;
	}
	(void)pthread_rwlock_wrlock(&rocks->lock);
	old = cfs_steal(rocks->pending);
	(void)pthread_rwlock_unlock(&rocks->lock);
	cfs_memtree_unref(old);
	rocks->pending_bytes = 0;
	rocks->flush_at = now() + FLUSH_SECONDS;
	return 0;
}

struct fill {
	struct cfs_memtree **root;
	size_t bytes;
};

static int apply(void *arg, struct cfs_slice key, const struct cfs_slice *val)
{
	struct fill *fill = arg;
	int r = cfs_memtree_put(fill->root, key, val);

	fill->bytes += cfs_memtree_entry_bytes(key.len, val ? val->len : 0);
	return r < 0 ? r : 0;
}

static bool flush_is_due(const struct rocks *rocks)
{
	time_t t = now();

	if (rocks->pending_bytes < FLUSH_MIN || t < rocks->retry_at)
		return false;
	return rocks->pending_bytes >= FLUSH_BYTES || t >= rocks->flush_at;
}

static int rocks_commit(struct cfs_index *index, const struct cfs_batch *batch)
{
	struct rocks *rocks = rocks_of(index);
	_cleanup_(cfs_memtree_unrefp) struct cfs_memtree *root = NULL;
	struct fill fill = {&root, 0};
	struct cfs_memtree *old;
	int r;

	if (batch->bytes.failed)
		return -ENOMEM;
	if (rocks->pending_bytes >= PENDING_MAX) {
		r = flush(rocks);
		if (r < 0)
			return r;
	}
	root = snapshot(rocks);
	r = cfs_batch_each(batch->bytes.data, batch->bytes.len, apply, &fill);
	if (r < 0)
		return r;
	(void)pthread_rwlock_wrlock(&rocks->lock);
	old = rocks->pending;
	rocks->pending = root;
	(void)pthread_rwlock_unlock(&rocks->lock);
	root = old; /* dropped outside of the lock */
	rocks->pending_bytes += fill.bytes;
	if (flush_is_due(rocks))
		(void)flush(rocks); /* logged; it stays pending */
	return 0;
}

/* ---- opening and closing ---- */

static void rocks_free(struct rocks *rocks)
{
	if (rocks->db)
		rocksdb_close(rocks->db);
	rocksdb_options_destroy(rocks->options);
	rocksdb_readoptions_destroy(rocks->read);
	rocksdb_writeoptions_destroy(rocks->write);
	rocksdb_flushoptions_destroy(rocks->flush);
	cfs_memtree_unref(rocks->pending);
	(void)pthread_rwlock_destroy(&rocks->lock);
	free(rocks->path);
	free(rocks);
}

static void rocks_freep(struct rocks **rocks)
{
	if (*rocks)
		rocks_free(*rocks);
}

static void rocks_close(struct cfs_index *index)
{
	struct rocks *rocks = rocks_of(index);

	_cleanup_(cfs_freep) char *path = strdup(rocks->path);

	(void)flush(rocks); /* else the log makes up for it */
	rocks_free(rocks);
	if (path)
		cfs_owner_give_dir(path);
}

static void set_table_options(rocksdb_options_t *o)
{
	rocksdb_block_based_table_options_t *t =
		rocksdb_block_based_options_create();
	rocksdb_cache_t *cache = rocksdb_cache_create_lru(CACHE_BYTES);

	/* Filters and table indexes stay out of it: a filter is larger than a
	 * shard of so small a cache, and both take 2 bytes a key in all. */
	rocksdb_block_based_options_set_block_cache(t, cache);
	rocksdb_block_based_options_set_filter_policy(
		t, rocksdb_filterpolicy_create_bloom_full(10));
	rocksdb_options_set_block_based_table_factory(o, t);
	rocksdb_block_based_options_destroy(t);
	rocksdb_cache_destroy(cache);
}

static rocksdb_options_t *options_new(void)
{
	rocksdb_options_t *o = rocksdb_options_create();

	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_options_set_paranoid_checks(o, 1);
	rocksdb_options_set_compression(o, rocksdb_no_compression);
	/* A batch is never divided, however small this is.  After a full disk
	 * RocksDB waits for that much room before it writes again. */
	rocksdb_options_set_write_buffer_size(o, WRITE_BUFFER);
	rocksdb_options_set_arena_block_size(o, 1u << 20);
	rocksdb_options_set_max_write_buffer_number(o, 2);
	rocksdb_options_set_max_open_files(o, OPEN_FILES);
	rocksdb_options_set_max_background_jobs(o, 2);
	rocksdb_options_set_info_log_level(o, 4); /* fatal only */
	rocksdb_options_set_keep_log_file_num(o, 1);
	rocksdb_options_set_max_log_file_size(o, 1u << 20);
	rocksdb_options_set_stats_dump_period_sec(o, 0);
	rocksdb_options_set_stats_persist_period_sec(o, 0);
	rocksdb_options_set_max_manifest_file_size(o, 4u << 20);
	set_table_options(o);
	return o;
}

static struct rocks *rocks_new(const char *path)
{
	struct rocks *rocks = calloc(1, sizeof(*rocks));

	if (!rocks)
		return NULL;
	rocks->path = strdup(path);
	(void)pthread_rwlock_init(&rocks->lock, NULL);
	rocks->options = options_new();
	rocks->read = rocksdb_readoptions_create();
	rocksdb_readoptions_set_verify_checksums(rocks->read, 1);
	rocks->write = rocksdb_writeoptions_create();
	rocksdb_writeoptions_disable_WAL(rocks->write, 1);
	rocks->flush = rocksdb_flushoptions_create();
	rocksdb_flushoptions_set_wait(rocks->flush, 1);
	rocks->flush_at = now() + FLUSH_SECONDS;
	return rocks;
}

/* Reads all of it once, as long as that takes well under a second. */
static int verify(struct rocks *rocks)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	const struct cfs_slice all = {"", 0};
	rocksdb_readoptions_t *read;
	struct cfs_slice key, val;
	uint64_t bytes = 0;
	int r;

	if (rocksdb_property_int(rocks->db, "rocksdb.total-sst-files-size",
				 &bytes) ||
	    bytes > VERIFY_BYTES)
		return 0;
	read = rocksdb_readoptions_create();
	rocksdb_readoptions_set_verify_checksums(read, 1);
	rocksdb_readoptions_set_fill_cache(read, 0);
	iter = db_iter_new(rocks, read, all, all);
	do {
		r = iter ? iter->ops->next(iter, &key, &val) : -ENOMEM;
	} while (r > 0);
	cfs_index_iter_freep(&iter);
	iter = NULL;
	rocksdb_readoptions_destroy(read);
	return r;
}

static int open_db(struct rocks *rocks, struct cfs_error *err)
{
	char *text = NULL;
	int r;

	rocks->db = rocksdb_open(rocks->options, rocks->path, &text);
	if (text) {
		r = errno_of(text);
		/* files that contradict one another come as that */
		if (!strncmp(text, "Invalid argument", 16))
			r = -EBADMSG;
		r = cfs_fail(err, r, "index %s: %s", rocks->path, text);
		rocksdb_free(text);
		return r;
	}
	cfs_owner_give_dir(rocks->path);
	r = verify(rocks);
	return r < 0 ? cfs_fail(err, r, "index %s is damaged", rocks->path) : 0;
}

int cfs_index_rocksdb_open(const char *path, struct cfs_index **index_out,
			   struct cfs_error *err)
{
	static const struct cfs_index_ops ops = {
		.get = rocks_get,
		.commit = rocks_commit,
		.iter_new = rocks_iter_new,
		.close = rocks_close,
	};
	_cleanup_(rocks_freep) struct rocks *rocks = NULL;
	_cleanup_(cfs_freep) char *damaged = damaged_path(path);
	int r;

	if (!damaged)
		return cfs_fail(err, -ENOMEM, "index %s: no memory", path);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return cfs_fail(err, -errno, "index %s: %s", path,
				strerror(errno));
	if (!access(damaged, F_OK))
		return cfs_fail(err, -EBADMSG, "index %s was found damaged",
				path);
	rocks = rocks_new(path);
	if (!rocks || !rocks->path)
		return cfs_fail(err, -ENOMEM, "index %s: no memory", path);
	rocks->base.ops = &ops;
	r = open_db(rocks, err);
	if (r < 0)
		return r;
	*index_out = &cfs_steal(rocks)->base;
	return 0;
}
