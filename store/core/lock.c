/* One process has a store open: flock on STORE/lock, which says who. */
#include "store/core/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "store/util/error.h"
#include "store/util/owner.h"

#define HOLDER_MAX 4200

/* The lock file: the pid, then the directory it is mounted at or nothing. */
static int write_holder(int fd, const char *mount)
{
	char text[HOLDER_MAX];
	int len;

	len = snprintf(text, sizeof(text), "%ld\n%s\n", (long)getpid(), mount);
	if (len < 0 || (size_t)len >= sizeof(text))
		return -ENAMETOOLONG;
	if (ftruncate(fd, 0) < 0)
		return -errno;
	if (pwrite(fd, text, (size_t)len, 0) != len)
		return errno ? -errno : -EIO;
	return 0;
}

/* The pid of the text that write_holder() wrote, 0 where there is none. */
static long read_holder(int fd, char mount[HOLDER_MAX])
{
	ssize_t n = pread(fd, mount, HOLDER_MAX - 1, 0);
	char *rest;
	long pid;

	mount[n > 0 ? n : 0] = '\0';
	pid = strtol(mount, &rest, 10);
	rest += strspn(rest, "\n");
	rest[strcspn(rest, "\n")] = '\0';
	memmove(mount, rest, strlen(rest) + 1);
	return pid > 0 ? pid : 0;
}

/*
 * @held: the file or the directory, whose lock another has; those that only
 * read share it.  The text of the file is the holder's if it is the file.
 */
static int busy(int held, bool is_file, const char *path, struct cfs_error *err)
{
	char mount[HOLDER_MAX] = "";
	long pid = 0;

	if (flock(held, LOCK_SH | LOCK_NB) == 0)
		return cfs_fail(err, -EBUSY,
				"store %s is in use by a process that may only "
				"read it",
				path);
	if (is_file)
		pid = read_holder(held, mount);
	if (pid <= 0)
		return cfs_fail(err, -EBUSY,
				"store %s is in use by another process", path);
	if (!*mount)
		return cfs_fail(err, -EBUSY,
				"store %s is in use by process %ld", path, pid);
	return cfs_fail(err, -EBUSY,
			"store %s is in use by process %ld (mounted at %s)",
			path, pid, mount);
}

/* Whoever writes waits for those who read, and they for him.  The file may be
 * missing or closed to them, and not every filesystem has locks. */
static int take_shared(int dirfd, const char *path, int *fd_out,
		       struct cfs_error *err)
{
	_cleanup_(cfs_closep) int fd = -1;

	fd = openat(dirfd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return busy(fd, true, path, err);
	if (flock(dirfd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return cfs_fail(err, -EBUSY,
				"store %s is in use by another process", path);
	*fd_out = cfs_steal_fd(&fd);
	return 0;
}

/* The directory as well, for when somebody deletes the file; not every network
 * filesystem can. */
static int take_exclusive(int fd, int dirfd, const char *path,
			  struct cfs_error *err)
{
	int r;

	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = -errno;
		if (r == -EWOULDBLOCK)
			return busy(fd, true, path, err);
		return cfs_fail(err, r, "%s/lock cannot be locked: %s", path,
				strerror(-r));
	}
	if (flock(dirfd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return busy(dirfd, false, path, err);
	return 0;
}

int cfs_lock_take(int dirfd, const char *path, int *fd_out, bool *shared_out,
		  struct cfs_error *err)
{
	_cleanup_(cfs_closep) int fd = -1;
	int r;

	fd = openat(dirfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
		    0644);
	*shared_out = fd < 0 && (errno == EROFS || errno == EACCES);
	if (*shared_out)
		return take_shared(dirfd, path, fd_out, err);
	if (fd < 0) {
		r = -errno;
		return cfs_fail(err, r, "%s/lock cannot be opened: %s", path,
				strerror(-r));
	}
	cfs_owner_give(fd, dirfd);
	r = take_exclusive(fd, dirfd, path, err);
	if (r < 0)
		return r;
	/* Only words for whoever finds it locked: a full disk is no reason
	 * not to open. */
	(void)write_holder(fd, "");
	*fd_out = cfs_steal_fd(&fd);
	return 0;
}

int cfs_store_set_mount(struct cfs_store *store, const char *dir)
{
	return store->lock_fd < 0 || store->untouched
		       ? 0
		       : write_holder(store->lock_fd, dir ? dir : "");
}

int cfs_store_holder(const char *path, pid_t *pid_out, char **mount_out)
{
	_cleanup_(cfs_freep) char *name = NULL, *mount = malloc(HOLDER_MAX);
	_cleanup_(cfs_closep) int fd = -1;
	long pid;

	if (!mount || asprintf(&name, "%s/lock", path) < 0) {
		name = NULL; /* undefined where it failed */
		return -ENOMEM;
	}
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	pid = read_holder(fd, mount);
	if (!pid)
		return -ENOENT;
	*pid_out = (pid_t)pid;
	*mount_out = cfs_steal(mount);
	return 0;
}
