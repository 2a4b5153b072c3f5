/*
 * Files in memory: the twin of source_dir, with faults on request.
 *
 * An inode outlives its name while handles are open, as on disk: remove and
 * put take the name away (link count and ctime move), rewrite changes the
 * bytes in place.  Times come from a counter and lie in 1970, so nothing has
 * to settle.  Directories exist through the files below them.
 */
#include "store/map/source.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "store/util/buf.h"
#include "store/util/grow.h"
#include "store/util/hash.h"

struct inode {
	unsigned refs; /* the name's and the handles' */
	uint64_t ino, mtime, ctime;
	unsigned nlink;
	uint8_t *data;
	size_t len;
	uint64_t break_off;
	int break_r; /* 0: whole */
};

struct entry {
	char *path;
	struct inode *inode;
};

struct mem_source {
	struct cfs_source base;
	pthread_mutex_t lock;  /* guards all below and all inodes */
	struct entry *entries; /* sorted by path */
	size_t n, cap;
	uint64_t clock;
};

struct mem_file {
	struct cfs_file base;
	struct mem_source *source;
	struct inode *inode;
};

static struct mem_source *mem_of(struct cfs_source *source)
{
	return container_of(source, struct mem_source, base);
}

static void inode_unref(struct inode *inode)
{
	if (--inode->refs)
		return;
	free(inode->data);
	free(inode);
}

/* The place of @path, or where it belongs. */
static size_t find(const struct mem_source *m, const char *path, bool *found)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(m->entries[mid].path, path) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*found = lo < m->n && !strcmp(m->entries[lo].path, path);
	return lo;
}

static struct inode *lookup(const struct mem_source *m, const char *path)
{
	bool found;
	size_t i = find(m, path, &found);

	return found ? m->entries[i].inode : NULL;
}

/* The part of @full below directory @dir, or NULL; @dir "" holds all. */
static const char *below(const char *full, const char *dir)
{
	size_t n = strlen(dir);

	if (!n)
		return full;
	return !strncmp(full, dir, n) && full[n] == '/' ? full + n + 1 : NULL;
}

static bool is_dir(const struct mem_source *m, const char *path)
{
	if (!*path)
		return true;
	for (size_t i = 0; i < m->n; i++)
		if (below(m->entries[i].path, path))
			return true;
	return false;
}

static struct timespec time_at(uint64_t tick)
{
	return (struct timespec){.tv_sec = (time_t)(tick / 1000),
				 .tv_nsec = (long)(tick % 1000) * 1000 + 1};
}

static void inode_stat(const struct inode *inode, struct stat *st_out)
{
	*st_out = (struct stat){
		.st_dev = 1,
		.st_ino = inode->ino,
		.st_mode = S_IFREG | 0644,
		.st_nlink = inode->nlink,
		.st_size = (off_t)inode->len,
		.st_blksize = 4096,
		.st_blocks = (blkcnt_t)((inode->len + 511) / 512),
		.st_mtim = time_at(inode->mtime),
		.st_ctim = time_at(inode->ctime),
		.st_atim = time_at(inode->mtime),
	};
}

static void dir_stat(const char *path, struct stat *st_out)
{
	*st_out = (struct stat){
		.st_dev = 1,
		.st_ino = cfs_hash64(path, strlen(path), 1) | 1ULL << 62,
		.st_mode = S_IFDIR | 0755,
		.st_nlink = 2,
		.st_mtim = time_at(1),
		.st_ctim = time_at(1),
		.st_atim = time_at(1),
	};
}

static int mem_stat(struct cfs_source *source, const char *path,
		    struct stat *st_out)
{
	struct mem_source *m = mem_of(source);
	const struct inode *inode;
	int r = 0;

	(void)pthread_mutex_lock(&m->lock);
	inode = lookup(m, path);
	if (inode)
		inode_stat(inode, st_out);
	else if (is_dir(m, path))
		dir_stat(path, st_out);
	else
		r = -ENOENT;
	(void)pthread_mutex_unlock(&m->lock);
	return r;
}

static int list_put(struct mem_source *m, const char *path, struct cfs_buf *out)
{
	char last[256] = "";

	for (size_t i = 0; i < m->n; i++) {
		const char *name = below(m->entries[i].path, path);
		char part[256];
		size_t n;

		if (!name)
			continue;
		n = strcspn(name, "/");
		if (n >= sizeof(part))
			return -ENAMETOOLONG;
		memcpy(part, name, n);
		part[n] = '\0';
		if (!strcmp(part, last))
			continue; /* sorted: one directory's are neighbours */
		(void)snprintf(last, sizeof(last), "%s", part);
		cfs_buf_put(out, part, n + 1);
	}
	return out->failed ? -ENOMEM : 0;
}

