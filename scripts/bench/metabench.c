/*
 * metabench - make, list and remove many small files, and say how fast
 *
 * Threads share one process, as a data loader's or a checkpoint writer's do;
 * each has a directory of its own, as the kernel lets only one change a
 * directory at a time. Prints files per second of each phase, all threads
 * together, as JSON.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	THREADS_MAX = 64
};

static struct {
	int threads, files, size;
	int list; /* 0: the directory cannot be listed */
	const char *top;
} opt = {1, 100000, 0, 1, NULL};

typedef int phase_fn(int dirfd, int n);

struct job {
	pthread_t thread;
	phase_fn *fn;
	int dirfd, n, r;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int make_files(int dirfd, int n)
{
	char name[16], *data = calloc(1, (size_t)opt.size + 1);
	int fd = -1;

	for (int i = 0; i < n && data; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0)
			break;
		/* no two alike: nothing to deduplicate */
		memcpy(data, name, strnlen(name, (size_t)opt.size));
		if (opt.size &&
		    write(fd, data, (size_t)opt.size) != (ssize_t)opt.size)
			fd = close(fd) - 1;
		if (fd < 0 || close(fd) < 0)
			break;
	}
	free(data);
	return fd < 0 ? -1 : 0;
}

/* As ls -l does: names first, then the attributes of each. */
static int list_files(int dirfd, int n)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat st;
	int seen = 0;

	if (!dir)
		return -1;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		if (fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			break;
		seen += st.st_size == opt.size;
	}
	closedir(dir);
	errno = seen == n ? 0 : EIO;
	return seen == n ? 0 : -1;
}

static int remove_files(int dirfd, int n)
{
	char name[16];

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		if (unlinkat(dirfd, name, 0) < 0)
			return -1;
	}
	return 0;
}

static void *work(void *arg)
{
	struct job *job = arg;

	job->r = job->fn(job->dirfd, job->n);
	if (job->r < 0)
		perror("metabench");
	return NULL;
}

/* Files per second; negative: it failed. */
static double phase(struct job *jobs, phase_fn *fn)
{
	double began = now();
	int bad = 0, n = 0;

	for (int i = 0; i < opt.threads; i++) {
		jobs[i].fn = fn;
		n += jobs[i].n;
		if (pthread_create(&jobs[i].thread, NULL, work, &jobs[i]))
			exit(1);
	}
	for (int i = 0; i < opt.threads; i++) {
		pthread_join(jobs[i].thread, NULL);
		bad |= jobs[i].r;
	}
	return bad ? -1 : n / (now() - began);
}

static int open_dirs(struct job *jobs)
{
	int top = open(opt.top, O_RDONLY | O_DIRECTORY);
	char name[16];

	for (int i = 0; i < opt.threads; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		jobs[i].n = opt.files / opt.threads;
		if ((mkdirat(top, name, 0755) < 0 && errno != EEXIST) ||
		    (jobs[i].dirfd =
			     openat(top, name, O_RDONLY | O_DIRECTORY)) < 0)
			return -1;
	}
	return close(top);
}

int main(int argc, char **argv)
{
	struct job jobs[THREADS_MAX];
	double made, listed = 0, removed;
	int c;

	while ((c = getopt(argc, argv, "t:n:s:L")) != -1) {
		if (c == 't')
			opt.threads = atoi(optarg);
		else if (c == 'n')
			opt.files = atoi(optarg);
		else if (c == 's')
			opt.size = atoi(optarg);
		else if (c == 'L')
			opt.list = 0;
		else
			return 2;
	}
	if (optind + 1 != argc || opt.threads < 1 || opt.size < 0 ||
	    opt.threads > THREADS_MAX) {
		fprintf(stderr, "usage: metabench [-t THREADS] [-n FILES] "
				"[-s SIZE] [-L] DIR\n  -L: do not list\n");
		return 2;
	}
	opt.top = argv[optind];
	if (open_dirs(jobs) < 0) {
		perror(opt.top);
		return 1;
	}
	made = phase(jobs, make_files);
	if (opt.list)
		listed = phase(jobs, list_files);
	removed = phase(jobs, remove_files);
	printf("{\"create\": %.0f, \"list\": %.0f, \"remove\": %.0f}\n", made,
	       listed, removed);
	return made < 0 || listed < 0 || removed < 0;
}
