#include "fs/cli/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

extern char **environ;

/* Spaces and the like stand in the table as three octal digits. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] &&
		    s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
				       (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* Field @n of a line, counted from 0; cut in place. */
static char *field(char *line, int n)
{
	char *rest = NULL, *f = strtok_r(line, " ", &rest);

	while (f && n--)
		f = strtok_r(NULL, " ", &rest);
	return f;
}

/*
 * "36 35 98:0 /root /mnt/dir opts optional… - type source super-options": the
 * last line of a directory is the mount on top.
 */
static int find_mount(const char *dir, char kind[32], char supers[256])
{
	_cleanup_(cfs_freep) char *line = NULL;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	int found = -ENOENT;
	size_t cap = 0;

	if (!f)
		return -errno;
	while (getline(&line, &cap, f) > 0) {
		char *tail = strstr(line, " - ");
		char *at, *type, *rest = NULL;

		if (!tail)
			continue;
		*tail = '\0';
		type = strtok_r(tail + 3, " ", &rest);
		(void)strtok_r(NULL, " ", &rest);
		at = field(line, 4);
		if (!at || !type)
			continue;
		unescape(at);
		if (strcmp(at, dir) != 0)
			continue;
		snprintf(kind, 32, "%s", type);
		snprintf(supers, 256, "%s", rest ? rest : "");
		found = 0;
	}
	fclose(f);
	return found;
}

int cfs_mountinfo_is_ours(const char *dir)
{
	char kind[32], supers[256];
	int r = find_mount(dir, kind, supers);

	return r < 0 ? r : !strcmp(kind, CFS_MOUNT_TYPE);
}

int cfs_mountinfo_owner(const char *dir, uid_t *uid_out)
{
	static const char key[] = "user_id=";
	char kind[32], supers[256];
	const char *at;
	int r = find_mount(dir, kind, supers);

	if (r < 0)
		return r;
	at = strstr(supers, key);
	if (!at)
		return -ENOENT;
	*uid_out = (uid_t)strtoul(at + strlen(key), NULL, 10);
	return 0;
}

char *cfs_mountinfo_realpath(const char *dir)
{
	_cleanup_(cfs_freep) char *parent = NULL;
	_cleanup_(cfs_freep) char *copy = NULL;
	_cleanup_(cfs_freep) char *copy2 = NULL;
	char *path = realpath(dir, NULL);

	if (path || errno != ENOTCONN)
		return path;
	copy = strdup(dir);
	copy2 = strdup(dir);
	if (!copy || !copy2)
		return NULL;
	parent = realpath(dirname(copy), NULL);
	if (!parent)
		return NULL;
	if (asprintf(&path, "%s/%s", strcmp(parent, "/") ? parent : "",
		     basename(copy2)) < 0)
		return NULL;
	return path;
}

bool cfs_path_is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	while (len && dir[len - 1] == '/')
		len--;
	return !strncmp(path, dir, len) &&
	       (path[len] == '/' || path[len] == '\0');
}

static int run(char *const argv[])
{
	int status, r;
	pid_t pid;

	r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (r)
		return -r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}

int cfs_unmount(const char *dir, bool lazy)
{
	_cleanup_(cfs_freep) char *copy = NULL;
	char program[] = "fusermount3", flags[] = "-u", lazy_flags[] = "-uz",
	     end[] = "--";
	char *argv[] = {program, lazy ? lazy_flags : flags, end, NULL, NULL};

	if (!umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
		return 0;
	if (errno != EPERM)
		return -errno;
	copy = strdup(dir);
	if (!copy)
		return -ENOMEM;
	argv[3] = copy;
	return run(argv);
}
