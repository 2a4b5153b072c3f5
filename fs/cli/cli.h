/* What the verbs share: one file per verb, cmd_<verb>.c, listed in main.c. */
#ifndef CFS_CLI_CLI_H
#define CFS_CLI_CLI_H

#include "store/util/base.h"

enum {
	CFS_EXIT_OK = 0,
	CFS_EXIT_FAILED = 1,
	CFS_EXIT_USAGE = 2,
};

struct cfs_verb {
	const char *name;    /* "mount", "view" */
	const char *summary; /* one line of `ckptfs --help` */
	/* whole text of `ckptfs VERB --help`, at most 80 columns wide */
	const char *help;
	/* argv[0] is the verb.  Returns an exit status. */
	int (*run)(int argc, char **argv);
};

extern const struct cfs_verb cfs_verb_mount;
extern const struct cfs_verb cfs_verb_umount;
extern const struct cfs_verb cfs_verb_ls;
extern const struct cfs_verb cfs_verb_show;
extern const struct cfs_verb cfs_verb_view;
extern const struct cfs_verb cfs_verb_export;
extern const struct cfs_verb cfs_verb_diff;
extern const struct cfs_verb cfs_verb_check;
extern const struct cfs_verb cfs_verb_init;
extern const struct cfs_verb cfs_verb_du;
extern const struct cfs_verb cfs_verb_stats;
extern const struct cfs_verb cfs_verb_prune;
extern const struct cfs_verb cfs_verb_pin;
extern const struct cfs_verb cfs_verb_unpin;
extern const struct cfs_verb cfs_verb_gc;
extern const struct cfs_verb cfs_verb_scrub;
extern const struct cfs_verb cfs_verb_fsck;
extern const struct cfs_verb cfs_verb_import;
extern const struct cfs_verb cfs_verb_send;
extern const struct cfs_verb cfs_verb_receive;
extern const struct cfs_verb cfs_verb_resolve;

#endif
