#include "store/map/filepool.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "store/map/source.h"
#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/log.h"

#define N_BUCKETS 256

struct cfs_filepool {
	struct cfs_source *source;
	pthread_mutex_t lock; /* guards the lists and refs; never across I/O */
	struct pooled *buckets[N_BUCKETS];
	size_t n;
};

struct pooled {
	struct cfs_file base; /* what its holders see */
	struct cfs_filepool *pool;
	struct pooled *next;
	unsigned refs;
	uint64_t hash;
	struct cfs_file *file;
	struct cfs_version version;
	pthread_mutex_t pin_lock; /* a leaf; guards the two below */
	int64_t pinned_ctime_ns;  /* moves when a change is explained */
	uint64_t pinned_nlink;
	atomic_bool logged; /* relaxed: a line too many is no harm */
	char path[];
};

struct cfs_filepool *cfs_filepool_new(struct cfs_source *source)
{
	struct cfs_filepool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pool->source = source;
	(void)pthread_mutex_init(&pool->lock, NULL);
	return pool;
}

void cfs_filepool_free(struct cfs_filepool *pool)
{
	if (!pool)
		return;
	(void)pthread_mutex_destroy(&pool->lock);
	free(pool);
}

void cfs_filepool_freep(struct cfs_filepool **pool)
{
	cfs_filepool_free(*pool);
}

size_t cfs_filepool_count(struct cfs_filepool *pool)
{
	size_t n;

	(void)pthread_mutex_lock(&pool->lock);
	n = pool->n;
	(void)pthread_mutex_unlock(&pool->lock);
	return n;
}

static int log_once(struct pooled *f, int r, const char *what)
{
	if (!atomic_exchange_explicit(&f->logged, true, memory_order_relaxed))
		(void)cfs_log_err(r, "%s: %s", f->path, what);
	return r;
}

/* Does the path still lead to this very inode?  Unknown counts as yes. */
static bool path_leads_here(struct pooled *f)
{
	struct stat st;
	int r = cfs_source_stat_file(f->pool->source, f->path, &st);

	if (r == -ENOENT || r == -ENOTDIR || r == -EISDIR)
		return false;
	return r < 0 ||
	       (st.st_ino == f->version.ino && st.st_dev == f->version.dev);
}

/* A ctime that moved: by something that leaves the bytes alone? */
static bool explained(struct pooled *f, const struct stat *st, int64_t ctime_ns)
{
	bool ok, linked;

	(void)pthread_mutex_lock(&f->pin_lock);
	/* the planned ctime: seen before another thread saw it move */
	ok = ctime_ns == f->pinned_ctime_ns || ctime_ns == f->version.ctime_ns;
	linked = f->pinned_nlink != st->st_nlink;
	(void)pthread_mutex_unlock(&f->pin_lock);
	if (ok)
		return true;
	if (!linked && path_leads_here(f))
		return false;
	(void)pthread_mutex_lock(&f->pin_lock);
	f->pinned_ctime_ns = ctime_ns;
	f->pinned_nlink = st->st_nlink;
	(void)pthread_mutex_unlock(&f->pin_lock);
	return true;
}

static int check(struct pooled *f)
{
	struct cfs_version now;
	struct stat st;
	int r;

	r = f->file->ops->stat(f->file, &st);
	if (r < 0)
		return r;
	cfs_version_of(&st, &now);
	if (now.dev != f->version.dev || now.ino != f->version.ino ||
	    now.size != f->version.size || now.mtime_ns != f->version.mtime_ns)
		return -ESTALE;
	return explained(f, &st, now.ctime_ns) ? 0 : -ESTALE;
}

static int check_logged(struct pooled *f)
{
	int r = check(f);

	return r < 0 ? log_once(f, r, "changed since it was planned") : 0;
}

