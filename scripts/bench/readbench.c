/*
 * readbench - read files the way trainers do, and say how fast
 *
 * One process per reader, so that readers share nothing but the kernel.
 * Prints one number, GB/s (1e9) of all readers together, from the moment
 * every reader has opened its file to the end of the slowest.  -o and -l: a
 * part of each file only, read with read().
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct {
	const char *how;    /* read, mmap, populate, shared */
	const char *advice; /* none, seq, willneed, random */
	size_t block;
	int readers, drop;
	off_t start, len; /* of each file; 0: to its end */
} opt = {"read", "none", 1 << 20, 1, 0, 0, 0};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int fail(const char *what)
{
	fprintf(stderr, "readbench: %s: %s\n", what, strerror(errno));
	return 1;
}

static int read_all(int fd)
{
	char *buf = aligned_alloc(4096, (opt.block + 4095) & ~(size_t)4095);
	size_t left = opt.len ? (size_t)opt.len : SIZE_MAX;
	ssize_t n;

	if (!buf)
		return fail("memory");
	if (lseek(fd, opt.start, SEEK_SET) < 0)
		return fail("seek");
	do {
		n = read(fd, buf, left < opt.block ? left : opt.block);
		left -= n > 0 ? (size_t)n : 0;
	} while (n > 0);
	free(buf);
	return n < 0 ? fail("read") : 0;
}

/* Copies out block by block, as a tensor made of a mapped file is used. */
static int map_all(int fd, size_t len)
{
	int flags = !strcmp(opt.how, "shared") ? MAP_SHARED : MAP_PRIVATE;
	char *buf = malloc(opt.block), *p;

	if (!strcmp(opt.how, "populate"))
		flags |= MAP_POPULATE;
	p = mmap(NULL, len, PROT_READ, flags, fd, 0);
	if (p == MAP_FAILED || !buf)
		return fail("mmap");
	if (!strcmp(opt.advice, "seq"))
		madvise(p, len, MADV_SEQUENTIAL);
	if (!strcmp(opt.advice, "willneed"))
		madvise(p, len, MADV_WILLNEED);
	for (size_t off = 0; off < len; off += opt.block) {
		size_t n = len - off < opt.block ? len - off : opt.block;

		memcpy(buf, p + off, n);
		__asm__ volatile("" : : "r"(buf) : "memory");
	}
	munmap(p, len);
	free(buf);
	return 0;
}

static int advise(int fd)
{
	if (!strcmp(opt.advice, "seq"))
		return posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	if (!strcmp(opt.advice, "willneed"))
		return posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
	if (!strcmp(opt.advice, "random"))
		return posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	return 0;
}

static int reader(const char *path, int ready, int go)
{
	struct stat st;
	char c = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(path);
	if (opt.drop)
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (write(ready, &c, 1) != 1 || read(go, &c, 1) != 1)
		return fail("pipe");
	if (!strncmp(opt.how, "read", 4)) {
		advise(fd);
		return read_all(fd);
	}
	return map_all(fd, (size_t)st.st_size);
}

static double run(char **paths, int n_paths)
{
	int ready[2], go[2], status, bad = 0;
	struct stat st;
	double t, bytes = 0;
	char c = 0;

	if (pipe(ready) < 0 || pipe(go) < 0)
		return -1;
	for (int i = 0; i < opt.readers; i++) {
		const char *path = paths[i % n_paths];

		if (stat(path, &st) < 0)
			return -1;
		bytes += opt.len ? (double)opt.len : (double)st.st_size;
		if (fork() == 0)
			_exit(reader(path, ready[1], go[0]));
	}
	close(ready[1]);
	for (int i = 0; i < opt.readers; i++)
		if (read(ready[0], &c, 1) != 1)
			bad = 1;
	t = now();
	for (int i = 0; i < opt.readers; i++)
		bad |= write(go[1], &c, 1) != 1;
	while (wait(&status) > 0)
		bad |= status != 0;
	t = now() - t;
	return bad ? -1 : bytes / t * 1e-9;
}

int main(int argc, char **argv)
{
	double rate;
	int c;

	while ((c = getopt(argc, argv, "m:a:b:n:o:l:d")) != -1) {
		if (c == 'm')
			opt.how = optarg;
		else if (c == 'a')
			opt.advice = optarg;
		else if (c == 'b')
			opt.block = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			opt.readers = atoi(optarg);
		else if (c == 'o')
			opt.start = (off_t)strtoull(optarg, NULL, 10);
		else if (c == 'l')
			opt.len = (off_t)strtoull(optarg, NULL, 10);
		else if (c == 'd')
			opt.drop = 1;
		else
			return 2;
	}
	if (optind == argc || opt.readers < 1 || opt.block < 1) {
		fprintf(stderr, "usage: readbench [-m read|mmap|populate|"
				"shared] [-a none|seq|willneed|random]\n"
				"  [-b BLOCK] [-n READERS] [-d] "
				"[-o START -l LENGTH] FILE...\n");
		return 2;
	}
	rate = run(argv + optind, argc - optind);
	if (rate < 0)
		return 1;
	printf("%.3f\n", rate);
	return 0;
}