static int mem_readdir(struct cfs_source *source, const char *path,
		       cfs_dirent_fn *fn, void *arg)
{
	_cleanup_(cfs_buf_free) struct cfs_buf names = CFS_BUF_INIT;
	struct mem_source *m = mem_of(source);
	int r;

	(void)pthread_mutex_lock(&m->lock);
	if (lookup(m, path))
		r = -ENOTDIR;
	else if (!is_dir(m, path))
		r = -ENOENT;
	else
		r = list_put(m, path, &names);
	(void)pthread_mutex_unlock(&m->lock);
	if (r < 0)
		return r;
	for (size_t i = 0; i < names.len;) {
		_cleanup_(cfs_buf_free) struct cfs_buf full = CFS_BUF_INIT;
		const char *name = (const char *)names.data + i;
		struct stat st;

		i += strlen(name) + 1;
		cfs_buf_printf(&full, "%s%s%s", path, *path ? "/" : "", name);
		if (full.failed)
			return -ENOMEM;
		if (mem_stat(source, cfs_buf_str(&full), &st) < 0)
			continue;
		r = fn(arg, name, &st);
		if (r)
			return r;
	}
	return 0;
}

static int mem_readlink(struct cfs_source *source, const char *path,
			struct cfs_buf *target_out)
{
	struct stat st;
	int r = mem_stat(source, path, &st);

	(void)target_out;
	return r < 0 ? r : -EINVAL;
}

static int file_stat(struct cfs_file *file, struct stat *st_out)
{
	struct mem_file *f = container_of(file, struct mem_file, base);

	(void)pthread_mutex_lock(&f->source->lock);
	inode_stat(f->inode, st_out);
	(void)pthread_mutex_unlock(&f->source->lock);
	return 0;
}

static ssize_t inode_pread(const struct inode *inode, void *buf, size_t len,
			   uint64_t off)
{
	size_t n;

	if (inode->break_r && len && off + len > inode->break_off)
		return inode->break_r;
	if (off >= inode->len)
		return 0;
	n = CFS_MIN(len, inode->len - (size_t)off);
	if (n)
		memcpy(buf, inode->data + off, n);
	return (ssize_t)n;
}

static ssize_t file_pread(struct cfs_file *file, void *buf, size_t len,
			  uint64_t off)
{
	struct mem_file *f = container_of(file, struct mem_file, base);
	ssize_t n;

	(void)pthread_mutex_lock(&f->source->lock);
	n = inode_pread(f->inode, buf, len, off);
	(void)pthread_mutex_unlock(&f->source->lock);
	return n;
}

static void file_advise(struct cfs_file *file, uint64_t off, uint64_t len)
{
	(void)file;
	(void)off;
	(void)len;
}

static void file_close(struct cfs_file *file)
{
	struct mem_file *f = container_of(file, struct mem_file, base);
	struct mem_source *m = f->source;

	(void)pthread_mutex_lock(&m->lock);
	inode_unref(f->inode);
	(void)pthread_mutex_unlock(&m->lock);
	free(f);
}

static const struct cfs_file_ops file_ops = {
	.stat = file_stat,
	.pread = file_pread,
	.advise = file_advise,
	.close = file_close,
};

static int mem_open(struct cfs_source *source, const char *path,
		    struct cfs_file **file_out)
{
	struct mem_source *m = mem_of(source);
	_cleanup_(cfs_freep) struct mem_file *f = malloc(sizeof(*f));
	int r = 0;

	if (!f)
		return -ENOMEM;
	*f = (struct mem_file){.base.ops = &file_ops, .source = m};
	(void)pthread_mutex_lock(&m->lock);
	f->inode = lookup(m, path);
	if (f->inode)
		f->inode->refs++;
	else
		r = is_dir(m, path) ? -EISDIR : -ENOENT;
	(void)pthread_mutex_unlock(&m->lock);
	if (r < 0)
		return r;
	*file_out = &cfs_steal(f)->base;
	return 0;
}

static ssize_t mem_getxattr(struct cfs_source *source, const char *path,
			    const char *name, void *buf, size_t size)
{
	struct stat st;
	int r = mem_stat(source, path, &st);

	(void)name;
	(void)buf;
	(void)size;
	return r < 0 ? r : -ENODATA;
}

static ssize_t mem_listxattr(struct cfs_source *source, const char *path,
			     char *buf, size_t size)
{
	struct stat st;

	(void)buf;
	(void)size;
	return mem_stat(source, path, &st);
}

