/*
 * A checkpoint format: a family of directory layouts.
 *
 * read:  a step's directory -> struct cfs_step (catalogues + other state)
 * write: step + target -> struct cfs_tree, the files of the shown directory,
 *        each a map made when it is first asked for
 *
 * A view is write(target)(read(source)); nothing here touches FUSE or names.
 */
#ifndef CFS_FORMAT_FORMAT_H
#define CFS_FORMAT_FORMAT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/reslice/catalogue.h"
#include "fs/reslice/topology.h"
#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/map/source.h"

struct cfs_error;
struct cfs_format;
struct cfs_step;
struct cfs_tree;

/* One model-parallel rank of a step. */
struct cfs_step_rank {
	struct cfs_catalogue *catalogue;
};

/*
 * A step that was read.  The format embeds this and keeps its own state behind
 * it.  Immutable after read; any thread; reference-counted.
 */
struct cfs_step {
	const struct cfs_format *format;
	char *path;		   /* in the source */
	struct cfs_source *source; /* borrowed, outlives the step */
	struct cfs_filepool *pool; /* borrowed, outlives the step */
	struct cfs_filetab *files; /* all files of the step, with versions */
	/* Of a step that is made with another one: the rows before are those
	 * of the other. */
	uint32_t first_file;
	/* What a step in memory is made with, beside the one it is made of;
	 * its files must stay as well.  Or NULL. */
	struct cfs_step *also;
	char *note; /* what of the two was left out, in words; or NULL */
	/* What else read() looked at, directories too, with versions: where
	 * that changes, the step is another one.  Or NULL. */
	struct cfs_filetab *beside;
	struct cfs_topology topology; /* as saved */
	enum cfs_dtype dtype;	      /* of the model's weights */
	uint32_t n_ranks;	      /* model-parallel ranks (tp * pp) */
	struct cfs_step_rank *ranks;
	int64_t global_steps;	    /* -1 unknown */
	const char *writer_version; /* "0.19.8", or NULL */
	mode_t mode; /* AND of the modes of all files that contribute */
	uid_t uid;   /* their owner; mixed owners refuse with -EACCES */
	gid_t gid;
	int64_t mtime_ns;  /* the newest of them */
	uint64_t identity; /* hash of (path, all versions) */
	unsigned refs;	   /* atomic */
};

struct cfs_format {
	const char *name; /* "deepspeed" */

	/* Does this directory look like mine?  From names alone: 1, 0 or a
	 * negative errno. */
	int (*probe)(struct cfs_source *source, const char *path);

	/* Is @name one of the names this format writes into a step? */
	bool (*owns)(const char *name);
	/* Besides those, does read() look for a name like this?  Or NULL. */
	bool (*looks_for)(const char *name);

	/* Parses what is needed; in parallel where there is much.  -ENOTSUP,
	 * -EINVAL, -EBADMSG, -ENOENT (incomplete): @err names the file. */
	int (*read)(struct cfs_source *source, struct cfs_filepool *pool,
		    const char *path, struct cfs_step **step_out,
		    struct cfs_error *err);

	/* Completes a request for this step: -EINVAL for an impossible
	 * combination, -ENOTSUP for one that cannot be derived. */
	int (*resolve)(const struct cfs_step *step,
		       const struct cfs_request *request,
		       struct cfs_resolved *out, struct cfs_error *err);

	/* The files of the step at @topology.  Plans, builds nothing. */
	int (*write)(struct cfs_step *step, const struct cfs_resolved *target,
		     struct cfs_tree **tree_out, struct cfs_error *err);

	/*
	 * The files of the step at @like (below @source, which @pool opens
	 * files of, too), with the state of @step in them.  The options of
	 * @request say the rest; the target is *resolved_out.  Or NULL.
	 * -ENOTSUP, -EINVAL: @err says what the two do not share.
	 */
	int (*fill)(struct cfs_step *step, struct cfs_source *source,
		    struct cfs_filepool *pool, const char *like,
		    const struct cfs_request *request,
		    struct cfs_tree **tree_out, struct cfs_error *err);

	/* The step as one rank that has all of every tensor, under the names of
	 * its own; a reference to @step where it is that.  NULL: steps of the
	 * format always are.  -ENOTSUP, -EINVAL: @err names the parameter. */
	int (*whole)(struct cfs_step *step, struct cfs_step **out,
		     struct cfs_error *err);

