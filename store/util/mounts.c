/* The kernel's table of mounts: which of them a path lies in. */
#include "store/util/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "store/util/buf.h"

/* One field of the table, with its octal escapes undone. */
static bool unescape(const char *field, size_t len, char *out, size_t size)
{
	size_t i = 0, o = 0;

	while (i < len) {
		unsigned int c = (unsigned char)field[i++];

		if (c == '\\' && len - i >= 3) {
			c = (unsigned int)(field[i] - '0') * 64 +
			    (unsigned int)(field[i + 1] - '0') * 8 +
			    (unsigned int)(field[i + 2] - '0');
			i += 3;
		}
		if (o + 1 >= size)
			return false;
		out[o++] = (char)c;
	}
	out[o] = 0;
	return true;
}

/* Field @n (from 0) of a line that ends at @end. */
static const char *field(const char *line, const char *end, int n,
			 size_t *len_out)
{
	const char *p = line;

	while (n-- && p < end) {
		while (p < end && *p != ' ')
			p++;
		p += p < end;
	}
	*len_out = 0;
	while (p + *len_out < end && p[*len_out] != ' ')
		++*len_out;
	return p;
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (n == 1)
		return true;
	return strncmp(path, dir, n) == 0 && (!path[n] || path[n] == '/');
}

/* "id parent dev root MOUNT options … - TYPE SOURCE …" */
bool cfs_mounts_line(const char *line, const char *end, char *mount,
		     char *source, bool *ours)
{
	const char *dash = memmem(line, (size_t)(end - line), " - ", 3);
	const char *f;
	size_t len;

	if (!dash)
		return false;
	f = field(line, dash, 4, &len);
	if (!unescape(f, len, mount, PATH_MAX))
		return false;
	f = field(dash + 3, end, 0, &len);
	*ours = len == strlen("fuse.ckptfs") &&
		memcmp(f, "fuse.ckptfs", len) == 0;
	f = field(dash + 3, end, 1, &len);
	return unescape(f, len, source, PATH_MAX);
}

int cfs_mounts_find(const char *text, const char *path, char *mount_out,
		    char *source_out)
{
	char mount[PATH_MAX], source[PATH_MAX];
	size_t best = 0;
	bool ours, found = false;

	while (*text) {
		const char *end = strchrnul(text, '\n');

		/* later lines lie over earlier ones at the same place */
		if (cfs_mounts_line(text, end, mount, source, &ours) &&
		    is_below(path, mount) && strlen(mount) >= best) {
			best = strlen(mount);
			found = ours;
			strcpy(mount_out, mount);
			strcpy(source_out, source);
		}
		text = end + (*end == '\n');
	}
	return found;
}

int cfs_mounts_read(struct cfs_buf *out)
{
	_cleanup_(cfs_closep) int fd =
		open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	char block[4096];
	ssize_t n;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, block, sizeof(block))) > 0)
		cfs_buf_put(out, block, (size_t)n);
	if (n < 0)
		return -errno;
	return out->failed ? -ENOMEM : 0;
}

int cfs_mounts_real_path(const char *path, struct cfs_buf *out)
{
	_cleanup_(cfs_freep) char *head = strdup(path);
	_cleanup_(cfs_freep) char *real = NULL;
	size_t len = strlen(path);

	if (!head)
		return -ENOMEM;
	while (!(real = realpath(len ? head : ".", NULL))) {
		if (!len || (len == 1 && head[0] == '/'))
			return -errno;
		while (len && head[len - 1] == '/')
			len--;
		while (len && head[len - 1] != '/')
			len--;
		while (len > 1 && head[len - 1] == '/')
			len--;
		head[len] = 0;
	}
	cfs_buf_put_str(out, real);
	path += len;
	while (*path == '/')
		path++;
	if (*path)
		cfs_buf_printf(out, "%s%s", real[1] ? "/" : "", path);
	return out->failed ? -ENOMEM : 0;
}
