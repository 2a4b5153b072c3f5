/*
 * The tree a mount or a verb shows: a source's own files as they are, plus
 * views: `@dp32` after a run or after a step, made when looked up.
 *
 *   RUN/@dp2/            the run's names; steps are shown at the asked topology
 *   RUN/@dp2/latest      the run's pointer; if the step it names is not whole,
 *                        the newest whole step before it (logged)
 *   RUN/global_step4/@dp2/   the step's files themselves; `latest` inside says
 *                        ".", so that this directory too can be a load path
 *
 * A vnode is one name looked up: a source's object or a synthesised one.  It is
 * immutable and identified by its inode number: a source that changed gives
 * another vnode.  Listing never plans; looking up a step inside a view does,
 * and fails with the reason when it cannot be derived (-EINVAL, -ENOTSUP).
 *
 * Nothing here knows FUSE; fs/fuse and the verbs are its users.
 */
#ifndef CFS_VIEW_VIEW_H
#define CFS_VIEW_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/reslice/topology.h"
#include "store/map/map.h"
#include "store/map/source.h"
#include "store/util/base.h"

struct cfs_buf;
struct cfs_error;
struct cfs_step;
struct cfs_tree;
struct cfs_views;
struct cfs_vnode;
struct cfs_vhandle;

/* ---- names (name.c) ---- */

/*
 * Parses the part behind '@' of a view's name: items joined by '-' (',' and
 * '=' accepted: "dp=32,zero=1").  dpN zeroN bf16opt zeroopt rr norr subN tpN
 * ppN mpN.  -EINVAL with what is wrong and what exists in @err.
 */
CFS_MUST_CHECK int cfs_view_name_parse(const char *name,
				       struct cfs_request *out,
				       struct cfs_error *err);
/* The canonical spelling, without '@'; into @buf, returns @buf.  Options of a
 * named view are told apart by "-with" and their hash, which nothing parses. */
const char *cfs_view_name_format(const struct cfs_request *request, char *buf,
				 size_t size);

/* ---- opening ---- */

struct cfs_views_options {
	size_t block_cache_bytes; /* 0: 256 MiB */
	const char *view;  /* show this view (without '@') of the source's root
			      as the root; NULL: the source itself */
	bool crc_full;	   /* compute every CRC by reading */
	bool forget_trees; /* vnodes do not keep their tree alive (a mount has
			      more of them than memory); cfs_vnode_tree() is
			      then NULL */
	/* For the registry of named views, perhaps inside a store; or NULL. */
	const char *source_path;
	/* Where the source's root is, if it is a directory of a live mount and
	 * source_path what that shows; or NULL. */
	const char *real_path;
	bool writable; /* the caller passes writes on to the source: vnodes show
			  its write bits, and files and links that are not made
			  its inode numbers */
};

/* @source is borrowed. */
CFS_MUST_CHECK int cfs_views_open(struct cfs_source *source,
				  const struct cfs_views_options *options,
				  struct cfs_views **out,
				  struct cfs_error *err);
void cfs_views_close(struct cfs_views *views); /* no vnode or handle is left */
void cfs_views_closep(struct cfs_views **views);
struct cfs_source *cfs_views_source(const struct cfs_views *views);
/* The source's directory at @path, outside views. */
CFS_MUST_CHECK int cfs_views_at(struct cfs_views *views, const char *path,
				struct cfs_vnode **node_out);

/* ---- vnodes ---- */

enum cfs_vnode_kind {
	CFS_VNODE_SOURCE,    /* file, directory, link … of the source */
	CFS_VNODE_RUN_VIEW,  /* RUN/@name */
	CFS_VNODE_STEP_VIEW, /* RUN/@name/STEP, or STEP/@name */
	CFS_VNODE_FILE,	     /* synthesised from a map */
	CFS_VNODE_POINTER,   /* `latest` in a view */
};

struct cfs_vnode *cfs_vnode_ref(struct cfs_vnode *node);
void cfs_vnode_unref(struct cfs_vnode *node);
void cfs_vnode_unrefp(struct cfs_vnode **node);
enum cfs_vnode_kind cfs_vnode_kind(const struct cfs_vnode *node);

/* The root, as a reference: never fails once opened. */
struct cfs_vnode *cfs_views_root(struct cfs_views *views);

/* One component.  0; -ENOENT; -ENOTDIR; -EINVAL or -ENOTSUP with the reason (a
 * view that cannot be); the source's own errors.  A real file wins. */
CFS_MUST_CHECK int cfs_vnode_lookup(struct cfs_vnode *dir, const char *name,
				    struct cfs_vnode **child_out,
				    struct cfs_error *err);
/* Several components from @from, '/'-separated, ".." refused. */
CFS_MUST_CHECK int cfs_vnode_walk(struct cfs_vnode *from, const char *path,
				  struct cfs_vnode **node_out,
				  struct cfs_error *err);

/* Attributes; st_ino is the vnode's, st_size exact.  Of a directory: as they
 * are now, -ESTALE/-ENOENT once it is another or gone; of anything else: as it
 * was looked up. */
CFS_MUST_CHECK int cfs_vnode_stat(struct cfs_vnode *node, struct stat *st_out,
				  struct cfs_error *err);
/* Anything but a directory: a vnode is one version of a file, so attributes and
 * what was read may be kept until it is forgotten. */
bool cfs_vnode_immutable(const struct cfs_vnode *node);
/* What tables of nodes are keyed by: a directory, or one version of a file.  A
 * file that changed has the same st_ino and another key. */
uint64_t cfs_vnode_key(const struct cfs_vnode *node);
/* Names with at least type and inode number in st (0: not known before it is
 * looked up, for steps inside views).  Never plans. */
