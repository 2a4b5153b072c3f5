/* What the files of fs/view share; nobody else includes it. */
#ifndef CFS_VIEW_INTERNAL_H
#define CFS_VIEW_INTERNAL_H

#include "fs/view/plan.h"
#include "fs/view/view.h"

#define CFS_VIEW_NAME_MAX 128 /* bytes of a canonical name, with its NUL */
#define CFS_POINTER	  "latest"
/* What the loader of universal checkpoints reads in its place. */
#define CFS_POINTER_UNIVERSAL "latest_universal"

struct cfs_views {
	struct cfs_source *source;  /* borrowed */
	struct cfs_source *outside; /* it, with the machine's files */
	struct cfs_filepool *pool;  /* of outside */
	struct cfs_blockcache *cache;
	struct cfs_plans *plans;
	struct cfs_notes *notes;
	struct cfs_written *written;
	char *source_path; /* real path, for the registry; or NULL */
	char *real_path;   /* where the source's root is; or NULL */
	bool crc_full, forget_trees, writable;
	struct cfs_vnode *root;
};

/*
 * Immutable.  What a field means by kind:
 *
 *            SOURCE      RUN_VIEW  STEP_VIEW      FILE           POINTER
 *   path     its own     the run   the step       the step       where it lies
 *   dev,     its own     the run's the step dir's -              -
 *   src_ino                                                      0: made
 *   salt     the ino of the view it is shown in; 0 outside views
 *   view     -           the request, canonical …                -
 *   name     -           -         below the      its name       -
 *                                  step, or NULL
 *   text     -           -         -              -              its content
 *   st       attributes; S_IFDIR   S_IFDIR        attributes     attributes
 *            type only
 *            of a dir.
 *   version  a file's    -         -              -              -
 *   identity -           -         the step's     the step's     -
 */
struct cfs_vnode {
	unsigned refs; /* atomic */
	enum cfs_vnode_kind kind;
	struct cfs_views *views; /* borrowed */
	char *path;
	uint64_t ino, salt;
	uint64_t dev, src_ino;
	struct cfs_request request;
	char view[CFS_VIEW_NAME_MAX];
	char *name, *text;
	struct stat st;
	struct cfs_version version;
	uint64_t identity;
	bool floating;	  /* the mount's root: follows the step's changes */
	bool has_pointer; /* STEP_VIEW with a `latest` of its own */
	bool as_saved;	  /* STEP_VIEW of a step that has this topology */
	struct cfs_tree *tree; /* pinned for the verbs, or NULL */
};

/* ---- vnode.c ---- */

struct cfs_vnode *cfs_vnode_new(struct cfs_views *views,
				enum cfs_vnode_kind kind, const char *path);
/* The source's object at @path, whose lstat is @st. */
int cfs_vnode_new_source(struct cfs_views *views, const char *path,
			 const struct stat *st, uint64_t salt,
			 struct cfs_vnode **out);
uint64_t cfs_vnode_source_ino(const struct cfs_views *views,
			      const struct stat *st, uint64_t salt);
/* In the half of the number space that source objects never use. */
uint64_t cfs_vnode_made_ino(uint64_t seed, const char *name);
/* Does the source still have this vnode's object at its path?  0, -ESTALE,
 * -ENOENT; @st_out is the source's lstat. */
int cfs_vnode_check(const struct cfs_vnode *node, struct stat *st_out);
/* The tree of a STEP_VIEW or FILE; *tree_out is NULL where the step is as
 * asked already.  -ESTALE when the step is another one now. */
int cfs_vnode_plan(const struct cfs_vnode *node, struct cfs_tree **tree_out,
		   struct cfs_error *err);

/* ---- request.c ---- */

/* The request behind a view's name, registry included. */
int cfs_view_request(struct cfs_views *views, const char *path, bool is_step,
		     const char *name, struct cfs_request *out,
		     struct cfs_error *err);
int cfs_view_is_run(struct cfs_views *views, const char *path);
int cfs_view_is_step(struct cfs_views *views, const char *path);
enum cfs_dir_kind {
	CFS_DIR_PLAIN,
	CFS_DIR_RUN,
	CFS_DIR_STEP
};
/* One of them (a step first), or an errno.  @st: its lstat, just taken; what
 * is known is believed while the directory has the same times. */
