/* bytes, share, rate and time left, redrawn at most five times a second. */
#include "fs/cli/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "fs/cli/text.h"

#define REDRAW_SECONDS 0.2
#define BAR_CELLS      20

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

void cfs_progress_init(struct cfs_progress *p, uint64_t total, bool quiet)
{
	*p = (struct cfs_progress){
		.total = total,
		.began = now(),
		.on = !quiet && isatty(STDERR_FILENO),
	};
}

double cfs_progress_seconds(const struct cfs_progress *p)
{
	return now() - p->began;
}

static void draw(struct cfs_progress *p, const char *what)
{
	double share = p->total ? (double)p->done / (double)p->total : 1;
	double elapsed = now() - p->began;
	double rate =
		elapsed > 0 ? (double)(p->done - p->skipped) / elapsed : 0;
	double left = rate > 0 && p->total >= p->done
			      ? (double)(p->total - p->done) / rate
			      : -1;
	char bar[BAR_CELLS + 1];
	int i;

	for (i = 0; i < BAR_CELLS; i++)
		bar[i] = (double)i < share * BAR_CELLS ? '#' : '.';
	bar[BAR_CELLS] = 0;
	fprintf(stderr, "\r\033[K[%s] %3.0f%% %s/s, %s left  %.30s", bar,
		100 * share, cfs_text_bytes((uint64_t)rate).s,
		cfs_text_duration(left).s, what);
	fflush(stderr);
}

void cfs_progress_add(struct cfs_progress *p, uint64_t bytes, const char *what)
{
	double t;

	p->done += bytes;
	if (!p->on)
		return;
	t = now();
	if (t - p->shown < REDRAW_SECONDS)
		return;
	p->shown = t;
	draw(p, what);
}

void cfs_progress_skip(struct cfs_progress *p, uint64_t bytes)
{
	p->done += bytes;
	p->skipped += bytes;
}

void cfs_progress_end(struct cfs_progress *p)
{
	if (!p->on)
		return;
	fputs("\r\033[K", stderr);
	fflush(stderr);
}
