/* Help, usage errors and failures: one line each, the same everywhere. */
#include "fs/cli/say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/util/log.h"

/* Of options without a letter: not one that getopt() itself returns. */
#define FIRST_OPTION 1000

int cfs_say_usage(const struct cfs_verb *verb, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "ckptfs %s: ", verb->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (see ckptfs %s --help)\n", verb->name);
	return CFS_EXIT_USAGE;
}

int cfs_say_fail(const struct cfs_verb *verb, const char *object, int r,
		 const struct cfs_error *err)
{
	const char *reason = err && err->text[0] ? err->text : strerror(-r);

	fflush(stdout);
	if (!object || strncmp(reason, object, strlen(object)) == 0)
		fprintf(stderr, "ckptfs %s: %s\n", verb->name, reason);
	else
		fprintf(stderr, "ckptfs %s: %s: %s\n", verb->name, object,
			reason);
	return CFS_EXIT_FAILED;
}

void cfs_say_warn(const struct cfs_verb *verb, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "ckptfs %s: ", verb->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* @options and --help, which every verb has. */
static int with_help(const struct option *options, struct option *out,
		     size_t cap)
{
	size_t n = 0;

	while (options[n].name && n + 2 < cap) {
		out[n] = options[n];
		n++;
	}
	if (options[n].name)
		return -E2BIG;
	out[n++] = (struct option){"help", no_argument, NULL, 'h'};
	out[n] = (struct option){0};
	return 0;
}

int cfs_say_next_option(const struct cfs_verb *verb, int argc, char **argv,
			const struct option *options, int *status_out)
{
	struct option all[32];
	int c;

	if (with_help(options, all, CFS_ARRAY_SIZE(all)) < 0)
		abort();
	opterr = 0;
	c = getopt_long(argc, argv, ":h", all, NULL);
	if (c == -1)
		return CFS_ARGS_END;
	if (c == 'h') {
		fputs(verb->help, stdout);
		*status_out = cfs_say_done(verb, CFS_EXIT_OK);
		return CFS_ARGS_EXIT;
	}
	if (c != '?' && c != ':')
		return c;
	*status_out = cfs_say_usage(verb, "%s: %s",
				    optind > 0 ? argv[optind - 1] : "option",
				    c == ':' ? "its argument is missing"
					     : "unknown or ambiguous option");
	return CFS_ARGS_EXIT;
}

bool cfs_say_options(const struct cfs_verb *verb, int argc, char **argv,
		     const struct cfs_say_option *options, int *status_out)
{
	struct option longs[32] = {0};
	int c, n;

	cfs_say_errors_only();
	for (n = 0; options[n].name; n++) {
		if (n + 1 == (int)CFS_ARRAY_SIZE(longs))
			abort();
		longs[n] = (struct option){options[n].name,
					   options[n].flag ? no_argument
							   : required_argument,
					   NULL, FIRST_OPTION + n};
	}
	while ((c = cfs_say_next_option(verb, argc, argv, longs, status_out)) >=
	       0) {
		const struct cfs_say_option *o = &options[c - FIRST_OPTION];

		if (o->flag) {
			*o->flag = true;
		} else if (o->take(o->arg, optarg) < 0) {
			*status_out = cfs_say_usage(verb, "--%s '%s': %s",
						    o->name, optarg, o->wrong);
			return false;
		}
	}
	return c == CFS_ARGS_END;
}

int cfs_say_take_text(void *arg, const char *text)
{
	*(const char **)arg = text;
	return 0;
}

static void log_error(enum cfs_log_level level, const char *line)
{
	(void)level;
	fprintf(stderr, "ckptfs: error: %s\n", line);
}

void cfs_say_errors_only(void)
{
	cfs_log_set_sink(log_error, CFS_LOG_ERR);
}

int cfs_say_done(const struct cfs_verb *verb, int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	if (errno == EPIPE)
		return status;
	return cfs_say_fail(verb, "standard output", -errno, NULL);
}
