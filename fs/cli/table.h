/* Tables in plain text: columns as wide as their widest cell. */
#ifndef CFS_CLI_TABLE_H
#define CFS_CLI_TABLE_H

#include <stdio.h>

#include "store/util/base.h"

struct cfs_table;

/*
 * @headers: NULL-terminated.  A header that begins with '>' (not printed)
 * makes a column of numbers, aligned to the right.  NULL when out of memory;
 * every function accepts that and the printing fails.
 */
struct cfs_table *cfs_table_new(const char *const *headers);
void cfs_table_free(struct cfs_table *table);
void cfs_table_freep(struct cfs_table **table);

/* The next cell, row by row; an empty one is shown as "-". */
void cfs_table_cell(struct cfs_table *table, const char *fmt, ...)
	CFS_PRINTF(2, 3);
/* Headers, then every whole row, each behind @indent blanks.  0 or -ENOMEM. */
CFS_MUST_CHECK int cfs_table_print(const struct cfs_table *table, int indent,
				   FILE *out);

#endif