	/* Is the step whole?  From names (and, where that is how the format
	 * tells, small files) alone, cheap enough for every step of a run:
	 * 1 whole, 0 with what is missing in @err, or a negative errno. */
	int (*complete)(struct cfs_source *source, const char *path,
			struct cfs_error *err);

	void (*step_free)(struct cfs_step *step);
};

/* The formats there are; NULL-terminated. */
extern const struct cfs_format *const cfs_formats[];
extern const struct cfs_format cfs_format_deepspeed;
extern const struct cfs_format cfs_format_universal;
extern const struct cfs_format cfs_format_safetensors;

/* The format of a step's directory: 0, or -ENOENT when none claims it. */
CFS_MUST_CHECK int cfs_format_probe(struct cfs_source *source, const char *path,
				    const struct cfs_format **format_out);

struct cfs_step *cfs_step_ref(struct cfs_step *step);
void cfs_step_unref(struct cfs_step *step);
void cfs_step_unrefp(struct cfs_step **step);
/* Are all files still the ones that were read?  0, -ESTALE (named), … */
CFS_MUST_CHECK int cfs_step_check(const struct cfs_step *step,
				  struct cfs_error *err);
/* For readers: takes over mode, owner, newest time and identity of one more
 * file.  Mixed owners are -EACCES, because a view must not show what its reader
 * could not read. */
CFS_MUST_CHECK int cfs_step_fold(struct cfs_step *step, const char *name,
				 const struct stat *st,
				 const struct cfs_version *version,
				 struct cfs_error *err);
/* What tells this step's files from others', wherever they are seen from:
 * names, sizes and times of change of their content. */
uint64_t cfs_step_fingerprint(const struct cfs_step *step);
/* Prints "global_step1000 dp=64 zero=1 …" style facts are the CLI's job. */

/*
 * A shown step: flat list of files (formats with sub-directories put '/' in
 * names).  Holds a reference to its step.  Reference-counted; any thread:
 * building is single flight per file inside the tree.
 */
struct cfs_tree_file {
	char *name;
	mode_t mode;
	uint32_t index;
};

struct cfs_tree_ops {
	/* Makes the map of file @index.  Any thread; called once per file
	 * unless it failed. */
	int (*build)(struct cfs_tree *tree, uint32_t index,
		     struct cfs_map **map_out, struct cfs_error *err);
	void (*free)(struct cfs_tree *tree);
};

struct cfs_tree {
	const struct cfs_tree_ops *ops;
	struct cfs_step *step;
	struct cfs_resolved target;
	uint32_t n_files;
	struct cfs_tree_file *files; /* sorted by name */
	struct cfs_tree_slot *slots; /* private to tree.c */
	bool crc_full; /* set before maps are asked for: compute every CRC */
	unsigned refs; /* atomic */
};

/* For formats: fills base members, takes a reference to @step; files are then
 * added and sorted by cfs_tree_seal(). */
CFS_MUST_CHECK int cfs_tree_init(struct cfs_tree *tree,
				 const struct cfs_tree_ops *ops,
				 struct cfs_step *step,
				 const struct cfs_resolved *target);
CFS_MUST_CHECK int cfs_tree_add(struct cfs_tree *tree, const char *name,
				mode_t mode, uint32_t index);
CFS_MUST_CHECK int cfs_tree_seal(struct cfs_tree *tree);
void cfs_tree_fini(struct cfs_tree *tree);

struct cfs_tree *cfs_tree_ref(struct cfs_tree *tree);
void cfs_tree_unref(struct cfs_tree *tree);
void cfs_tree_unrefp(struct cfs_tree **tree);
/* -ENOENT or 0. */
int cfs_tree_find(const struct cfs_tree *tree, const char *name,
		  uint32_t *row_out);
/* The first row whose name lies below the directory @name; n_files: none. */
uint32_t cfs_tree_below(const struct cfs_tree *tree, const char *name);
/* The map of row @row, built on first use and kept while memory allows;
 * caller unrefs. */
CFS_MUST_CHECK int cfs_tree_map(struct cfs_tree *tree, uint32_t row,
				struct cfs_map **map_out,
				struct cfs_error *err);
/* The size of row @row: its map is built once, then it is known. */
CFS_MUST_CHECK int cfs_tree_size(struct cfs_tree *tree, uint32_t row,
				 uint64_t *size_out, struct cfs_error *err);

#endif
