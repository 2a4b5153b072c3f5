/*
 * ckptfs VERB …: finds the verb.  Also what mount(8) calls: as
 * mount.fuse.ckptfs (its own helper protocol), or, through the generic
 * mount.fuse3, as `ckptfs SOURCE DIR -o OPTIONS`.
 */
#include "fs/cli/cli.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "store/util/base.h"
#include "store/util/log.h"

/* A build without FUSE has no mount and no umount: their address is NULL. */
#pragma weak cfs_verb_mount
#pragma weak cfs_verb_umount
#pragma weak cfs_verb_ls
#pragma weak cfs_verb_show
#pragma weak cfs_verb_view
#pragma weak cfs_verb_export
#pragma weak cfs_verb_diff
#pragma weak cfs_verb_check
#pragma weak cfs_verb_init
#pragma weak cfs_verb_du
#pragma weak cfs_verb_stats
#pragma weak cfs_verb_prune
#pragma weak cfs_verb_pin
#pragma weak cfs_verb_unpin
#pragma weak cfs_verb_gc
#pragma weak cfs_verb_scrub
#pragma weak cfs_verb_fsck
#pragma weak cfs_verb_import
#pragma weak cfs_verb_send
#pragma weak cfs_verb_receive
#pragma weak cfs_verb_resolve

static const struct cfs_verb *const verbs[] = {
	&cfs_verb_init,	   &cfs_verb_mount, &cfs_verb_umount, &cfs_verb_ls,
	&cfs_verb_show,	   &cfs_verb_view,  &cfs_verb_export, &cfs_verb_diff,
	&cfs_verb_check,   &cfs_verb_du,    &cfs_verb_stats,  &cfs_verb_resolve,
	&cfs_verb_prune,   &cfs_verb_pin,   &cfs_verb_unpin,  &cfs_verb_gc,
	&cfs_verb_scrub,   &cfs_verb_fsck,  &cfs_verb_import, &cfs_verb_send,
	&cfs_verb_receive,
};

static void log_to_stderr(enum cfs_log_level level, const char *line)
{
	static const char *const names[] = {"error", "warning", "info",
					    "debug"};

	fprintf(stderr, "ckptfs: %s: %s\n", names[level], line);
}

static const struct cfs_verb *find_verb(const char *name)
{
	size_t i;

	for (i = 0; i < CFS_ARRAY_SIZE(verbs); i++)
		if (verbs[i] && !strcmp(verbs[i]->name, name))
			return verbs[i];
	return NULL;
}

static void print_help(FILE *f)
{
	size_t i;

	fputs("usage: ckptfs VERB [OPTIONS] …\n"
	      "\n"
	      "Keeps training checkpoints once, and shows them as if other "
	      "hardware had saved\nthem.\n"
	      "\n",
	      f);
	for (i = 0; i < CFS_ARRAY_SIZE(verbs); i++)
		if (verbs[i])
			fprintf(f, "  %-8s %s\n", verbs[i]->name,
				verbs[i]->summary);
	fputs("\n"
	      "`ckptfs VERB --help` tells more; `ckptfs --version` the "
	      "version.\n",
	      f);
}

static bool wants_help(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	return false;
}

static int run_verb(const struct cfs_verb *verb, int argc, char **argv)
{
	if (wants_help(argc, argv)) {
		fputs(verb->help, stdout);
		return CFS_EXIT_OK;
	}
	return verb->run(argc, argv);
}

/* argv as mount(8) makes it, with the name of the helper in front. */
static int run_mount_helper(int argc, char **argv)
{
	if (!&cfs_verb_mount) {
		fputs("ckptfs: this build has no FUSE\n", stderr);
		return CFS_EXIT_FAILED;
	}
	return cfs_verb_mount.run(argc, argv);
}

static bool is_mount_helper(const char *argv0)
{
	const char *base = strrchr(argv0, '/');

	base = base ? base + 1 : argv0;
	return !strncmp(base, "mount.", strlen("mount."));
}

int main(int argc, char **argv)
{
	const struct cfs_verb *verb;

	cfs_log_set_sink(log_to_stderr, CFS_LOG_WARN);
	if (argc > 0 && is_mount_helper(argv[0]))
		return run_mount_helper(argc, argv);
	if (argc < 2) {
		print_help(stderr);
		return CFS_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "help")) {
		print_help(stdout);
		return CFS_EXIT_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("ckptfs " CFS_VERSION);
		return CFS_EXIT_OK;
	}
	verb = find_verb(argv[1]);
	if (verb)
		return run_verb(verb, argc - 1, argv + 1);
	if (argc >= 4 && !strcmp(argv[3], "-o"))
		return run_mount_helper(argc, argv);
	fprintf(stderr, "ckptfs: no verb '%s' (see ckptfs --help)\n", argv[1]);
	return CFS_EXIT_USAGE;
}
