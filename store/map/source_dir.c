/*
 * A directory of the machine as a source, held by a descriptor, so that it
 * stays the same one when it is renamed or mounted over.
 */
#include "store/map/source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include "store/util/buf.h"

struct dir_source {
	struct cfs_source base;
	int fd;
};

struct dir_file {
	struct cfs_file base;
	int fd;
};

static int fd_of(struct cfs_source *source)
{
	return container_of(source, struct dir_source, base)->fd;
}

static int file_fd(struct cfs_file *file)
{
	return container_of(file, struct dir_file, base)->fd;
}

static int file_stat(struct cfs_file *file, struct stat *st_out)
{
	return fstat(file_fd(file), st_out) < 0 ? -errno : 0;
}

static ssize_t file_pread(struct cfs_file *file, void *buf, size_t len,
			  uint64_t off)
{
	ssize_t n;

	if (off > INT64_MAX)
		return 0;
	do {
		n = pread(file_fd(file), buf, len, (off_t)off);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* Is the page at @off in the page cache?  Asked without any I/O. */
static bool is_warm(int fd, uint64_t off)
{
	char byte;
	struct iovec iov = {&byte, 1};

	return preadv2(fd, &iov, 1, (off_t)off, RWF_NOWAIT) == 1;
}

/* fadvise looks at every page; three tell most often that it need not. */
static void file_advise(struct cfs_file *file, uint64_t off, uint64_t len)
{
	int fd = file_fd(file);

	if (!len || off > INT64_MAX || len > INT64_MAX - off)
		return;
	if (is_warm(fd, off) && is_warm(fd, off + len / 2) &&
	    is_warm(fd, off + len - 1))
		return;
	(void)posix_fadvise(fd, (off_t)off, (off_t)len, POSIX_FADV_WILLNEED);
}

static void file_close(struct cfs_file *file)
{
	struct dir_file *f = container_of(file, struct dir_file, base);

	(void)close(f->fd);
	free(f);
}

static const struct cfs_file_ops file_ops = {
	.stat = file_stat,
	.pread = file_pread,
	.advise = file_advise,
	.close = file_close,
};

static int dir_stat(struct cfs_source *source, const char *path,
		    struct stat *st_out)
{
	if (!cfs_source_path_ok(path))
		return -EINVAL;
	if (fstatat(fd_of(source), path, st_out,
		    AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}

static int entry_stat(DIR *dir, const struct dirent *e, struct stat *st_out)
{
	if (e->d_type != DT_UNKNOWN) {
		*st_out = (struct stat){
			.st_ino = e->d_ino,
			.st_mode = DTTOIF(e->d_type),
		};
		return 0;
	}
	return fstatat(dirfd(dir), e->d_name, st_out, AT_SYMLINK_NOFOLLOW) < 0
		       ? -errno
		       : 0;
}

static int each_entry(DIR *dir, cfs_dirent_fn *fn, void *arg)
{
	for (;;) {
		struct dirent *e;
		struct stat st;
		int r;

		errno = 0;
		e = readdir(dir);
		if (!e)
			return -errno;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		r = entry_stat(dir, e, &st);
		if (r == -ENOENT)
			continue; /* gone since */
		if (r < 0)
			return r;
		r = fn(arg, e->d_name, &st);
		if (r)
			return r;
	}
}

static int dir_readdir(struct cfs_source *source, const char *path,
		       cfs_dirent_fn *fn, void *arg)
{
	DIR *dir;
	int fd, r;

	if (!cfs_source_path_ok(path))
		return -EINVAL;
	fd = openat(fd_of(source), *path ? path : ".",
		    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	r = each_entry(dir, fn, arg);
	(void)closedir(dir);
	return r;
}

static int dir_readlink(struct cfs_source *source, const char *path,
			struct cfs_buf *target_out)
{
	char target[PATH_MAX];
	ssize_t n;

	if (!*path || !cfs_source_path_ok(path))
		return -EINVAL;
	n = readlinkat(fd_of(source), path, target, sizeof(target));
	if (n < 0)
		return -errno;
	if ((size_t)n == sizeof(target))
		return -ENAMETOOLONG;
	cfs_buf_put(target_out, target, (size_t)n);
	return target_out->failed ? -ENOMEM : 0;
}

static int regular_only(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	return S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

static int dir_open(struct cfs_source *source, const char *path,
		    struct cfs_file **file_out)
{
	_cleanup_(cfs_closep) int fd = -1;
	struct dir_file *f;
	int r;

	if (!cfs_source_path_ok(path))
		return -EINVAL;
	/* a pipe of that name must not hang us */
	fd = openat(fd_of(source), *path ? path : ".",
		    O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return errno == ENXIO ? -EINVAL : -errno;
	r = regular_only(fd);
	if (r < 0)
		return r;
	f = malloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	*f = (struct dir_file){.base.ops = &file_ops, .fd = cfs_steal_fd(&fd)};
	*file_out = &f->base;
	return 0;
}

/*
 * There is no lgetxattrat: the descriptor's name in /proc leads into the
 * directory we hold, wherever that is by now.
 */
static int proc_path(struct cfs_source *source, const char *path, char *out,
		     size_t size)
{
	int n;

	if (!cfs_source_path_ok(path))
		return -EINVAL;
	n = snprintf(out, size, "/proc/self/fd/%d/%s", fd_of(source),
		     *path ? path : ".");
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static ssize_t dir_getxattr(struct cfs_source *source, const char *path,
			    const char *name, void *buf, size_t size)
{
	char full[PATH_MAX];
	ssize_t n;
	int r;

	r = proc_path(source, path, full, sizeof(full));
	if (r < 0)
		return r;
	n = lgetxattr(full, name, buf, size);
	return n < 0 ? -errno : n;
}

static ssize_t dir_listxattr(struct cfs_source *source, const char *path,
			     char *buf, size_t size)
{
	char full[PATH_MAX];
	ssize_t n;
	int r;

	r = proc_path(source, path, full, sizeof(full));
	if (r < 0)
		return r;
	n = llistxattr(full, buf, size);
	return n < 0 ? -errno : n;
}

static int dir_statfs(struct cfs_source *source, struct statvfs *out)
{
	return fstatvfs(fd_of(source), out) < 0 ? -errno : 0;
}

static void dir_free(struct cfs_source *source)
{
	struct dir_source *d = container_of(source, struct dir_source, base);

	(void)close(d->fd);
	free(d);
}

static const struct cfs_source_ops dir_ops = {
	.stat = dir_stat,
	.readdir = dir_readdir,
	.readlink = dir_readlink,
	.open = dir_open,
	.getxattr = dir_getxattr,
	.listxattr = dir_listxattr,
	.statfs = dir_statfs,
	.free = dir_free,
};

int cfs_source_dir_open(const char *path, struct cfs_source **source_out)
{
	struct dir_source *d = malloc(sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->base.ops = &dir_ops;
	d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->fd < 0) {
		int r = -errno;

		free(d);
		return r;
	}
	*source_out = &d->base;
	return 0;
}
