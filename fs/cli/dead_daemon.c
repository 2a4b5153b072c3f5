/* Ends what a killed daemon's mount keeps waiting. */
#include "fs/cli/dead_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include "fs/cli/mountinfo.h"
#include "store/core/store.h"

/* Gone, or its first thread is and only others still end. */
static bool is_dead(pid_t pid)
{
	_cleanup_(cfs_closep) int fd = -1;
	char name[32], text[512];
	const char *state;
	ssize_t n;

	snprintf(name, sizeof(name), "/proc/%ld/stat", (long)pid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return errno == ESRCH;
	text[n] = '\0';
	state = strrchr(text, ')');
	return state &&
	       (!strncmp(state, ") Z", 3) || !strncmp(state, ") X", 3));
}

void cfs_dead_daemon_end(const char *path)
{
	_cleanup_(cfs_freep) char *mount = NULL;
	pid_t pid;

	if (cfs_store_holder(path, &pid, &mount) < 0 || !*mount ||
	    !is_dead(pid) || cfs_mountinfo_is_ours(mount) <= 0)
		return;
	/* Forced, it ends its requests even where it stays because somebody
	 * is inside; what is left is detached as any dead mount. */
	if (!umount2(mount, MNT_FORCE | UMOUNT_NOFOLLOW) || errno == EBUSY)
		fprintf(stderr,
			"ckptfs mount: %s: ended the mount of a daemon "
			"that was killed\n",
			mount);
}
