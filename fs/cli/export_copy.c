/* One file, link or directory: written, synced, renamed. */
#include "fs/cli/export_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

#include "fs/cli/export_plan.h"
#include "fs/cli/progress.h"
#include "fs/view/view.h"
#include "store/util/buf.h"
#include "store/util/error.h"

#define BLOCK (4u << 20)
/* A run of zeros this long is not written. */
#define HOLE (64u << 10)
/*
 * Below a mount, which may be a store's: there zeros cost nothing, and a file
 * with holes shares less with what was saved without.
 */
#define FUSE_MAGIC 0x65735546

/* "a/b/file" -> "a/b/.file.ckptfs-part", where the name may be cut: one file
 * is written at a time. */
static char *temp_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t dir = slash ? (size_t)(slash + 1 - path) : 0;
	char *out = NULL;

	if (asprintf(&out, "%.*s.%.200s.ckptfs-part", (int)dir, path,
		     path + dir) < 0)
		return NULL;
	return out;
}

static int make_parents(int dir, const char *path)
{
	_cleanup_(cfs_freep) char *copy = strdup(path);
	char *p;

	if (!copy)
		return -ENOMEM;
	for (p = copy; (p = strchr(p, '/')); p++) {
		*p = 0;
		if (mkdirat(dir, copy, 0777) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return len && !p[0] && memcmp(p, p + 1, len - 1) == 0;
}

static int write_at(int fd, const uint8_t *p, size_t len, uint64_t off)
{
	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static size_t hole_of(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == FUSE_MAGIC ? BLOCK : HOLE;
}

/* The parts of a block that are not holes. */
static int write_block(int fd, const uint8_t *p, size_t len, uint64_t off,
		       size_t hole)
{
	size_t at = 0;
	int r = 0;

	while (r == 0 && at < len) {
		size_t n = CFS_MIN(hole, len - at);

		if (n < hole || !all_zero(p + at, n))
			r = write_at(fd, p + at, n, off + at);
		at += n;
	}
	return r;
}

static int copy_bytes(struct cfs_vhandle *h, uint64_t size, int fd,
		      const char *what, struct cfs_progress *progress)
{
	_cleanup_(cfs_freep) uint8_t *block = malloc(BLOCK);
	const size_t hole = hole_of(fd);
	uint64_t off = 0;
	int r;

	if (!block)
		return -ENOMEM;
	while (off < size) {
		size_t want = (size_t)CFS_MIN((uint64_t)BLOCK, size - off);
		ssize_t n = cfs_vhandle_pread(h, block, want, off);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return -ESTALE; /* shorter than it was */
		r = write_block(fd, block, (size_t)n, off, hole);
		if (r < 0)
			return r;
		off += (uint64_t)n;
		cfs_progress_add(progress, (uint64_t)n, what);
	}
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

/* A source's own file has no map that watches it. */
static int unchanged(const struct cfs_export_item *item)
{
	struct stat st;
	int r;

	r = cfs_vnode_stat(item->node, &st, NULL);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	return st.st_size == item->st.st_size &&
			       st.st_mtim.tv_sec == item->st.st_mtim.tv_sec &&
			       st.st_mtim.tv_nsec == item->st.st_mtim.tv_nsec
		       ? 0
		       : -ESTALE;
}

static int fill(int fd, const struct cfs_export_item *item,
		struct cfs_progress *progress, struct cfs_error *err)
{
	_cleanup_(cfs_vhandle_closep) struct cfs_vhandle *h = NULL;
	const struct timespec times[2] = {item->st.st_mtim, item->st.st_mtim};
	int r;

	if (item->text) {
		r = write_at(fd, (const uint8_t *)item->text,
			     strlen(item->text), 0);
	} else {
		r = cfs_vnode_open(item->node, &h, err);
		if (r == 0)
			r = copy_bytes(h, (uint64_t)item->st.st_size, fd,
				       item->path, progress);
		if (r == 0)
			r = unchanged(item);
		if (r == 0)
			(void)futimens(fd, times);
	}
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

static int put_in_place(int dir, const char *temp, const char *path,
			bool replace)
{
	if (!replace) {
		if (renameat2(dir, temp, dir, path, RENAME_NOREPLACE) == 0)
			return 0;
		/* not every filesystem can; what is there was looked at */
		if (errno != EINVAL && errno != ENOSYS)
			return -errno;
	}
	return renameat(dir, temp, dir, path) < 0 ? -errno : 0;
}

static int copy_file(int dir, const struct cfs_export_item *item, bool replace,
		     struct cfs_progress *progress, struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *temp = temp_name(item->path);
	mode_t mode = (item->st.st_mode & 0777) | S_IRUSR | S_IWUSR;
	int fd, r;

	if (!temp)
		return -ENOMEM;
	(void)unlinkat(dir, temp, 0); /* of an earlier attempt */
	fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = fill(fd, item, progress, err);
	if (close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0)
		r = put_in_place(dir, temp, item->path, replace);
	if (r < 0)
		(void)unlinkat(dir, temp, 0);
	return r;
}

static int copy_link(int dir, const struct cfs_export_item *item)
{
	_cleanup_(cfs_buf_free) struct cfs_buf target = CFS_BUF_INIT;
	int r;

	r = cfs_vnode_readlink(item->node, &target);
	if (r < 0)
		return r;
	return symlinkat(cfs_buf_str(&target), dir, item->path) < 0 ? -errno
								    : 0;
}

int cfs_export_copy(int dir, const struct cfs_export_item *item, bool replace,
		    struct cfs_progress *progress, struct cfs_error *err)
{
	int r;

	r = make_parents(dir, item->path);
	if (r < 0)
		return r;
	if (S_ISREG(item->st.st_mode))
		return copy_file(dir, item, replace, progress, err);
	if (S_ISLNK(item->st.st_mode))
		return copy_link(dir, item);
	if (S_ISDIR(item->st.st_mode))
		return mkdirat(dir, item->path, 0777) < 0 && errno != EEXIST
			       ? -errno
			       : 0;
	return cfs_fail(err, -ENOTSUP, "neither file, link nor directory");
}

int cfs_export_copy_done(int dir, const struct cfs_export_item *item)
{
	struct stat st;

	if (fstatat(dir, item->path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if ((st.st_mode & S_IFMT) != (item->st.st_mode & S_IFMT))
		return -EEXIST;
	if (!S_ISREG(st.st_mode))
		return 1;
	return st.st_size == item->st.st_size ? 1 : -EEXIST;
}

static int sync_dir(int dir, const struct cfs_export_item *item)
{
	_cleanup_(cfs_freep) char *path = strdup(item->path);
	_cleanup_(cfs_closep) int fd = -1;
	char *slash;

	if (!path)
		return -ENOMEM;
	slash = strrchr(path, '/');
	if (slash)
		*slash = 0;
	fd = openat(dir, slash ? path : ".",
		    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

static bool same_parent(const char *a, const char *b)
{
	const char *x = strrchr(a, '/'), *y = strrchr(b, '/');
	size_t n = x ? (size_t)(x - a) : 0;

	return n == (y ? (size_t)(y - b) : 0) && !strncmp(a, b, n);
}

int cfs_export_copy_sync_dirs(int dir, const struct cfs_export_item *items,
			      size_t n)
{
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < n; i++)
		if (!i || !same_parent(items[i].path, items[i - 1].path))
			r = sync_dir(dir, &items[i]);
	return r;
}
