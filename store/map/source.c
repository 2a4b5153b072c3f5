/* What every source shares: versions, paths, conveniences over the ops. */
#include "store/map/source.h"

#include <errno.h>
#include <string.h>

#include "store/util/buf.h"

static int64_t ns_of(const struct timespec *ts)
{
	return (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec;
}

void cfs_version_of(const struct stat *st, struct cfs_version *out)
{
	*out = (struct cfs_version){
		.dev = st->st_dev,
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.mtime_ns = ns_of(&st->st_mtim),
		.ctime_ns = ns_of(&st->st_ctim),
	};
}

bool cfs_version_equal(const struct cfs_version *a, const struct cfs_version *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

bool cfs_source_path_ok(const char *path)
{
	const char *p = path;
	size_t n;

	if (!*p)
		return true;
	for (;;) {
		n = strcspn(p, "/");
		if (!n || (n == 1 && p[0] == '.') ||
		    (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		if (!p[n])
			return true;
		p += n + 1;
	}
}

void cfs_source_free(struct cfs_source *source)
{
	if (source)
		source->ops->free(source);
}

void cfs_source_freep(struct cfs_source **source)
{
	cfs_source_free(*source);
}

void cfs_file_close(struct cfs_file *file)
{
	if (file)
		file->ops->close(file);
}

void cfs_file_closep(struct cfs_file **file)
{
	cfs_file_close(*file);
}

int cfs_source_stat_file(struct cfs_source *source, const char *path,
			 struct stat *st_out)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	int r;

	r = source->ops->open(source, path, &file);
	if (r < 0)
		return r;
	return file->ops->stat(file, st_out);
}

int cfs_file_pread_all(struct cfs_file *file, void *buf, size_t len,
		       uint64_t off)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = file->ops->pread(file, p, len, off);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return (int)n;
		if (!n)
			return -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int cfs_source_read_small(struct cfs_source *source, const char *path,
			  size_t max, struct cfs_buf *out)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	int r;

	r = source->ops->open(source, path, &file);
	if (r < 0)
		return r;
	for (;;) {
		uint8_t piece[4096];
		ssize_t n =
			file->ops->pread(file, piece, sizeof(piece), text.len);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return (int)n;
		if (!n)
			break;
		if ((size_t)n > max - text.len)
			return -EFBIG;
		cfs_buf_put(&text, piece, (size_t)n);
		if (text.failed)
			return -ENOMEM;
	}
	cfs_buf_put(out, text.data, text.len);
	return out->failed ? -ENOMEM : 0;
}
