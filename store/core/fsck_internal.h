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
	bool affected;	 /* not all of its content is there */
	uint8_t reached; /* fsck_names.c */
};

struct cfs_fsck_object { /* what is needed of a `c` or `m` key */
	uint64_t prefix; /* first 8 bytes of the digest */
	uint32_t raw_len;
	bool derived; /* or of a length that could be */
	bool seen;    /* a map, or such a chunk, that was looked into */
	bool gone;    /* the pack that its key names does not have it */
	bool bad;     /* so is whatever refers to it */
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
	bool content_only; /* scrub's: not the names, nor the counts */

	struct cfs_fsck_inode *inodes; /* ascending */
	size_t n_inodes, inodes_cap;
	struct cfs_fsck_objects chunks, maps;
	uint64_t cookie_max;
	uint64_t missing;  /* of problems: objects */
	uint64_t affected; /* inodes */
};

/* ---- fsck.c ---- */

/* The next pair of @class: 1, 0 at the end, -ECANCELED, or an error. */
int cfs_fsck_next(struct cfs_fsck *f, char class, struct cfs_slice *key,
		  struct cfs_slice *val);
struct cfs_fsck_inode *cfs_fsck_inode(struct cfs_fsck *f, uint64_t ino);

/* ---- fsck_names.c: entries, cookies, link counts ---- */

int cfs_fsck_names(struct cfs_fsck *f);
void cfs_fsck_links(struct cfs_fsck *f);

/* ---- fsck_files.c: what is said, and of which files ---- */

/* Something is wrong: tells it and counts it. */
void cfs_fsck_problem(struct cfs_fsck *f, const char *fmt, ...)
	CFS_PRINTF(2, 3);
/* The same of an object that is referred to. */
void cfs_fsck_missing(struct cfs_fsck *f, const char *fmt, ...)
	CFS_PRINTF(2, 3);
void cfs_fsck_affected(struct cfs_fsck *f, uint64_t ino);
/* The name of an inode that is affected: told, as a path. */
int cfs_fsck_file(struct cfs_fsck *f, uint64_t dir, const char *name,
		  size_t len);
/* How many more there are than were told. */
void cfs_fsck_files_end(struct cfs_fsck *f);

/* Objects that scrub found damaged. */
struct cfs_fsck_bad {
	struct cfs_digest *v[2]; /* chunks, maps */
	size_t n[2], cap[2];
};
CFS_MUST_CHECK int cfs_fsck_bad_add(struct cfs_fsck_bad *bad, bool is_map,
				    const struct cfs_digest *digest);
void cfs_fsck_bad_fini(struct cfs_fsck_bad *bad);
/* Tells what files refer to and is not there, then which files that and @bad
 * affects. */
CFS_MUST_CHECK int cfs_fsck_content(struct cfs_store *store,
				    const struct cfs_job_control *control,
				    const struct cfs_fsck_bad *bad,
				    uint64_t *missing_out, uint64_t *files_out);

/* ---- fsck_objects.c: chunks and maps ---- */

int cfs_fsck_load_objects(struct cfs_fsck *f);
void cfs_fsck_objects_fini(struct cfs_fsck *f);
void cfs_fsck_mark_bad(struct cfs_fsck *f, const struct cfs_fsck_bad *bad);
/* @e: of a file; it is there, whole: else false. */
bool cfs_fsck_extent(struct cfs_fsck *f, uint64_t ino,
		     const struct cfs_extent *e);
int cfs_fsck_map(struct cfs_fsck *f, uint64_t ino,
		 const struct cfs_digest *digest);

/* ---- fsck_packs.c: is a chunk in the pack that it should be in? ---- */

struct cfs_fsck_packs {
	struct cfs_fsck_pack {
		struct cfs_pack_id id;
		uint64_t size;
	} * v; /* ascending */
	size_t n, cap;
};
CFS_MUST_CHECK int cfs_fsck_packs_load(struct cfs_fsck *f,
				       struct cfs_fsck_packs *packs);
void cfs_fsck_packs_fini(struct cfs_fsck_packs *packs);
bool cfs_fsck_packs_have(struct cfs_fsck *f, const struct cfs_fsck_packs *packs,
			 const struct cfs_digest *digest,
			 const struct cfs_object_value *v);

#endif