int cfs_view_dir_kind(struct cfs_views *views, const char *path,
		      const struct stat *st);

/* ---- registry.c ---- */

/* What an entry asks for, options aside. */
int cfs_registry_request(const struct cfs_registry_entry *entry,
			 struct cfs_request *out, struct cfs_error *err);
/* The registry failed with @r: says where it is, and what names another. */
int cfs_registry_fail(struct cfs_error *err, int r);

/* ---- outside.c ---- */

/* @inner (borrowed) with the machine's files, whose paths begin with '/'. */
struct cfs_source *cfs_outside_new(struct cfs_source *inner);
/* What such a source calls the absolute @path: below @named, which is how
 * views are registered of it (perhaps in a store), it is its own; @real is
 * where its root is, if that is not the same.  Both may be NULL. */
int cfs_outside_path(const char *path, const char *named, const char *real,
		     char **out);

/* ---- lookup.c ---- */

int cfs_view_new_run(struct cfs_views *views, const char *path,
		     const struct stat *st, const struct cfs_request *request,
		     const char *name, struct cfs_vnode **out);
int cfs_view_new_step(struct cfs_views *views, const char *path,
		      const struct stat *st, const struct cfs_request *request,
		      const struct cfs_plan *plan, uint64_t seed,
		      const char *name, struct cfs_vnode **out);

/* The reason why a view in a view is none; -EINVAL. */
int cfs_view_refuse_nested(const char *name, struct cfs_error *err);

/* ---- lookup_step.c ---- */

int cfs_view_lookup_in_step(struct cfs_vnode *dir, const char *name,
			    struct cfs_vnode **out, struct cfs_error *err);

/* ---- pointer.c ---- */

int cfs_pointer_lookup(struct cfs_vnode *run, const struct stat *st,
		       struct cfs_vnode **out, struct cfs_error *err);
/* Does this view show the pointer under the name of universal ones, too? */
bool cfs_pointer_is_universal(const struct cfs_vnode *dir, const char *name);
/* `latest_universal` made of `latest`, or `latest` of that: it says what the
 * other says, and cannot be written.  -ENOENT: the run lacks the other, too. */
int cfs_pointer_other(struct cfs_vnode *run, const char *name,
		      struct cfs_vnode **out, struct cfs_error *err);
/* The step that a run's view shows at once: what `latest` names, else the
 * newest whole one.  1 with its name in @name, or 0: there is none. */
int cfs_pointer_step(struct cfs_vnode *run, char name[256],
		     struct cfs_error *err);
/* `latest` inside a step's own view: ".". */
int cfs_pointer_inside(struct cfs_vnode *step, struct cfs_vnode **out);

/* ---- written.c: directories that are saved through a view ---- */

enum cfs_written_state {
	CFS_WRITTEN_NOT,
	CFS_WRITTEN_ONCE, /* or seen whole, at the asked topology */
	CFS_WRITTEN_NOW,  /* a moment ago */
};
struct cfs_written *cfs_written_new(void);
void cfs_written_free(struct cfs_written *written);
/* @ino: the directory's in the source; @salt: of the view. */
void cfs_written_note(struct cfs_written *written, uint64_t ino, uint64_t salt,
		      enum cfs_written_state state);
enum cfs_written_state cfs_written_get(struct cfs_written *written,
				       uint64_t ino, uint64_t salt);

/* ---- notes.c: things said once, things known for a second ---- */

struct cfs_notes *cfs_notes_new(void);
void cfs_notes_free(struct cfs_notes *notes);
/* Logs "<path>: <text>" unless it was said before. */
void cfs_notes_say(struct cfs_notes *notes, const char *path, const char *text);
/* Is the step at @path whole?  The format's answer; a yes may be a second old.
 */
int cfs_notes_complete(struct cfs_views *views, const char *path,
		       struct cfs_error *err);
/* What the directory at @path is: 0 (CFS_DIR_PLAIN) where nothing is known. */
int cfs_notes_kind(struct cfs_notes *notes, const char *path,
		   const struct stat *st);
void cfs_notes_set_kind(struct cfs_notes *notes, const char *path,
			const struct stat *st, int kind);
int64_t cfs_now_ns(void); /* CLOCK_MONOTONIC */
/* Did this directory change so recently that it could change once more and
 * keep its times? */
bool cfs_is_young(const struct stat *dir);

#endif
