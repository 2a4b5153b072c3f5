/* A refusal in words: travels up beside the negative errno. */
#ifndef CFS_UTIL_ERROR_H
#define CFS_UTIL_ERROR_H

#include "store/util/base.h"

/*
 * Functions that can refuse for a reason the user must see take a trailing
 * `struct cfs_error *err` (NULL: nobody asks).  The text is one line without
 * a newline: object, what is wrong, what to do.  It is set on failure only.
 */
struct cfs_error {
	char text[640];
};

/* Sets the text and returns @r: `return cfs_fail(err, -EINVAL, "…", …);` */
int cfs_fail(struct cfs_error *err, int r, const char *fmt, ...)
	CFS_PRINTF(3, 4);

/* Puts "<prefix>: " before the text there is, or before strerror(-r). */
int cfs_fail_prefix(struct cfs_error *err, int r, const char *fmt, ...)
	CFS_PRINTF(3, 4);

#endif
