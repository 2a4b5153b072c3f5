/* Packs as files of a directory: STORE/packs/LLLL/NNNNNNNN.pack. */
#include "store/pack/engine_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/pack/fdcache.h"
#include "store/util/error.h"
#include "store/util/log.h"
#include "store/util/owner.h"

#define OPEN_MAX_PACKS 256u
/* Written at a time ahead of a sync. */
#define PUSH_BYTES (8u << 20)

static struct cfs_engine_dir *dir_of(struct cfs_engine *engine)
{
	return container_of(engine, struct cfs_engine_dir, base);
}

static int log_pack(int r, struct cfs_pack_id id, const char *what)
{
	char name[CFS_ENGINE_DIR_NAME];

	return cfs_log_err(r, "pack %s: %s", cfs_engine_dir_pack(id, name),
			   what);
}

static int open_pack(void *arg, struct cfs_pack_id id)
{
	const struct cfs_engine_dir *d = arg;
	char name[CFS_ENGINE_DIR_NAME];
	int fd;

	/* read-only: what is written is held open by create() */
	fd = openat(d->packs_fd, cfs_engine_dir_pack(id, name),
		    O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

/* Makes a directory and its name durable, and opens it. */
static int subdir(int dirfd, const char *name)
{
	bool made = mkdirat(dirfd, name, 0700) == 0;
	int fd;

	if (made) {
		if (fsync(dirfd) < 0)
			return -errno;
	} else if (errno != EEXIST) {
		return -errno;
	}
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && made)
		cfs_owner_give(fd, dirfd);
	return fd < 0 ? -errno : fd;
}

/* Without fallocate all that can be done is to look whether it would fit. */
static int room_by_count(struct cfs_engine_dir *d, uint64_t room)
{
	uint64_t want = room + cfs_fdcache_rooms(d->files);
	struct statvfs st;

	if (fstatvfs(d->packs_fd, &st) < 0)
		return -errno;
	return st.f_bavail < want / st.f_frsize ? -ENOSPC : 0;
}

static int set_room(struct cfs_engine_dir *d, int fd, uint64_t room)
{
	if (!room)
		return 0;
	while (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)room) < 0) {
		if (errno == EOPNOTSUPP || errno == ENOSYS)
			return room_by_count(d, room);
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static int dir_create(struct cfs_engine *engine, struct cfs_pack_id id,
		      uint64_t room)
{
	struct cfs_engine_dir *d = dir_of(engine);
	_cleanup_(cfs_closep) int fd = -1;
	_cleanup_(cfs_closep) int lane = -1;
	char name[CFS_ENGINE_DIR_NAME];
	int r;

	lane = subdir(d->packs_fd, cfs_engine_dir_lane(id, name));
	if (lane < 0)
		return lane;
	fd = openat(d->packs_fd, cfs_engine_dir_pack(id, name),
		    O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	cfs_owner_give(fd, d->packs_fd);
	r = set_room(d, fd, room);
	if (r == 0)
		r = cfs_fdcache_add(d->files, id, cfs_steal_fd(&fd), room);
	if (r < 0)
		(void)unlinkat(d->packs_fd, name, 0);
	return r;
}

/* Forgets the first @n bytes of the vector. */
static void advance(struct iovec **iov, int *count, size_t n)
{
	while (*count && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

static int write_all(int fd, struct iovec *iov, int count, uint64_t off)
{
	ssize_t n;

	advance(&iov, &count, 0); /* empty pieces at the front */
	while (count) {
		n = pwritev(fd, iov, CFS_MIN(count, IOV_MAX), (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		off += (uint64_t)n;
		advance(&iov, &count, (size_t)n);
	}
	return 0;
}

/* What lies before the border that was just passed goes to the disk now, while
 * more is being encoded; the sync then has little left.  An error of it is the
 * sync's to report. */
static void push(int fd, uint64_t off, uint64_t len)
{
	uint64_t border = (off + len) / PUSH_BYTES * PUSH_BYTES;

	if (border > off)
		(void)sync_file_range(fd, (off64_t)(border - PUSH_BYTES),
				      PUSH_BYTES, SYNC_FILE_RANGE_WRITE);
}

static uint64_t total(const struct iovec *iov, int n)
{
	uint64_t sum = 0;

	while (n--)
		sum += iov++->iov_len;
	return sum;
}

static int dir_write(struct cfs_engine *engine, struct cfs_pack_id id,
		     const struct iovec *iov, int n, uint64_t off)
{
	struct cfs_engine_dir *d = dir_of(engine);
	_cleanup_(cfs_freep) struct iovec *copy = NULL;
	struct cfs_fdcache_file *f;
	int r;

	copy = malloc((size_t)n * sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, iov, (size_t)n * sizeof(*copy));
	r = cfs_fdcache_get(d->files, id, &f);
	if (r < 0)
		return log_pack(r, id, "cannot be written");
	r = write_all(f->fd, copy, n, off);
	if (r == 0)
		push(f->fd, off, total(iov, n));
	cfs_fdcache_put(d->files, f);
	return r < 0 ? log_pack(r, id, "cannot be written") : 0;
}

static int sync_lane(struct cfs_engine_dir *d, struct cfs_pack_id id)
{
	_cleanup_(cfs_closep) int fd = -1;
	char name[CFS_ENGINE_DIR_NAME];

	fd = openat(d->packs_fd, cfs_engine_dir_lane(id, name),
		    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	/* whoever made the directory may have been killed right then */
	if (!d->lane_named && fsync(d->packs_fd) < 0)
		return -errno;
	d->lane_named = true;
	return 0;
}

static int dir_sync(struct cfs_engine *engine, struct cfs_pack_id id)
{
	struct cfs_engine_dir *d = dir_of(engine);
	struct cfs_fdcache_file *f;
	int r;

	r = cfs_fdcache_get(d->files, id, &f);
	if (r < 0)
		return r;
	if (fdatasync(f->fd) < 0)
		r = -errno;
	/* only the one who syncs looks at this, one at a time a pack */
	if (r == 0 && f->unnamed) {
		r = sync_lane(d, id);
		f->unnamed = r < 0;
	}
	cfs_fdcache_put(d->files, f);
	return r < 0 ? log_pack(r, id, "cannot be synced") : 0;
}

static int dir_seal(struct cfs_engine *engine, struct cfs_pack_id id,
		    uint64_t size)
{
	struct cfs_engine_dir *d = dir_of(engine);
	_cleanup_(cfs_closep) int fd = -1;
	char name[CFS_ENGINE_DIR_NAME];
	int r;

	/* one of an earlier process is not held open for writing */
	fd = openat(d->packs_fd, cfs_engine_dir_pack(id, name),
		    O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	/* the same size: blocks set aside behind it go back all the same */
	r = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
	cfs_fdcache_settle(d->files, id);
	return r < 0 ? log_pack(r, id, "cannot be sealed") : 0;
}

static ssize_t read_all(int fd, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pread(fd, (char *)buf + done, len - done,
			  (off_t)(off + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static ssize_t dir_read(struct cfs_engine *engine, struct cfs_pack_id id,
			void *buf, size_t len, uint64_t off)
{
	struct cfs_engine_dir *d = dir_of(engine);
	struct cfs_fdcache_file *f;
	ssize_t n;
	int r;

	r = cfs_fdcache_get(d->files, id, &f);
	if (r < 0)
		return r == -ENOENT ? r : log_pack(r, id, "cannot be read");
	n = read_all(f->fd, buf, len, off);
	cfs_fdcache_put(d->files, f);
	return n < 0 ? log_pack((int)n, id, "cannot be read") : n;
}

static int dir_remove(struct cfs_engine *engine, struct cfs_pack_id id)
{
	struct cfs_engine_dir *d = dir_of(engine);
	char name[CFS_ENGINE_DIR_NAME];
	int r = 0;

	if (unlinkat(d->packs_fd, cfs_engine_dir_pack(id, name), 0) < 0)
		r = -errno;
	if (r == 0)
		cfs_fdcache_drop(d->files, id);
	return r < 0 && r != -ENOENT ? log_pack(r, id, "cannot be removed") : r;
}

static int dir_statfs(struct cfs_engine *engine, struct statvfs *out)
{
	return fstatvfs(dir_of(engine)->packs_fd, out) < 0 ? -errno : 0;
}

static void dir_advise(struct cfs_engine *engine, struct cfs_pack_id id,
		       uint64_t off, uint64_t len)
{
	struct cfs_engine_dir *d = dir_of(engine);
	struct cfs_fdcache_file *f;

	if (cfs_fdcache_get(d->files, id, &f) < 0)
		return;
	(void)posix_fadvise(f->fd, (off_t)off, (off_t)len, POSIX_FADV_WILLNEED);
	cfs_fdcache_put(d->files, f);
}

static void dir_close(struct cfs_engine *engine)
{
	struct cfs_engine_dir *d = dir_of(engine);

	cfs_fdcache_free(d->files);
	cfs_closep(&d->packs_fd);
	cfs_closep(&d->refs_fd);
	pthread_mutex_destroy(&d->ref_lock);
	free(d);
}

static const struct cfs_engine_ops dir_ops = {
	.create = dir_create,
	.write = dir_write,
	.sync = dir_sync,
	.seal = dir_seal,
	.read = dir_read,
	.size = cfs_engine_dir_size,
	.list = cfs_engine_dir_list,
	.remove = dir_remove,
	.ref_get = cfs_engine_dir_ref_get,
	.ref_cas = cfs_engine_dir_ref_cas,
	.statfs = dir_statfs,
	.advise = dir_advise,
	.close = dir_close,
};

int cfs_engine_dir_open(int dirfd, struct cfs_engine **engine_out,
			struct cfs_error *err)
{
	struct cfs_engine_dir *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->base.ops = &dir_ops;
	d->dirfd = dirfd;
	pthread_mutex_init(&d->ref_lock, NULL);
	d->packs_fd = subdir(dirfd, "packs");
	d->refs_fd = subdir(dirfd, "refs");
	d->files = cfs_fdcache_new(OPEN_MAX_PACKS, open_pack, d);
	r = CFS_MIN(d->packs_fd, d->refs_fd);
	if (r >= 0)
		r = d->files ? 0 : -ENOMEM;
	if (r < 0) {
		dir_close(&d->base);
		return cfs_fail(err, r, "packs cannot be opened: %s",
				strerror(-r));
	}
	*engine_out = &d->base;
	return 0;
}
