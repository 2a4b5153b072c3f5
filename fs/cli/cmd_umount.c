/* ckptfs umount DIR: unmounts, and waits until the daemon is gone. */
#include "fs/cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "fs/cli/mountinfo.h"
#include "fs/fuse/fuse.h"

#define WAIT_MS 10000

/* A descriptor that becomes readable when the daemon ends; -1 when unknown. */
static int open_daemon(const char *dir)
{
	char text[24] = "";
	ssize_t n = getxattr(dir, CFS_FUSE_PID_XATTR, text, sizeof(text) - 1);
	long pid = n > 0 ? strtol(text, NULL, 10) : 0;

	if (pid <= 1)
		return -1;
	return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
}

static int failed(const char *dir, const char *why)
{
	fprintf(stderr, "ckptfs umount: %s: %s\n", dir, why);
	return CFS_EXIT_FAILED;
}

static int failed_owner(const char *dir, uid_t owner)
{
	fprintf(stderr,
		"ckptfs umount: %s: user %u mounted it; only that user and "
		"root may unmount it\n",
		dir, (unsigned)owner);
	return CFS_EXIT_FAILED;
}

static int unmount(const char *arg, bool lazy)
{
	_cleanup_(cfs_freep) char *dir = cfs_mountinfo_realpath(arg);
	_cleanup_(cfs_closep) int daemon = -1;
	struct pollfd wait = {.events = POLLIN};
	uid_t owner;
	int r;

	if (!dir)
		return failed(arg, strerror(errno));
	if (cfs_mountinfo_is_ours(dir) <= 0)
		return failed(dir, "no ckptfs mount is there");
	if (geteuid() && !cfs_mountinfo_owner(dir, &owner) && owner != getuid())
		return failed_owner(dir, owner);
	daemon = open_daemon(dir);
	r = cfs_unmount(dir, lazy);
	if (r == -EBUSY)
		return failed(dir, "in use: a process has a file open or "
				   "its directory there (fuser -vm DIR), or "
				   "use --lazy");
	if (r == -ENOENT)
		return failed(dir, "fusermount3 is not installed, and only "
				   "root can do without");
	if (r == -EIO)
		return failed(dir, "fusermount3 refused, and says why above; "
				   "if it is in use: fuser -vm DIR, or "
				   "--lazy");
	if (r < 0)
		return failed(dir, strerror(-r));
	wait.fd = daemon;
	if (daemon >= 0 && !lazy && poll(&wait, 1, WAIT_MS) == 0)
		return failed(dir, "unmounted, but its daemon is still "
				   "there");
	return CFS_EXIT_OK;
}

static int run(int argc, char **argv)
{
	static const struct option longs[] = {
		{"lazy", no_argument, NULL, 'l'},
		{NULL, 0, NULL, 0},
	};
	bool lazy = false;
	int c, r = CFS_EXIT_OK;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "l", longs, NULL)) != -1) {
		if (c != 'l') {
			fprintf(stderr, "ckptfs umount: no option '%s'\n",
				argv[optind - 1]);
			return CFS_EXIT_USAGE;
		}
		lazy = true;
	}
	if (optind == argc) {
		fputs("usage: ckptfs umount [--lazy] DIR … (see ckptfs umount "
		      "--help)\n",
		      stderr);
		return CFS_EXIT_USAGE;
	}
	for (; optind < argc; optind++)
		if (unmount(argv[optind], lazy))
			r = CFS_EXIT_FAILED;
	return r;
}

static const char help[] =
	"usage: ckptfs umount [--lazy] DIR ...\n"
	"\n"
	"Unmounts what `ckptfs mount` mounted at each DIR and waits until its\n"
	"daemon has ended.  Works as the user who mounted, and as root.\n"
	"\n"
	"  -l, --lazy   detach now, end when the last open file is closed\n";

const struct cfs_verb cfs_verb_umount = {"umount", "end a mount", help, run};
