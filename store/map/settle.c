/* When a file's times can be trusted to tell its next change: source.h. */
#include "store/map/source.h"

#include <errno.h>
#include <time.h>

#define TICK_NS	       ((int64_t)20 * 1000 * 1000) /* twice HZ=100's */
#define COARSE_TICK_NS ((int64_t)2000 * 1000 * 1000)
#define TRIES	       50

/* A filesystem that keeps whole seconds shows no fraction anywhere. */
static int64_t tick_of(const struct cfs_version *v)
{
	const int64_t second = 1000000000;

	return v->ctime_ns % second || v->mtime_ns % second ? TICK_NS
							    : COARSE_TICK_NS;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void sleep_ns(int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / 1000000000,
			      .tv_nsec = ns % 1000000000};

	(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

static int version_now(struct cfs_file *file, struct cfs_version *out)
{
	struct stat st;
	int r;

	r = file->ops->stat(file, &st);
	if (r < 0)
		return r;
	cfs_version_of(&st, out);
	return 0;
}

int cfs_file_settle(struct cfs_file *file, struct cfs_version *version_out)
{
	struct cfs_version v, before = {0};

	for (int i = 0; i < TRIES; i++) {
		int64_t age, tick;
		int r;

		r = version_now(file, &v);
		if (r < 0)
			return r;
		tick = tick_of(&v);
		age = now_ns() - v.ctime_ns;
		if (age >= tick ||
		    (age < 0 && i && cfs_version_equal(&v, &before))) {
			*version_out = v;
			return 0;
		}
		before = v;
		sleep_ns(age < 0 ? tick : tick - age);
	}
	return -EBUSY;
}

int cfs_file_check(struct cfs_file *file, const struct cfs_version *version)
{
	struct cfs_version v;
	int r;

	r = version_now(file, &v);
	if (r < 0)
		return r;
	return cfs_version_equal(&v, version) ? 0 : -ESTALE;
}
