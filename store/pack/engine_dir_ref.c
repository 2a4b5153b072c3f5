/* Refs of engine_dir: small files replaced by rename, then made durable. */
#include "store/pack/engine_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/util/buf.h"
#include "store/util/log.h"
#include "store/util/owner.h"

#define REF_MAX 4096u

static int ref_read(int dirfd, const char *name, struct cfs_buf *out)
{
	_cleanup_(cfs_closep) int fd = -1;
	uint8_t buf[REF_MAX + 1];
	size_t len = 0;
	ssize_t n;

	fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	do {
		n = read(fd, buf + len, sizeof(buf) - len);
		if (n < 0 && errno != EINTR)
			return -errno;
		len += n > 0 ? (size_t)n : 0;
	} while (n != 0 && len < sizeof(buf));
	if (len > REF_MAX)
		return -EBADMSG;
	cfs_buf_put(out, buf, len);
	return out->failed ? -ENOMEM : 0;
}

static int ref_write(int fd, const struct cfs_buf *value)
{
	size_t done = 0;
	ssize_t n;

	while (done < value->len) {
		n = write(fd, value->data + done, value->len - done);
		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int cfs_engine_dir_ref_get(struct cfs_engine *engine, const char *name,
			   struct cfs_buf *out)
{
	struct cfs_engine_dir *d =
		container_of(engine, struct cfs_engine_dir, base);
	int r = ref_read(d->refs_fd, name, out);

	if (r < 0 && r != -ENOENT)
		return cfs_log_err(r, "ref %s cannot be read", name);
	return r;
}

static int is_old(const struct cfs_engine_dir *d, const char *name,
		  const struct cfs_buf *old)
{
	_cleanup_(cfs_buf_free) struct cfs_buf now = CFS_BUF_INIT;
	int r = ref_read(d->refs_fd, name, &now);

	if (r == -ENOENT)
		return old ? -EAGAIN : 0;
	if (r < 0)
		return r;
	if (!old || old->len != now.len ||
	    (now.len && memcmp(old->data, now.data, now.len) != 0))
		return -EAGAIN;
	return 0;
}

static int replace(const struct cfs_engine_dir *d, const char *name,
		   const struct cfs_buf *value)
{
	_cleanup_(cfs_closep) int fd = -1;
	char tmp[300];
	int r;

	(void)snprintf(tmp, sizeof(tmp), ".%s.new", name);
	fd = openat(d->refs_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
		    0600);
	if (fd < 0)
		return -errno;
	cfs_owner_give(fd, d->refs_fd);
	r = ref_write(fd, value);
	if (r == 0 && renameat(d->refs_fd, tmp, d->refs_fd, name) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(d->refs_fd, tmp, 0);
		return r;
	}
	return fsync(d->refs_fd) < 0 ? -errno : 0;
}

int cfs_engine_dir_ref_cas(struct cfs_engine *engine, const char *name,
			   const struct cfs_buf *old,
			   const struct cfs_buf *value)
{
	struct cfs_engine_dir *d =
		container_of(engine, struct cfs_engine_dir, base);
	int r;

	if (!*name || *name == '.' || strchr(name, '/') || strlen(name) > 200 ||
	    value->len > REF_MAX)
		return -EINVAL;
	pthread_mutex_lock(&d->ref_lock);
	r = is_old(d, name, old);
	if (r == 0)
		r = replace(d, name, value);
	pthread_mutex_unlock(&d->ref_lock);
	if (r < 0 && r != -EAGAIN)
		return cfs_log_err(r, "ref %s cannot be replaced", name);
	return r;
}
