/* Packs as files of a directory: STORE/packs/LLLL/NNNNNNNN.pack. */
#include "store/pack/engine_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/pack/fault.h"
#include "store/pack/fdcache.h"
#include "store/util/error.h"
#include "store/util/log.h"

#define OPEN_MAX_PACKS 256u
#define NAME_BYTES     24 /* "LLLL/NNNNNNNN.pack" */

static struct cfs_engine_dir *dir_of(struct cfs_engine *engine)
{
	return container_of(engine, struct cfs_engine_dir, base);
}

static const char *pack_name(struct cfs_pack_id id, char name[NAME_BYTES])
{
	(void)snprintf(name, NAME_BYTES, "%04x/%08x.pack", (unsigned)id.lane,
		       (unsigned)id.number);
	return name;
}

static const char *lane_name(struct cfs_pack_id id, char name[NAME_BYTES])
{
	(void)snprintf(name, NAME_BYTES, "%04x", (unsigned)id.lane);
	return name;
}

static int log_pack(int r, struct cfs_pack_id id, const char *what)
{
	char name[NAME_BYTES];

	return cfs_log_err(r, "pack %s: %s", pack_name(id, name), what);
}

static int open_pack(void *arg, struct cfs_pack_id id)
{
	const struct cfs_engine_dir *d = arg;
	char name[NAME_BYTES];
	int fd;

	/* read-only: what is written is held open by create() */
	fd = openat(d->packs_fd, pack_name(id, name),
		    O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

/* Makes a directory and its name durable, and opens it. */
static int subdir(int dirfd, const char *name)
{
	int fd;

	if (mkdirat(dirfd, name, 0700) == 0) {
		if (fsync(dirfd) < 0)
			return -errno;
	} else if (errno != EEXIST) {
		return -errno;
	}
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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
	char name[NAME_BYTES];
	int r;

	r = cfs_fault_hit(CFS_ENGINE_CREATE);
	if (r < 0)
		return r;
	lane = subdir(d->packs_fd, lane_name(id, name));
	if (lane < 0)
		return lane;
	fd = openat(d->packs_fd, pack_name(id, name),
		    O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
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

static int dir_write(struct cfs_engine *engine, struct cfs_pack_id id,
		     const struct iovec *iov, int n, uint64_t off)
{
	struct cfs_engine_dir *d = dir_of(engine);
	_cleanup_(cfs_freep) struct iovec *copy = NULL;
	struct cfs_fdcache_file *f;
	int r;

	r = cfs_fault_hit(CFS_ENGINE_WRITE);
	if (r < 0)
		return log_pack(r, id, "cannot be written");
	copy = malloc((size_t)n * sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, iov, (size_t)n * sizeof(*copy));
	r = cfs_fdcache_get(d->files, id, &f);
	if (r == 0) {
		r = write_all(f->fd, copy, n, off);
		cfs_fdcache_put(d->files, f);
	}
	return r < 0 ? log_pack(r, id, "cannot be written") : 0;
}

static int sync_lane(const struct cfs_engine_dir *d, struct cfs_pack_id id)
{
	_cleanup_(cfs_closep) int fd = -1;
	char name[NAME_BYTES];

	fd = openat(d->packs_fd, lane_name(id, name),
		    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int dir_sync(struct cfs_engine *engine, struct cfs_pack_id id)
{
	struct cfs_engine_dir *d = dir_of(engine);
	struct cfs_fdcache_file *f;
	int r;

	r = cfs_fdcache_get(d->files, id, &f);
	if (r < 0)
		return r;
	r = cfs_fault_hit(CFS_ENGINE_SYNC);
	if (r == 0 && fdatasync(f->fd) < 0)
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
	struct cfs_fdcache_file *f;
	int r;

	r = cfs_fdcache_get(d->files, id, &f);
	if (r < 0)
		return r;
	/* the same size: blocks set aside behind it go back all the same */
	r = cfs_fault_hit(CFS_ENGINE_SEAL);
	if (r == 0 && ftruncate(f->fd, (off_t)size) < 0)
		r = -errno;
	cfs_fdcache_put(d->files, f);
	cfs_fdcache_settle(d->files, id);
	return r < 0 ? log_pack(r, id, "cannot be sealed") : 0;
}

static ssize_t dir_read(struct cfs_engine *engine, struct cfs_pack_id id,
			void *buf, size_t len, uint64_t off)
{
	struct cfs_engine_dir *d = dir_of(engine);
	struct cfs_fdcache_file *f;
	size_t done = 0;
	ssize_t n;
	int r;

	r = cfs_fault_hit(CFS_ENGINE_READ);
	if (r == 0)
		r = cfs_fdcache_get(d->files, id, &f);
	if (r < 0)
		return r == -ENOENT ? r : log_pack(r, id, "cannot be read");
	while (done < len) {
		n = pread(f->fd, (char *)buf + done, len - done,
			  (off_t)(off + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = -errno;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	cfs_fdcache_put(d->files, f);
	return r < 0 ? log_pack(r, id, "cannot be read") : (ssize_t)done;
}

static int dir_size(struct cfs_engine *engine, struct cfs_pack_id id,
		    uint64_t *size_out)
{
	char name[NAME_BYTES];
	struct stat st;

	if (fstatat(dir_of(engine)->packs_fd, pack_name(id, name), &st,
		    AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	*size_out = (uint64_t)st.st_size;
	return 0;
}

/* Exactly @digits lower-case hex digits and then @tail. */
static bool parse_name(const char *name, int digits, const char *tail,
		       uint32_t *out)
{
	uint32_t v = 0;

	for (int i = 0; i < digits; i++) {
		char c = name[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint32_t)(c - 'a' + 10);
		else
			return false;
	}
	*out = v;
	return strcmp(name + digits, tail) == 0;
}

struct numbers {
	uint32_t *v;
	size_t n, cap;
};

static void numbers_free(struct numbers *numbers)
{
	free(numbers->v);
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The names in a directory that are numbers, ascending. */
static int read_numbers(int dirfd, const char *path, int digits,
			const char *tail, struct numbers *out)
{
	const struct dirent *e;
	uint32_t v, *grown;
	DIR *dir;
	int fd, r;

	fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		r = -errno;
		cfs_closep(&fd);
		return r;
	}
	for (errno = 0, r = 0; r == 0 && (e = readdir(dir)); errno = 0) {
		if (!parse_name(e->d_name, digits, tail, &v))
			continue;
		if (out->n == out->cap) {
			out->cap = out->cap ? 2 * out->cap : 64;
			grown = realloc(out->v, out->cap * sizeof(*grown));
			r = grown ? 0 : -ENOMEM;
			if (!grown)
				break;
			out->v = grown;
		}
		out->v[out->n++] = v;
	}
	if (r == 0 && errno)
		r = -errno;
	(void)closedir(dir);
	if (r == 0 && out->n)
		qsort(out->v, out->n, sizeof(*out->v), compare);
	return r;
}

static int list_lane(struct cfs_engine *engine, uint16_t lane, cfs_pack_fn *fn,
		     void *arg)
{
	_cleanup_(numbers_free) struct numbers packs = {0};
	struct cfs_pack_id id = {lane, 0};
	char name[NAME_BYTES];
	uint64_t size;
	int r;

	r = read_numbers(dir_of(engine)->packs_fd, lane_name(id, name), 8,
			 ".pack", &packs);
	for (size_t i = 0; r == 0 && i < packs.n; i++) {
		id.number = packs.v[i];
		r = dir_size(engine, id, &size);
		if (r == -ENOENT) /* removed meanwhile */
			r = 0;
		else if (r == 0 && id.number)
			r = fn(arg, id, size);
	}
	return r;
}

static int dir_list(struct cfs_engine *engine, cfs_pack_fn *fn, void *arg)
{
	_cleanup_(numbers_free) struct numbers lanes = {0};
	int r;

	r = read_numbers(dir_of(engine)->packs_fd, ".", 4, "", &lanes);
	for (size_t i = 0; r == 0 && i < lanes.n; i++)
		r = list_lane(engine, (uint16_t)lanes.v[i], fn, arg);
	return r;
}

static int dir_remove(struct cfs_engine *engine, struct cfs_pack_id id)
{
	struct cfs_engine_dir *d = dir_of(engine);
	char name[NAME_BYTES];
	int r;

	r = cfs_fault_hit(CFS_ENGINE_REMOVE);
	if (r == 0 && unlinkat(d->packs_fd, pack_name(id, name), 0) < 0)
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
	.size = dir_size,
	.list = dir_list,
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
	cfs_fault_from_env();
	*engine_out = &d->base;
	return 0;
}
