/* import in two halves: what is to be copied, and the copying. */
#ifndef CFS_DAEMON_IMPORT_H
#define CFS_DAEMON_IMPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/daemon/verb.h"

#define CFS_IMPORT_NONE SIZE_MAX

/* One object of the source.  Parents stand before what is in them. */
struct cfs_import_item {
	char *name;    /* as it will be called */
	char *path;    /* of a top item: absolute; else NULL */
	size_t parent; /* CFS_IMPORT_NONE: a top item */
	size_t link;   /* the first item with the same inode, or NONE */
	struct stat st;
	uint64_t ino; /* in the store, once it is made */
	bool marker;  /* a completion marker: copied when all else is */
	bool kept;    /* it was there already */
};

struct cfs_import {
	struct cfs_verb_context *context;
	const struct cfs_verb_reply *reply;
	bool merge;
	bool compare;	/* by their bytes, too, what size and time call equal */
	bool as_caller; /* the source is opened with the caller's rights */
	bool owners;	/* keep owners: root asks */
	uint64_t dest;	/* directory of the top items */
	struct cfs_import_item *items;
	size_t n, cap;
	uint64_t bytes, files;
	uint64_t bytes_kept, files_kept; /* were there already */
};

/* import_scan.c */

/* Adds @path (absolute) and all below it under @name; @contents: what is in it
 * only.  A file the store itself is made of is left out. */
CFS_MUST_CHECK int cfs_import_scan(struct cfs_import *import, const char *path,
				   const char *name, bool contents,
				   struct cfs_error *err);
void cfs_import_fini(struct cfs_import *import);
/* Where the source has it; free() it. */
char *cfs_import_path(const struct cfs_import *import, size_t item);
/* Between these the thread has the caller's rights to files, no more. */
void cfs_import_enter(const struct cfs_import *import);
void cfs_import_leave(const struct cfs_import *import);

/* import_copy.c */

/* Makes all of it.  -ESTALE where a file changed while it was read, -EEXIST
 * where a name is taken by something else. */
CFS_MUST_CHECK int cfs_import_copy(struct cfs_import *import,
				   struct cfs_error *err);

/* import_file.c */

/* Copies a regular file: its bytes, holes, attributes.  Any thread. */
CFS_MUST_CHECK int cfs_import_file(struct cfs_import *import, size_t item,
				   void *buffer, size_t size,
				   _Atomic uint64_t *done,
				   const _Atomic bool *stop,
				   struct cfs_error *err);
/* Owner, mode and times of what was made. */
CFS_MUST_CHECK int cfs_import_attributes(const struct cfs_import *import,
					 const struct cfs_import_item *item);
/* "user." attributes of @path. */
CFS_MUST_CHECK int cfs_import_xattrs(const struct cfs_import *import,
				     const char *path, uint64_t ino);
/* Merging, with something else in the item's place: removes that, or says why
 * not (-EEXIST). */
CFS_MUST_CHECK int cfs_import_give_way(const struct cfs_import *import,
				       const struct cfs_import_item *item,
				       uint64_t dir, const struct stat *there,
				       struct cfs_error *err);
/* The directory in the store that the item belongs into. */
uint64_t cfs_import_dir(const struct cfs_import *import, size_t item);

#endif
