/* Verbs of a store from the command line: paths, arguments, the call. */
#ifndef CFS_CLI_STORE_VERB_H
#define CFS_CLI_STORE_VERB_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "fs/cli/say.h"

/* Where a path leads: a store, and the path inside it ("" its root). */
struct cfs_store_path {
	char *store, *inside;
};
/*
 * 1 when @path leads into a store: STORE, STORE/run1 (whatever STORE has on
 * the disk, what follows is a name in the namespace), or a path in a mount of
 * one; 0 when not.
 */
CFS_MUST_CHECK int cfs_store_path_find(const char *path,
				       struct cfs_store_path *out,
				       struct cfs_error *err);
/* The same without mounts. */
CFS_MUST_CHECK int cfs_store_path_prefix(const char *path,
					 struct cfs_store_path *out);
void cfs_store_path_free(struct cfs_store_path *path); /* for _cleanup_ too */

/* One call of a verb. */
struct cfs_store_verb {
	const struct cfs_verb *verb; /* for what is said */
	const char *name;	     /* the store's */
	const char *object;	     /* path as it was given */
	cJSON *arguments;	     /* the call's own after it was made */
	const int *fds;
	unsigned n_fds;
	bool quiet;    /* no progress */
	bool units;    /* progress counts things, not bytes */
	bool findings; /* lines are results: kept in "findings" */
	bool whole;    /* about all of a store: a path inside is refused */
};
/*
 * Finds the store of ->object, adds "path", calls, shows progress.  0 with the
 * result, or the exit status (what failed has been said).
 */
CFS_MUST_CHECK int cfs_store_verb_call(const struct cfs_store_verb *call,
				       cJSON **result_out);

/* A number of the result; 0 when it is not there. */
uint64_t cfs_store_verb_u64(const cJSON *result, const char *name);
const char *cfs_store_verb_str(const cJSON *result, const char *name);
/* 3.14, or 0 */
double cfs_store_verb_real(const cJSON *result, const char *name);
bool cfs_store_verb_flag(const cJSON *result, const char *name);
/* Prints @result as JSON; the exit status. */
int cfs_store_verb_json(const struct cfs_verb *verb, const cJSON *result,
			int status);
/* Prints the findings, a line each. */
void cfs_store_verb_findings(const cJSON *result);
/* A whole number from the command line: 0, or -EINVAL. */
CFS_MUST_CHECK int cfs_store_verb_number(const char *text, uint64_t *out);

#endif
