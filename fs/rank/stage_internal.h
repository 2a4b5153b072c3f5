/* What the files stage*.c share. */
#ifndef CFS_RANK_STAGE_INTERNAL_H
#define CFS_RANK_STAGE_INTERNAL_H

#include <pthread.h>

#include "fs/rank/assemble.h"
#include "fs/rank/stage.h"

struct cfs_stage_name {
	char *name; /* NULL: a free place */
	char kind;
	uint32_t rank;
};

/* Names that were said, each kept once; of kinds that do not meet. */
struct cfs_stage_names {
	struct cfs_stage_name *table; /* open addressing, @cap a power of 2 */
	size_t n, cap;
};
#define CFS_STAGE_TENSOR 't' /* names and roles: the rank means nothing */
#define CFS_STAGE_FILE	 'f'
#define CFS_STAGE_OBJECT 'o'

void cfs_stage_names_fini(struct cfs_stage_names *names);
/* NULL: it was not said. */
const struct cfs_stage_name *
cfs_stage_names_find(const struct cfs_stage_names *names, char kind,
		     const char *name);
/* The one there is, or a new one with @rank.  NULL: no memory.  What it points
 * to stays, the entry itself until the next is added. */
const struct cfs_stage_name *cfs_stage_names_add(struct cfs_stage_names *names,
						 char kind, const char *name,
						 uint32_t rank);

struct cfs_stage_part { /* of one rank; NULL: it has put nothing yet */
	struct cfs_ns_file *file;
	uint64_t ino, end;
	bool busy;	      /* a put is under way */
	struct cfs_put *puts; /* in the order they came */
	size_t n_puts, cap_puts;
};

struct cfs_stage_object {
	const char *name; /* of names */
	uint32_t rank;
	void *data;
	size_t len;
};

struct cfs_stage {
	struct cfs_verb_context *context;
	struct cfs_stage_options options; /* strings are copies */
	uint64_t trash, dir, step_dir;	  /* inodes */
	uint64_t run;	 /* inode when the save began; 0: it was not there */
	char hidden[64]; /* dir's name in trash; "": not made */

	pthread_mutex_t lock; /* what follows, until commit */
	struct cfs_stage_part *parts;
	struct cfs_stage_names names;
	struct cfs_assemble *files; /* of the step */
	struct cfs_stage_object *objects;
	size_t n_objects, cap_objects;
	size_t object_bytes;
	unsigned n_streams; /* not ended */
	bool dropped;	    /* one was: this save cannot be committed */
};

/* Makes the files of the format in the step (stage_format.c). */
CFS_MUST_CHECK int cfs_stage_format(struct cfs_stage *stage,
				    struct cfs_error *err);
/* The step and its pointer get their names (stage_publish.c). */
CFS_MUST_CHECK int cfs_stage_publish(struct cfs_stage *stage,
				     struct cfs_error *err);
/* May the user do it?  (stage.c) */
CFS_MUST_CHECK int cfs_stage_check_access(const struct cfs_stage *stage,
					  struct cfs_error *err);
/* What the pointer's file is called; "": there is none. */
const char *cfs_stage_pointer(const struct cfs_stage *stage);

/* ---- stage_look.c ---- */

enum cfs_stage_step {
	CFS_STAGE_NONE,
	CFS_STAGE_EMPTY, /* a directory with nothing in it */
	CFS_STAGE_STEP,	 /* what may be replaced */
};
struct cfs_stage_seen {
	enum cfs_stage_step step;
	bool pointer;
};

/* Is there something in the way?  Notes the run's inode. */
CFS_MUST_CHECK int cfs_stage_look(struct cfs_stage *stage,
				  struct cfs_error *err);
/* The same in the directory @run, and what is there. */
CFS_MUST_CHECK int cfs_stage_look_in(const struct cfs_stage *stage,
				     uint64_t run, struct cfs_stage_seen *seen,
				     struct cfs_error *err);
/* -EBUSY: a step of that name may not go. */
CFS_MUST_CHECK int cfs_stage_check_pin(const struct cfs_stage *stage,
				       struct cfs_error *err);
/* -EEXIST: what changed places with the step is not empty. */
CFS_MUST_CHECK int cfs_stage_check_empty(const struct cfs_stage *stage,
					 struct cfs_error *err);

#endif
