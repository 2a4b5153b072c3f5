/* What every verb says the same way: help, usage errors, failures. */
#ifndef CFS_CLI_SAY_H
#define CFS_CLI_SAY_H

#include <getopt.h>
#include <stdbool.h>

#include "fs/cli/cli.h"
#include "store/util/error.h"

/* "ckptfs VERB: …" on stderr and the exit status for bad usage. */
int cfs_say_usage(const struct cfs_verb *verb, const char *fmt, ...)
	CFS_PRINTF(2, 3);

/*
 * "ckptfs VERB: OBJECT: reason" on stderr; returns CFS_EXIT_FAILED.  The
 * reason is @err's text, else strerror(-r); OBJECT is left out where the text
 * begins with it already.
 */
int cfs_say_fail(const struct cfs_verb *verb, const char *object, int r,
		 const struct cfs_error *err);

/* "ckptfs VERB: …" on stderr: worth knowing, nothing failed. */
void cfs_say_warn(const struct cfs_verb *verb, const char *fmt, ...)
	CFS_PRINTF(2, 3);

/*
 * getopt_long() over @options (--help is known by itself); the letter of the
 * next option, CFS_ARGS_END, or CFS_ARGS_EXIT with the status to exit with:
 * help was asked for and printed, or a mistake was reported.
 */
enum {
	CFS_ARGS_END = -1,
	CFS_ARGS_EXIT = -2
};
int cfs_say_next_option(const struct cfs_verb *verb, int argc, char **argv,
			const struct option *options, int *status_out);

/* From here on only errors are logged: the verb tells the rest itself. */
void cfs_say_errors_only(void);

/* Flushes stdout: @status, or CFS_EXIT_FAILED when what was printed did not
 * get out (a full disk). */
int cfs_say_done(const struct cfs_verb *verb, int status);

#endif
