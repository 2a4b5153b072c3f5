/* What the ranks of the end-to-end tests save: BYTES of their own each. */
#ifndef CFS_RANK_SAVE_H
#define CFS_RANK_SAVE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <ckptfs/rank.h>

static inline int save_part(struct cfs_rank *rank, const char *step,
			    size_t bytes, int number)
{
	struct cfs_rank_save_options o = {.size = sizeof(o), .format = "files"};
	struct cfs_rank_save *s = NULL;
	struct cfs_rank_file *file = NULL;
	unsigned char *data = malloc(bytes + 1);
	char name[32];
	size_t i;
	int r;

	if (!data)
		return -ENOMEM;
	for (i = 0; i < bytes; i++)
		data[i] = (unsigned char)(i * 7 + (i >> 8) + (size_t)number);
	snprintf(name, sizeof(name), "part-%d", number);
	r = cfs_rank_save_begin(rank, step, &o, &s);
	if (!r)
		r = cfs_rank_file_begin(s, name, &file);
	if (!r)
		r = cfs_rank_file_write(file, data, bytes, CFS_RANK_HOST, NULL);
	if (!r)
		r = cfs_rank_file_end(file);
	if (!r)
		r = cfs_rank_commit(s);
	if (!r)
		r = cfs_rank_wait(s);
	free(data);
	return r;
}

#endif
