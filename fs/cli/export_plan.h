/* What an export writes, in which order, and how it is known again. */
#ifndef CFS_CLI_EXPORT_PLAN_H
#define CFS_CLI_EXPORT_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_files_entry;
struct cfs_target;
struct cfs_vnode;

/* One name below the directory. */
struct cfs_export_item {
	char *path;
	char *text;		/* the whole content of a pointer, or NULL */
	struct cfs_vnode *node; /* NULL with a text */
	struct stat st;
	size_t step;  /* which of the steps it belongs to; SIZE_MAX: none */
	bool pointer; /* written last */
};

/* One step, and what its files depend on: "@dp3 89ab…". */
struct cfs_export_step {
	char *name; /* "" when the directory is the step */
	char *identity;
};

struct cfs_export_plan {
	char *view; /* where it came from: source and path of the view */
	struct cfs_export_item *items; /* pointers behind all others */
	size_t n_items, cap_items;
	struct cfs_export_step *steps;
	size_t n_steps;
	uint64_t bytes; /* of all regular files */
};

struct cfs_export_select {
	const char *step; /* of a run: this one; NULL: what `latest` names */
	bool all;	  /* of a run: every whole step */
	bool any;	  /* what is no run and no step as well */
	bool tree;	  /* all there is, of whatever it is */
};

/*
 * Of a run (or a view of one): the chosen steps, `latest`, and DeepSpeed's
 * zero_to_*.py; of a step (or a view of one): what is in it.  Plans all of it,
 * so that a step that cannot be shown is refused before anything is written.
 * Of anything else, where that is wanted: export_tree.h.  @skipped: told the
 * name and reason of what is left out; the target outlives the plan.
 */
CFS_MUST_CHECK int
cfs_export_plan_make(struct cfs_target *target,
		     const struct cfs_export_select *select,
		     void (*skipped)(const char *step, const char *why),
		     struct cfs_export_plan *out, struct cfs_error *err);
/* For who plans: another step (NULL: no memory), and a name in one. */
struct cfs_export_step *cfs_export_plan_begin(struct cfs_export_plan *plan,
					      const char *name);
CFS_MUST_CHECK int cfs_export_plan_add(struct cfs_export_plan *plan,
				       const char *prefix, size_t step,
				       const struct cfs_files_entry *entry);
void cfs_export_plan_free(struct cfs_export_plan *plan);

#endif