CFS_MUST_CHECK int cfs_vnode_readdir(struct cfs_vnode *dir, cfs_dirent_fn *fn,
				     void *arg);
CFS_MUST_CHECK int cfs_vnode_readlink(struct cfs_vnode *node,
				      struct cfs_buf *out);
/*
 * A source's own attributes, and for what is synthesised
 * user.ckptfs.{view,source,topology,segments,…}: text that tells what a file is
 * made of.  As getxattr(2), listxattr(2).
 */
ssize_t cfs_vnode_getxattr(struct cfs_vnode *node, const char *name, void *buf,
			   size_t size);
ssize_t cfs_vnode_listxattr(struct cfs_vnode *node, char *buf, size_t size);

/* ---- reading ---- */

CFS_MUST_CHECK int cfs_vnode_open(struct cfs_vnode *node,
				  struct cfs_vhandle **out,
				  struct cfs_error *err);
/* Any thread.  As pread(2), short at the end only; -ESTALE once a file it reads
 * was changed in place, -EIO: as cfs_reader_pread(). */
CFS_MUST_CHECK ssize_t cfs_vhandle_pread(struct cfs_vhandle *handle, void *buf,
					 size_t len, uint64_t off);
void cfs_vhandle_close(struct cfs_vhandle *handle);
void cfs_vhandle_closep(struct cfs_vhandle **handle);

/* ---- for a mount that writes ---- */

uint64_t cfs_vnode_ino(const struct cfs_vnode *node);
/* The source's inode number of what a change of @node changes: of a source's
 * object, of a run behind its view, of the pointer behind a view's; 0 for what
 * is made and cannot be changed. */
uint64_t cfs_vnode_object(const struct cfs_vnode *node);
/* That of the directory that a directory's own names are looked up in. */
uint64_t cfs_vnode_dir_object(const struct cfs_vnode *dir);
/* A change was made inside a directory that is shown in a run's view: it is
 * shown as it is while it is being saved, whole or not. */
void cfs_vnode_wrote(struct cfs_vnode *dir);
/* -EROFS; says once, in the log, that @name (or NULL: @node itself) is made. */
int cfs_vnode_refuse(struct cfs_vnode *node, const char *name);

/* ---- for the verbs ---- */

/* Path in the source of a CFS_VNODE_SOURCE, else of what it is made from. */
const char *cfs_vnode_source_path(const struct cfs_vnode *node);
/* The map of a CFS_VNODE_FILE (caller unrefs); -EINVAL for others. */
CFS_MUST_CHECK int cfs_vnode_map(struct cfs_vnode *node,
				 struct cfs_map **map_out,
				 struct cfs_error *err);
/* The planned tree behind a STEP_VIEW or FILE, borrowed; NULL for others, and
 * for a STEP_VIEW whose step has the asked topology (its files pass through).
 */
struct cfs_tree *cfs_vnode_tree(const struct cfs_vnode *node);
/* Reads the step at a CFS_VNODE_SOURCE directory (caller unrefs). */
CFS_MUST_CHECK int cfs_vnode_step(struct cfs_vnode *node,
				  struct cfs_step **step_out,
				  struct cfs_error *err);
/* A file of its step was found changed: it is read anew when next asked for. */
void cfs_vnode_suspect(struct cfs_vnode *node);
/*
 * Can @request be shown of the run (or step) at @node?  Tried on the step that
 * its view would show at once; *note_out (the caller frees it) is what such a
 * view leaves out, or NULL.  -ENOENT: the run has no whole step.
 */
CFS_MUST_CHECK int cfs_vnode_try(struct cfs_vnode *node,
				 const struct cfs_request *request,
				 char **note_out, struct cfs_error *err);
/*
 * The step to resume from in the run at @run, into @name: what `latest` names
 * if that is whole, else the newest whole one.  A directory that no format
 * knows is taken as it is named.  1, 0: there is none, or an errno.
 */
CFS_MUST_CHECK int cfs_vnode_resume(struct cfs_vnode *run, char name[256],
				    struct cfs_error *err);
/* Does this directory hold steps (a run), is it one?  From names alone. */
CFS_MUST_CHECK int cfs_vnode_is_run(struct cfs_vnode *node);
CFS_MUST_CHECK int cfs_vnode_is_step(struct cfs_vnode *node);

/* ---- named views (registry.c) ----
 *
 * Kept per user in $CKPTFS_CACHE_DIR, else $XDG_CACHE_HOME/ckptfs, else
 * ~/.cache/ckptfs, one JSON file a source run (hash of its real path), written
 * by rename; a live mount looks at it at each look-up of an unknown name.
 */
struct cfs_registry_entry {
	char *name;    /* without '@' */
	char *request; /* "dp32-zero1" */
	char *options; /* what no item can say (fs/format/options.h), or NULL */
};
void cfs_registry_entry_fini(struct cfs_registry_entry *entry);
CFS_MUST_CHECK int cfs_registry_add(const char *run_path,
				    const struct cfs_registry_entry *entry,
				    struct cfs_error *err);
CFS_MUST_CHECK int cfs_registry_remove(const char *run_path, const char *name,
				       struct cfs_error *err);
/* -ENOENT or 0; the caller ends *out. */
CFS_MUST_CHECK int cfs_registry_find(const char *run_path, const char *name,
				     struct cfs_registry_entry *out);
CFS_MUST_CHECK int
cfs_registry_list(const char *run_path,
		  int (*fn)(void *arg, const struct cfs_registry_entry *entry),
		  void *arg, struct cfs_error *err);

#endif