static int mem_statfs(struct cfs_source *source, struct statvfs *out)
{
	(void)source;
	*out = (struct statvfs){
		.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
	return 0;
}

static void mem_free(struct cfs_source *source)
{
	struct mem_source *m = mem_of(source);

	for (size_t i = 0; i < m->n; i++) {
		free(m->entries[i].path);
		inode_unref(m->entries[i].inode);
	}
	free(m->entries);
	(void)pthread_mutex_destroy(&m->lock);
	free(m);
}

static const struct cfs_source_ops mem_ops = {
	.stat = mem_stat,
	.readdir = mem_readdir,
	.readlink = mem_readlink,
	.open = mem_open,
	.getxattr = mem_getxattr,
	.listxattr = mem_listxattr,
	.statfs = mem_statfs,
	.free = mem_free,
};

struct cfs_source *cfs_source_mem_new(void)
{
	struct mem_source *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->base.ops = &mem_ops;
	m->clock = 1;
	(void)pthread_mutex_init(&m->lock, NULL);
	return &m->base;
}

static struct inode *inode_new(struct mem_source *m, const void *data,
			       size_t len)
{
	struct inode *inode = calloc(1, sizeof(*inode));

	if (!inode)
		return NULL;
	inode->data = malloc(len ? len : 1);
	if (!inode->data) {
		free(inode);
		return NULL;
	}
	if (len)
		memcpy(inode->data, data, len);
	inode->len = len;
	inode->refs = inode->nlink = 1;
	inode->ino = inode->mtime = inode->ctime = ++m->clock;
	return inode;
}

static void inode_unlink(struct mem_source *m, struct inode *inode)
{
	inode->nlink = 0;
	inode->ctime = ++m->clock;
	inode_unref(inode);
}

static int insert(struct mem_source *m, size_t at, const char *path,
		  struct inode *inode)
{
	if (!CFS_GROW(m->entries, m->n, m->cap))
		return -ENOMEM;
	path = strdup(path);
	if (!path)
		return -ENOMEM;
	memmove(m->entries + at + 1, m->entries + at,
		(m->n - at) * sizeof(*m->entries));
	m->entries[at].path = (char *)(uintptr_t)path;
	m->entries[at].inode = inode;
	m->n++;
	return 0;
}

int cfs_source_mem_put(struct cfs_source *source, const char *path,
		       const void *data, size_t len)
{
	struct mem_source *m = mem_of(source);
	struct inode *inode;
	bool found;
	size_t at;
	int r = 0;

	if (!*path || !cfs_source_path_ok(path))
		return -EINVAL;
	(void)pthread_mutex_lock(&m->lock);
	at = find(m, path, &found);
	inode = inode_new(m, data, len);
	if (!inode) {
		r = -ENOMEM;
	} else if (found) {
		inode_unlink(m, m->entries[at].inode);
		m->entries[at].inode = inode;
	} else {
		r = insert(m, at, path, inode);
		if (r < 0)
			inode_unref(inode);
	}
	(void)pthread_mutex_unlock(&m->lock);
	return r;
}

int cfs_source_mem_rewrite(struct cfs_source *source, const char *path,
			   const void *data, size_t len)
{
	struct mem_source *m = mem_of(source);
	uint8_t *copy = malloc(len ? len : 1);
	struct inode *inode;

	if (!copy)
		return -ENOMEM;
	if (len)
		memcpy(copy, data, len);
	(void)pthread_mutex_lock(&m->lock);
	inode = lookup(m, path);
	if (inode) {
		free(inode->data);
		inode->data = copy;
		inode->len = len;
		inode->mtime = inode->ctime = ++m->clock;
	}
	(void)pthread_mutex_unlock(&m->lock);
	if (!inode)
		free(copy);
	return inode ? 0 : -ENOENT;
}

int cfs_source_mem_remove(struct cfs_source *source, const char *path)
{
	struct mem_source *m = mem_of(source);
	bool found;
	size_t at;

	(void)pthread_mutex_lock(&m->lock);
	at = find(m, path, &found);
	if (found) {
		inode_unlink(m, m->entries[at].inode);
		free(m->entries[at].path);
		m->n--;
		memmove(m->entries + at, m->entries + at + 1,
			(m->n - at) * sizeof(*m->entries));
	}
	(void)pthread_mutex_unlock(&m->lock);
	return found ? 0 : -ENOENT;
}

int cfs_source_mem_break(struct cfs_source *source, const char *path,
			 uint64_t off, int r)
{
	struct mem_source *m = mem_of(source);
	struct inode *inode;

	(void)pthread_mutex_lock(&m->lock);
	inode = lookup(m, path);
	if (inode) {
		inode->break_off = off;
		inode->break_r = r;
	}
	(void)pthread_mutex_unlock(&m->lock);
	return inode ? 0 : -ENOENT;
}
