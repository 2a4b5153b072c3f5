/* What lies under a directory, real or shown, sorted by path. */
#ifndef CFS_CLI_FILES_H
#define CFS_CLI_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_vnode;

struct cfs_files_entry {
	char *path; /* below the directory: "configs/a.yml" */
	struct stat st;
	struct cfs_vnode *node;
};

struct cfs_files {
	size_t n, cap;
	struct cfs_files_entry *entries;
};

/* The names in a directory, in order of numbers within them. */
struct cfs_files_names {
	size_t n, cap;
	char **list;
};

CFS_MUST_CHECK int cfs_files_names(struct cfs_vnode *dir,
				   struct cfs_files_names *out);
void cfs_files_names_free(struct cfs_files_names *names);

/*
 * Everything under @dir; directories come before what they hold.  @deep:
 * below its directories too.  Stats every file, so it plans what a view holds.
 */
CFS_MUST_CHECK int cfs_files_list(struct cfs_vnode *dir, bool deep,
				  struct cfs_files *out, struct cfs_error *err);
void cfs_files_free(struct cfs_files *files); /* for _cleanup_ too */
/* Bytes of all regular files. */
uint64_t cfs_files_bytes(const struct cfs_files *files);

#endif
