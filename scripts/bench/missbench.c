/*
 * missbench - read random pages of a file, each once, and say how long it took
 *
 * Threads draw from one shuffled list of pages, so no page is read twice and
 * none comes from the page cache of a fresh mount. Prints microseconds of the
 * median and of the slowest 1 % as JSON.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE	    4096
#define THREADS_MAX 64

static int fd;
static uint32_t *pages;
static double *took;
static size_t n;
static atomic_size_t next; /* relaxed: hands out places of the list */
static atomic_bool failed;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *work(void *arg)
{
	char buf[PAGE];
	size_t i;

	(void)arg;
	while ((i = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed)) <
	       n) {
		double began = now();

		if (pread(fd, buf, PAGE, (off_t)pages[i] * PAGE) != PAGE)
			failed = true;
		took[i] = now() - began;
	}
	return NULL;
}

static void shuffle(uint32_t *v, size_t count)
{
	for (size_t i = 0; i + 1 < count; i++) {
		size_t j = i + (size_t)random() % (count - i);
		uint32_t t = v[i];

		v[i] = v[j];
		v[j] = t;
	}
}

static int by_time(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int prepare(const char *path, size_t reads)
{
	struct stat st;
	size_t all;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -1;
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	all = (size_t)st.st_size / PAGE;
	n = reads < all ? reads : all;
	pages = calloc(all, sizeof(*pages));
	took = calloc(n, sizeof(*took));
	if (!n || !pages || !took)
		return -1;
	for (size_t i = 0; i < all; i++)
		pages[i] = (uint32_t)i;
	shuffle(pages, all);
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS_MAX];
	int c, n_threads = 1;
	size_t reads = 4000;

	while ((c = getopt(argc, argv, "t:n:s:")) != -1) {
		if (c == 't')
			n_threads = atoi(optarg);
		else if (c == 'n')
			reads = strtoull(optarg, NULL, 10);
		else if (c == 's')
			srandom((unsigned)atoi(optarg));
		else
			return 2;
	}
	if (optind + 1 != argc || n_threads < 1 || n_threads > THREADS_MAX) {
		fprintf(stderr, "usage: missbench [-t THREADS] [-n READS] "
				"[-s SEED] FILE\n");
		return 2;
	}
	if (prepare(argv[optind], reads) < 0) {
		perror(argv[optind]);
		return 1;
	}
	for (int i = 0; i < n_threads; i++)
		if (pthread_create(&threads[i], NULL, work, NULL))
			return 1;
	for (int i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	qsort(took, n, sizeof(*took), by_time);
	printf("{\"p50\": %.0f, \"p99\": %.0f}\n", took[n / 2] * 1e6,
	       took[n * 99 / 100] * 1e6);
	return failed;
}
