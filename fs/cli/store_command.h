/* A verb of a store that takes one path: its options, the call, its output. */
#ifndef CFS_CLI_STORE_COMMAND_H
#define CFS_CLI_STORE_COMMAND_H

#include "fs/cli/store_verb.h"

struct cfs_store_command {
	struct cfs_store_verb call; /* but for what the command line says */
	const char *takes;	    /* what is missing: "name a store" */
	bool has_quiet;		    /* besides --json, which all have */
	const char *flag;	    /* one option more; or NULL */
	const char *argument;	    /* what it is called in the call; or NULL */
	/* Ahead of the call, with the option; an exit status, 0 to go on. NULL:
	 * nothing to do. */
	int (*before)(struct cfs_store_verb *call, bool flag);
	/* Not with --json; 0 or a negative errno. */
	int (*print)(const struct cfs_store_verb *call, const cJSON *result);
	/* Its findings make it fail; NULL: it has none. */
	bool (*found)(const cJSON *result);
};
/* argv[0] is the verb; an exit status. */
int cfs_store_command_run(const struct cfs_store_command *command, int argc,
			  char **argv);

#endif
