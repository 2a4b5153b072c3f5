/* One line on stderr that says how far a long verb is; only on a terminal. */
#ifndef CFS_CLI_PROGRESS_H
#define CFS_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct cfs_progress {
	uint64_t total, done; /* bytes */
	uint64_t skipped;     /* of done: was there already, not a rate */
	double began, shown;  /* monotonic seconds */
	bool on;
};

/* @quiet: never shows anything. */
void cfs_progress_init(struct cfs_progress *p, uint64_t total, bool quiet);
/* @bytes more are done; @what (a file, a tensor) is being worked on. */
void cfs_progress_add(struct cfs_progress *p, uint64_t bytes, const char *what);
void cfs_progress_skip(struct cfs_progress *p, uint64_t bytes);
/* Wipes the line, so that other output can follow. */
void cfs_progress_end(struct cfs_progress *p);
double cfs_progress_seconds(const struct cfs_progress *p);

#endif
