/* Making a store, and knowing one. */
#include "store/core/store_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "store/util/error.h"

static void closedirp(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

/* 1 empty, 0 not. */
static int is_empty(const char *path)
{
	_cleanup_(closedirp) DIR *dir = opendir(path);
	const struct dirent *e;

	if (!dir)
		return -errno;
	while ((e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			return 0;
	return 1;
}

/* What files' modes keep from others must not be had by reading packs. */
static int make_directories(const char *path, int *dirfd_out,
			    struct cfs_error *err)
{
	static const char *const names[] = {"packs", "refs"};
	_cleanup_(cfs_closep) int fd = -1;
	size_t i;
	int r;

	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		r = -errno;
		return cfs_fail(err, r, "%s cannot be made: %s", path,
				strerror(-r));
	}
	r = is_empty(path);
	if (r == 0)
		return cfs_fail(err, -EEXIST,
				cfs_store_probe(path) > 0
					? "%s is a store already"
					: "%s is not empty",
				path);
	if (r > 0)
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = r < 0 ? r : fd < 0 ? -errno : 0;
	for (i = 0; r == 0 && i < CFS_ARRAY_SIZE(names); i++)
		if (mkdirat(fd, names[i], 0700) < 0)
			r = -errno;
	if (r < 0)
		return cfs_fail(err, r, "%s: %s", path, strerror(-r));
	*dirfd_out = cfs_steal_fd(&fd);
	return 0;
}

int cfs_store_init(const char *path,
		   const struct cfs_store_init_options *options,
		   struct cfs_error *err)
{
	_cleanup_(cfs_closep) int fd = -1, up = -1;
	int r = make_directories(path, &fd, err);

	if (r < 0)
		return r;
	r = cfs_config_write(fd, options, err);
	if (r < 0)
		return r;
	/* its name, too; not every place can be synced by everybody */
	up = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (up >= 0)
		(void)fsync(up);
	return 0;
}

int cfs_store_probe(const char *path)
{
	_cleanup_(cfs_closep) int fd = -1;
	struct cfs_store_config config;
	int r;

	/* A directory above it may be one that only lets through. */
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	r = cfs_config_read(fd, path, &config, NULL);
	if (r == 0)
		cfs_config_fini(&config);
	/* A newer or damaged one is one all the same: who opens it hears what
	 * is wrong, and nobody takes it for a directory of files. */
	if (r == 0 || r == -EPROTONOSUPPORT || r == -EBADMSG)
		return 1;
	return r == -ENOENT ? 0 : r;
}
