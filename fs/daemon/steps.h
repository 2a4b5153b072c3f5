/*
 * The steps of a run as a source shows them, whether they are whole, and which
 * one a load should get.  The formats' own count decides, as in views.
 */
#ifndef CFS_DAEMON_STEPS_H
#define CFS_DAEMON_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_format;
struct cfs_source;

#define CFS_STEPS_LATEST    "latest"
#define CFS_STEPS_UNIVERSAL "latest_universal"

struct cfs_steps_item {
	char *name;
	int64_t number;	  /* its name ends in; -1: none */
	int64_t mtime_ns; /* the newest of it and of what is in it */
	bool whole;
	char why[160]; /* what is missing */
	/* Where this tells which is newer, not the number; else 0. */
	int64_t order_ns;
	const struct cfs_format *format; /* NULL: none reads it */
	uint64_t ino; /* of the directory: another of that name is not it */
};
struct cfs_steps { /* ascending by order_ns, number, name */
	size_t n, cap;
	struct cfs_steps_item *list;
};
/* Directories in @run that a format claims or layouts.h knows; -ENOENT,
 * -ENOTDIR. */
CFS_MUST_CHECK int cfs_steps_list(struct cfs_source *source, const char *run,
				  struct cfs_steps *out);
void cfs_steps_free(struct cfs_steps *steps); /* for _cleanup_ too */

/* 1 and the name that `latest` (else, Megatron's pointer) holds, 0: there is
 * none, or it holds no name. */
CFS_MUST_CHECK int cfs_steps_pointer(struct cfs_source *source, const char *run,
				     char name_out[256]);
/* The same of `latest_universal`. */
CFS_MUST_CHECK int cfs_steps_universal(struct cfs_source *source,
				       const char *run, char name_out[256]);
/* 1 whole; 0 with the reason; or why it cannot be told. */
CFS_MUST_CHECK int cfs_steps_is_whole(struct cfs_source *source,
				      const char *run, const char *name,
				      struct cfs_error *err);
/* What @pointer names if that is whole, else the newest whole step of its
 * format with a smaller number; NULL: none. */
const struct cfs_steps_item *cfs_steps_settle(const struct cfs_steps *steps,
					      const char *pointer);
/* The same where it has to be a universal checkpoint, which are often called
 * like step8_universal. */
const struct cfs_steps_item *
cfs_steps_settle_universal(const struct cfs_steps *steps, const char *pointer);
/*
 * The step to resume from: what the pointer settles to; where there is no
 * pointer, or nothing whole at or before it, the newest whole step.  1 with its
 * name, or 0.
 */
CFS_MUST_CHECK int cfs_steps_resolve(struct cfs_source *source, const char *run,
				     char name_out[256]);

#endif