static int pread_all(struct pooled *f, uint8_t *p, size_t len, uint64_t off)
{
	while (len) {
		ssize_t n = f->file->ops->pread(f->file, p, len, off);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return log_once(f, (int)n, "cannot be read");
		if (!n) {
			int r = check_logged(f);

			return r < 0 ? r : log_once(f, -EIO, "too short");
		}
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static struct pooled *pooled_of(struct cfs_file *file)
{
	return container_of(file, struct pooled, base);
}

int cfs_filepool_check(struct cfs_file *file)
{
	return check_logged(pooled_of(file));
}

int cfs_filepool_pread(struct cfs_file *file, void *buf, size_t len,
		       uint64_t off)
{
	return pread_all(pooled_of(file), buf, len, off);
}

static int op_stat(struct cfs_file *file, struct stat *st_out)
{
	struct pooled *f = pooled_of(file);

	return f->file->ops->stat(f->file, st_out);
}

static ssize_t op_pread(struct cfs_file *file, void *buf, size_t len,
			uint64_t off)
{
	struct pooled *f = pooled_of(file);
	ssize_t n = f->file->ops->pread(f->file, buf, len, off);
	int r = check_logged(f);

	return r < 0 ? r : n;
}

static void op_advise(struct cfs_file *file, uint64_t off, uint64_t len)
{
	struct pooled *f = pooled_of(file);

	f->file->ops->advise(f->file, off, len);
}

static void op_close(struct cfs_file *file)
{
	struct pooled *f = pooled_of(file);

	cfs_filepool_put(f->pool, file);
}

static const struct cfs_file_ops pooled_ops = {
	.stat = op_stat,
	.pread = op_pread,
	.advise = op_advise,
	.close = op_close,
};

/* Called with the lock. */
static struct pooled *find(struct cfs_filepool *pool, uint64_t hash,
			   const char *path, const struct cfs_version *version)
{
	struct pooled *f;

	for (f = pool->buckets[hash % N_BUCKETS]; f; f = f->next) {
		if (f->hash == hash && !strcmp(f->path, path) &&
		    cfs_version_equal(&f->version, version)) {
			f->refs++;
			return f;
		}
	}
	return NULL;
}

static void pooled_free(struct pooled *f)
{
	cfs_file_close(f->file);
	(void)pthread_mutex_destroy(&f->pin_lock);
	free(f);
}

static int pooled_open(struct cfs_filepool *pool, uint64_t hash,
		       const char *path, const struct cfs_version *version,
		       struct pooled **file_out)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	size_t len = strlen(path) + 1;
	struct cfs_version now;
	struct pooled *f;
	struct stat st;
	int r;

	r = pool->source->ops->open(pool->source, path, &file);
	if (r < 0)
		return r;
	r = file->ops->stat(file, &st);
	if (r < 0)
		return r;
	cfs_version_of(&st, &now);
	if (!cfs_version_equal(&now, version))
		return -ESTALE;
	f = calloc(1, sizeof(*f) + len);
	if (!f)
		return -ENOMEM;
	f->base.ops = &pooled_ops;
	f->pool = pool;
	f->refs = 1;
	f->hash = hash;
	f->version = *version;
	f->pinned_ctime_ns = now.ctime_ns;
	f->pinned_nlink = st.st_nlink;
	(void)pthread_mutex_init(&f->pin_lock, NULL);
	memcpy(f->path, path, len);
	f->file = cfs_steal(file);
	*file_out = f;
	return 0;
}

static int refuse(struct cfs_error *err, const char *path, int r)
{
	if (r == -ESTALE)
		return cfs_fail(err, r,
				"%s: the file changed since it was planned",
				path);
	return cfs_fail(err, r, "%s: %s", path, strerror(-r));
}

int cfs_filepool_get(struct cfs_filepool *pool, const char *path,
		     const struct cfs_version *version,
		     struct cfs_file **file_out, struct cfs_error *err)
{
	uint64_t hash = cfs_hash64(path, strlen(path), version->ino);
	struct pooled *f, *fresh;
	int r;

	(void)pthread_mutex_lock(&pool->lock);
	f = find(pool, hash, path, version);
	(void)pthread_mutex_unlock(&pool->lock);
	if (f) {
		r = check(f);
		if (r < 0) {
			cfs_filepool_put(pool, &f->base);
			return refuse(err, path, r);
		}
		*file_out = &f->base;
		return 0;
	}
	r = pooled_open(pool, hash, path, version, &fresh);
	if (r < 0)
		return refuse(err, path, r);
	(void)pthread_mutex_lock(&pool->lock);
	f = find(pool, hash, path, version); /* somebody was faster? */
	if (!f) {
		f = fresh;
		fresh = NULL;
		f->next = pool->buckets[hash % N_BUCKETS];
		pool->buckets[hash % N_BUCKETS] = f;
		pool->n++;
	}
	(void)pthread_mutex_unlock(&pool->lock);
	if (fresh)
		pooled_free(fresh);
	*file_out = &f->base;
	return 0;
}

void cfs_filepool_put(struct cfs_filepool *pool, struct cfs_file *file)
{
	struct pooled *f, **at;

	if (!file)
		return;
	f = pooled_of(file);
	(void)pthread_mutex_lock(&pool->lock);
	if (--f->refs) {
		(void)pthread_mutex_unlock(&pool->lock);
		return;
	}
	at = &pool->buckets[f->hash % N_BUCKETS];
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	pool->n--;
	(void)pthread_mutex_unlock(&pool->lock);
	pooled_free(f);
}
