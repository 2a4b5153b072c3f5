/*
 * What one save keeps in the namespace, unseen, until it is committed.
 *
 *   CFS_NSTREE_TRASH/NAME/part-RANK   what was put, one stream a rank
 *                    /step/…          the step's directory as it will be
 *                    /universal/…     a step on the way to "deepspeed"
 *
 * commit makes the format's files of references into the parts, copies of
 * no byte where none must be computed, and renames the step and its pointer
 * into place as one change.  What a crash leaves is swept at the next opening.
 *
 * Calls for different streams may come from different threads at once; commit
 * and free when no other call is under way.
 */
#ifndef CFS_RANK_STAGE_H
#define CFS_RANK_STAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/daemon/control.h"
#include "fs/format/puts.h"
#include "store/util/base.h"

#define CFS_STAGE_OBJECT_MAX ((uint64_t)64 << 20) /* bytes of an object */

struct cfs_stage;
struct cfs_stage_stream;

struct cfs_stage_options {
	const char *run;     /* below the store's root */
	const char *step;    /* one component */
	const char *format;  /* deepspeed, universal, safetensors, files */
	const char *pointer; /* NULL: the format's own; "": none */
	uint32_t dp, tp, pp;
	int zero_stage;
	bool replace;
	uint32_t n_ranks;
	uid_t uid; /* whose all of it is, and whose rights are looked at */
	gid_t gid;
	const gid_t *groups; /* further ones */
	size_t n_groups;
	mode_t umask;
};

/* @context: borrowed until it is freed; options are copied.  -EINVAL (options),
 * -EACCES, -EEXIST, -EROFS, …, in words. */
CFS_MUST_CHECK int cfs_stage_new(struct cfs_verb_context *context,
				 const struct cfs_stage_options *options,
				 struct cfs_stage **out, struct cfs_error *err);
/* Removes what was not committed. */
void cfs_stage_free(struct cfs_stage *stage);
void cfs_stage_freep(struct cfs_stage **stage);

/* A put of rank @put->rank (name and role are copied; file and file_off are
 * set here); one at a time a rank.  It ends by itself. */
CFS_MUST_CHECK int cfs_stage_put(struct cfs_stage *stage,
				 const struct cfs_put *put,
				 struct cfs_stage_stream **out,
				 struct cfs_error *err);
/* A file of the step; an object, which becomes ckptfs/@name.  -EEXIST names
 * the other rank. */
CFS_MUST_CHECK int cfs_stage_file(struct cfs_stage *stage, uint32_t rank,
				  const char *name,
				  struct cfs_stage_stream **out,
				  struct cfs_error *err);
CFS_MUST_CHECK int cfs_stage_object(struct cfs_stage *stage, uint32_t rank,
				    const char *name,
				    struct cfs_stage_stream **out,
				    struct cfs_error *err);
/* Reads @data once, so it may be memory that somebody still writes to. */
CFS_MUST_CHECK int cfs_stage_write(struct cfs_stage_stream *stream,
				   const void *data, size_t len,
				   struct cfs_error *err);
/* Ends and frees it; -EINVAL: too few bytes of a put. */
CFS_MUST_CHECK int cfs_stage_end(struct cfs_stage_stream *stream,
				 struct cfs_error *err);
/* Ends it with what came; for a save that has failed.  NULL is fine. */
void cfs_stage_drop(struct cfs_stage_stream *stream);

/* All streams have ended.  When it returns 0 the step is there and durable;
 * else nothing of it is. */
CFS_MUST_CHECK int cfs_stage_commit(struct cfs_stage *stage,
				    struct cfs_error *err);

#endif
