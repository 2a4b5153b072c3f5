#include "store/util/owner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/util/base.h"
#include "store/util/log.h"

static bool is_given(int fd, const struct stat *to)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	return st.st_uid == to->st_uid && st.st_gid == to->st_gid;
}

void cfs_owner_give(int fd, int like)
{
	struct stat to;

	if (geteuid() != 0 || fstat(like, &to) < 0 || is_given(fd, &to))
		return;
	if (fchown(fd, to.st_uid, to.st_gid) < 0)
		cfs_log(CFS_LOG_WARN, "a file of the store stays root's: %s",
			strerror(errno));
}

/* Only what root made: not what somebody linked here to have it. */
static void give_file(int dir, const char *name, const struct stat *to)
{
	_cleanup_(cfs_closep) int fd =
		openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_uid == 0 && st.st_nlink == 1)
		(void)!fchownat(fd, "", to->st_uid, to->st_gid, AT_EMPTY_PATH);
}

void cfs_owner_give_dir(const char *path)
{
	_cleanup_(cfs_closep) int parent = -1;
	struct dirent *e;
	struct stat to;
	DIR *dir;

	if (geteuid() != 0)
		return;
	dir = opendir(path);
	if (!dir)
		return;
	parent = openat(dirfd(dir), "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (parent >= 0 && fstat(parent, &to) == 0 && to.st_uid != 0) {
		cfs_owner_give(dirfd(dir), parent);
		while ((e = readdir(dir)))
			give_file(dirfd(dir), e->d_name, &to);
	}
	closedir(dir);
}
