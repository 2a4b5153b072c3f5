/* What fsck.c, fsck_names.c and fsck_objects.c share. */
#ifndef CFS_CORE_FSCK_INTERNAL_H
#define CFS_CORE_FSCK_INTERNAL_H

#include "store/core/store_internal.h"

struct cfs_fsck_inode { /* from its record, and what was found of it */
	uint64_t ino, parent;
	uint32_t mode, nlink;
	uint32_t names, subdirs;
	enum cfs_content_kind content;
	bool orphan;
	uint8_t reached; /* fsck_names.c */
};

struct cfs_fsck_object { /* what is needed of a `c` or `m` key */
	uint64_t prefix; /* first 8 bytes of the digest */
	uint32_t raw_len;
	bool derived; /* or of a length that could be */
	bool seen;    /* a map, or such a chunk, that was looked into */
};
struct cfs_fsck_objects { /* ascending, as its keys are */
	struct cfs_fsck_object *v;
	size_t n, cap;
};

/* One iterator for each of these classes, all of one moment. */
#define CFS_FSCK_CLASSES "cmieodDxs"
#define CFS_FSCK_N	 (sizeof(CFS_FSCK_CLASSES) - 1)

struct cfs_fsck {
	struct cfs_store *store;
	const struct cfs_job_control *control;
	struct cfs_fsck_result result;
	struct cfs_index_iter *iters[CFS_FSCK_N];
	uint64_t keys; /* looked at, for progress */
	const char *what;

	struct cfs_fsck_inode *inodes; /* ascending */
	size_t n_inodes, inodes_cap;
	struct cfs_fsck_objects chunks, maps;
	uint64_t cookie_max;
};

/* ---- fsck.c ---- */

/* Something is wrong: tells it and counts it. */
void cfs_fsck_problem(struct cfs_fsck *f, const char *fmt, ...)
	CFS_PRINTF(2, 3);
/* The next pair of @class: 1, 0 at the end, -ECANCELED, or an error. */
int cfs_fsck_next(struct cfs_fsck *f, char class, struct cfs_slice *key,
		  struct cfs_slice *val);
struct cfs_fsck_inode *cfs_fsck_inode(struct cfs_fsck *f, uint64_t ino);

/* ---- fsck_names.c: entries, cookies, link counts ---- */

int cfs_fsck_names(struct cfs_fsck *f);
void cfs_fsck_links(struct cfs_fsck *f);

/* ---- fsck_objects.c: chunks and maps ---- */

int cfs_fsck_load_objects(struct cfs_fsck *f);
void cfs_fsck_objects_fini(struct cfs_fsck *f);
/* @e: of a file; it is there, whole. */
void cfs_fsck_extent(struct cfs_fsck *f, uint64_t ino,
		     const struct cfs_extent *e);
int cfs_fsck_map(struct cfs_fsck *f, uint64_t ino,
		 const struct cfs_digest *digest);

#endif
