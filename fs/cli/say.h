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

/* One option in a table that an empty one ends: a flag, or one with a value. */
struct cfs_say_option {
	const char *name;
	bool *flag; /* set where it is given; NULL: it has a value */
	/* Takes the value; negative: bad usage, for the reason @wrong. */
	int (*take)(void *arg, const char *text);
	void *arg;
	const char *wrong;
};
/* All options of the command line: true, and optind is at the first argument;
 * false: exit with the status.  Only errors are logged from here on. */
bool cfs_say_options(const struct cfs_verb *verb, int argc, char **argv,
		     const struct cfs_say_option *options, int *status_out);
/* A ->take: @arg is a const char *, the text. */
int cfs_say_take_text(void *arg, const char *text);

/* From here on only errors are logged: the verb tells the rest itself. */
void cfs_say_errors_only(void);

/* Flushes stdout: @status, or CFS_EXIT_FAILED when what was printed did not
 * get out (a full disk). */
int cfs_say_done(const struct cfs_verb *verb, int status);

#endif
