/* The reason of a thread's last failure; options that may be of another size.
 */
#ifndef CFS_RANK_CLIENT_ERROR_H
#define CFS_RANK_CLIENT_ERROR_H

#include "store/util/base.h"

struct cfs_error;

/* This thread's text, emptied: every call of the API begins with it. */
struct cfs_error *cfs_rank_err(void);

/*
 * Copies the caller's struct @from, which begins with its own size, into the
 * @size bytes at @to: what it lacks is 0.  -EINVAL where it has more than this
 * library knows of, and that is not 0.
 */
CFS_MUST_CHECK int cfs_rank_take(void *to, size_t size, const void *from,
				 struct cfs_error *err);

#endif
