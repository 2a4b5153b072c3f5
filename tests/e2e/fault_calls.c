/*
 * Preloaded into the daemon by store_fault.py: fails calls on files below one
 * directory, and allocations, as a page shared with the test says.
 *
 *   CFS_FAULT_PAGE  a file that holds a struct page
 *   CFS_FAULT_DIR   calls on files elsewhere pass
 *
 * Allocations fail only where the program itself or libzstd asks.  RocksDB
 * ends a process that has no memory, and libfuse its loop: not ours to mend.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
	WRITE = 1,
	SYNC = 2,
	RENAME = 4,
	CREATE = 8,
	ROOM = 16,
	REMOVE = 32,
	READ = 64,
	ALLOC = 128,
	EXCHANGE = 256, /* of two names; error 0: done, then killed */
};

struct page { /* the test writes the first four */
	atomic_uint kinds, nth, once, error;
	atomic_uint count, hits;
};

#define RANGES_MAX 8u

static struct page *page;
static const char *dir;
static size_t dir_len;
/* Text of those whose allocations may fail. */
static struct {
	uintptr_t from, to;
} ranges[RANGES_MAX];
static unsigned n_ranges;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

static bool armed(enum kind kind)
{
	/* acquire: the rest of the page was written before */
	return page &&
	       atomic_load_explicit(&page->kinds, memory_order_acquire) & kind;
}

static bool hit(void)
{
	unsigned nth = atomic_load(&page->nth);
	unsigned n = atomic_fetch_add(&page->count, 1) + 1;

	if (!nth || (atomic_load(&page->once) ? n != nth : n % nth != 0))
		return false;
	atomic_fetch_add(&page->hits, 1);
	errno = (int)atomic_load(&page->error);
	return true;
}

static bool is_ours(const char *path)
{
	return !strncmp(path, dir, dir_len);
}

static bool fails_fd(enum kind kind, int fd)
{
	char name[64], path[PATH_MAX];
	ssize_t n;

	if (!armed(kind))
		return false;
	(void)snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	n = readlink(name, path, sizeof(path) - 1);
	if (n < 0)
		return false;
	path[n] = '\0';
	return is_ours(path) && hit();
}

static bool fails_at(enum kind kind, int dirfd, const char *path)
{
	if (!armed(kind))
		return false;
	if (path[0] != '/' && dirfd != AT_FDCWD)
		return fails_fd(kind, dirfd);
	return is_ours(path) && hit();
}

/* ---- files ---- */

ssize_t write(int fd, const void *buf, size_t n)
{
	return fails_fd(WRITE, fd) ? -1 : syscall(SYS_write, fd, buf, n);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t off)
{
	return fails_fd(WRITE, fd) ? -1
				   : syscall(SYS_pwrite64, fd, buf, n, off);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off_t off)
{
	return pwrite(fd, buf, n, off);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	return fails_fd(WRITE, fd) ? -1
				   : syscall(SYS_pwritev, fd, iov, n, off, 0);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off_t off)
{
	return pwritev(fd, iov, n, off);
}

ssize_t pread(int fd, void *buf, size_t n, off_t off)
{
	return fails_fd(READ, fd) ? -1 : syscall(SYS_pread64, fd, buf, n, off);
}

ssize_t pread64(int fd, void *buf, size_t n, off_t off)
{
	return pread(fd, buf, n, off);
}

int fsync(int fd)
{
	return fails_fd(SYNC, fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return fails_fd(SYNC, fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	return fails_fd(ROOM, fd)
		       ? -1
		       : (int)syscall(SYS_fallocate, fd, mode, off, len);
}

int fallocate64(int fd, int mode, off_t off, off_t len)
{
	return fallocate(fd, mode, off, len);
}

int ftruncate(int fd, off_t len)
{
	return fails_fd(ROOM, fd) ? -1 : (int)syscall(SYS_ftruncate, fd, len);
}

int ftruncate64(int fd, off_t len)
{
	return ftruncate(fd, len);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return fails_at(RENAME, from_fd, from)
		       ? -1
		       : (int)syscall(SYS_renameat2, from_fd, from, to_fd, to,
				      0);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to,
	      unsigned flags)
{
	bool fails = fails_at(EXCHANGE, from_fd, from);
	int r;

	if (fails && errno)
		return -1;
	r = (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
	if (fails)
		(void)raise(SIGKILL);
	return r;
}

int rename(const char *from, const char *to)
{
	return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlinkat(int fd, const char *path, int flags)
{
	return fails_at(REMOVE, fd, path)
		       ? -1
		       : (int)syscall(SYS_unlinkat, fd, path, flags);
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

static int open_at(int fd, const char *path, int flags, va_list args)
{
	mode_t mode =
		flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, mode_t) : 0;

	if (flags & O_CREAT && fails_at(CREATE, fd, path))
		return -1;
	return (int)syscall(SYS_openat, fd, path, flags, mode);
}

int openat(int fd, const char *path, int flags, ...)
{
	va_list args;
	int r;

	va_start(args, flags);
	r = open_at(fd, path, flags, args);
	va_end(args);
	return r;
}

int openat64(int fd, const char *path, int flags, ...)
{
	va_list args;
	int r;

	va_start(args, flags);
	r = open_at(fd, path, flags, args);
	va_end(args);
	return r;
}

int open(const char *path, int flags, ...)
{
	va_list args;
	int r;

	va_start(args, flags);
	r = open_at(AT_FDCWD, path, flags, args);
	va_end(args);
	return r;
}

int open64(const char *path, int flags, ...)
{
	va_list args;
	int r;

	va_start(args, flags);
	r = open_at(AT_FDCWD, path, flags, args);
	va_end(args);
	return r;
}

/* ---- memory ---- */

static bool no_memory(const void *caller)
{
	uintptr_t at = (uintptr_t)caller;

	if (!armed(ALLOC))
		return false;
	for (unsigned i = 0; i < n_ranges; i++)
		if (at >= ranges[i].from && at < ranges[i].to)
			return hit();
	return false;
}

void *malloc(size_t size)
{
	return no_memory(__builtin_return_address(0)) ? NULL
						      : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return no_memory(__builtin_return_address(0)) ? NULL
						      : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
	return no_memory(__builtin_return_address(0))
		       ? NULL
		       : __libc_realloc(old, size);
}

/* ---- beginning ---- */

static int note_text(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	if (info->dlpi_name[0] && !strstr(info->dlpi_name, "libzstd"))
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[i];

		if (h->p_type != PT_LOAD || !(h->p_flags & PF_X) ||
		    n_ranges == RANGES_MAX)
			continue;
		ranges[n_ranges].from = info->dlpi_addr + h->p_vaddr;
		ranges[n_ranges].to = ranges[n_ranges].from + h->p_memsz;
		n_ranges++;
	}
	return 0;
}

__attribute__((constructor)) static void begin(void)
{
	const char *file = getenv("CFS_FAULT_PAGE");
	void *at;
	int fd;

	dir = getenv("CFS_FAULT_DIR");
	if (!file || !dir)
		return;
	dir_len = strlen(dir);
	fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	at = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED,
		  fd, 0);
	(void)close(fd);
	(void)dl_iterate_phdr(note_text, NULL);
	if (at != MAP_FAILED)
		page = at;
}
