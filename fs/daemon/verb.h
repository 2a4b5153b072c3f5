/* What the verbs of a store share: arguments, results, talking, the table. */
#ifndef CFS_DAEMON_VERB_H
#define CFS_DAEMON_VERB_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "fs/daemon/control.h"
#include "store/util/error.h"

extern const struct cfs_daemon_verb cfs_daemon_verb_du;
extern const struct cfs_daemon_verb cfs_daemon_verb_stats;
extern const struct cfs_daemon_verb cfs_daemon_verb_prune;
extern const struct cfs_daemon_verb cfs_daemon_verb_pin;
extern const struct cfs_daemon_verb cfs_daemon_verb_gc;
extern const struct cfs_daemon_verb cfs_daemon_verb_scrub;
extern const struct cfs_daemon_verb cfs_daemon_verb_fsck;
extern const struct cfs_daemon_verb cfs_daemon_verb_import;
extern const struct cfs_daemon_verb cfs_daemon_verb_send;
extern const struct cfs_daemon_verb cfs_daemon_verb_receive;
extern const struct cfs_daemon_verb cfs_daemon_verb_resolve;

/* Finds the verb and runs it, alone where it must be: -EINVAL, -EBUSY, or what
 * it says. */
CFS_MUST_CHECK int cfs_verb_run(struct cfs_verb_context *context,
				const char *name, const cJSON *arguments,
				const struct cfs_verb_reply *reply,
				cJSON *result, struct cfs_error *err);

/* -EROFS, in words, where the store may not be changed. */
CFS_MUST_CHECK int cfs_verb_may_change(const struct cfs_verb_context *context,
				       const char *name, struct cfs_error *err);

/* cfs_nstree_sweep(), and the kernel forgets the directory's name. */
CFS_MUST_CHECK int cfs_verb_sweep(const struct cfs_verb_context *context);

/* ---- arguments and results ---- */

/* NULL, false or @otherwise where it is not there or of another type.  Numbers
 * end at 9e15, which JSON still holds exactly. */
const char *cfs_verb_str(const cJSON *arguments, const char *name);
bool cfs_verb_flag(const cJSON *arguments, const char *name);
uint64_t cfs_verb_u64(const cJSON *arguments, const char *name,
		      uint64_t otherwise);
/* A path inside the store, "" being its root: tidied in place of "." and
 * doubled slashes; -EINVAL for "..".  The caller frees *out. */
CFS_MUST_CHECK int cfs_verb_path(const cJSON *arguments, const char *name,
				 char **out, struct cfs_error *err);

/* Text that is no UTF-8 is spelt as \xNN; integers stay whole. */
void cfs_verb_put_u64(cJSON *object, const char *name, uint64_t v);
void cfs_verb_put_str(cJSON *object, const char *name, const char *v);
void cfs_verb_put_flag(cJSON *object, const char *name, bool v);

/* ---- talking ---- */

/* false: stop.  @reply or its members may be NULL. */
bool cfs_verb_progress(const struct cfs_verb_reply *reply, uint64_t done,
		       uint64_t total, const char *what);
void cfs_verb_line(const struct cfs_verb_reply *reply, const char *fmt, ...)
	CFS_PRINTF(2, 3);

#endif
