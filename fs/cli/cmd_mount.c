/* ckptfs mount SOURCE DIR: also the helper that mount(8) calls. */
#include "fs/cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fs/cli/daemon.h"
#include "fs/cli/dead_daemon.h"
#include "fs/cli/mount_options.h"
#include "fs/cli/mount_store.h"
#include "fs/cli/mountinfo.h"
#ifdef CFS_HAVE_STORE
#include "fs/cli/store_verb.h"
#endif
#include "fs/fuse/fuse.h"
#include "fs/view/view.h"
#include "store/core/store.h"
#include "store/map/source.h"
#include "store/util/error.h"

struct request {
	const char *source_arg, *dir_arg;
	char *source, *dir; /* real paths; owned */
	struct cfs_mount_options options;
	bool foreground, fake, helper;
	bool is_store;
};

static void fini_request(struct request *q)
{
	free(q->source);
	free(q->dir);
	cfs_mount_options_fini(&q->options);
}

static int usage(void)
{
	fputs("usage: ckptfs mount [-f] [-o OPTIONS] SOURCE DIR (see ckptfs "
	      "mount --help)\n",
	      stderr);
	return CFS_EXIT_USAGE;
}

static int failed(const char *what, int r, const struct cfs_error *err)
{
	if (err && err->text[0])
		fprintf(stderr, "ckptfs mount: %s\n", err->text);
	else
		fprintf(stderr, "ckptfs mount: %s: %s\n", what, strerror(-r));
	return CFS_EXIT_FAILED;
}

/* Options stand before or behind SOURCE and DIR: mount(8) puts them behind. */
static int parse(int argc, char **argv, struct request *q)
{
	static const struct option longs[] = {
		{"foreground", no_argument, NULL, 'f'},
		{"options", required_argument, NULL, 'o'},
		{NULL, 0, NULL, 0},
	};
	struct cfs_error err = {.text = ""};
	bool helper = strcmp(argv[0], "mount") != 0;
	int c, r;

	optind = 0;
	opterr = 0;
	/* As a helper, -f means "only pretend", and -s, -v, -n, -N, -t come. */
	while ((c = getopt_long(argc, argv, helper ? "fo:svnN:t:" : "fo:",
				longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			*(helper ? &q->fake : &q->foreground) = true;
			break;
		case 'o':
			r = cfs_mount_options_parse(&q->options, optarg, &err);
			if (r < 0) {
				failed(optarg, r, &err);
				return CFS_EXIT_USAGE;
			}
			break;
		case '?':
			fprintf(stderr,
				"ckptfs mount: option '%s' is unknown or "
				"lacks its value\n",
				argv[optind - 1]);
			return usage();
		default:
			break;
		}
	}
	q->helper = helper;
	if (argc - optind != 2)
		return usage();
	q->source_arg = argv[optind];
	q->dir_arg = argv[optind + 1];
	return 0;
}

/* What a daemon that died left behind answers ENOTCONN for ever. */
static int detach_dead(const char *dir, struct cfs_error *err)
{
	struct statvfs st; /* never from the kernel's memory */
	int ours = cfs_mountinfo_is_ours(dir), r;

	if (ours == -ENOENT)
		return 0;
	if (!statvfs(dir, &st) || errno != ENOTCONN) {
		if (ours > 0)
			return cfs_fail(err, -EBUSY,
					"%s: a ckptfs mount is there already",
					dir);
		return 0;
	}
	if (ours <= 0)
		return cfs_fail(err, -ENOTCONN,
				"%s: a dead mount of another kind is there; "
				"unmount it first",
				dir);
	r = cfs_unmount(dir, true);
	if (r < 0)
		return cfs_fail(err, r,
				"%s: the dead mount there cannot be "
				"detached: %s",
				dir, strerror(-r));
	fprintf(stderr, "ckptfs mount: %s: detached a dead mount\n", dir);
	return 0;
}

static int check_directory(const char *path, struct cfs_error *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return cfs_fail(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return cfs_fail(err, -ENOTDIR, "%s: not a directory", path);
	return 0;
}

#ifdef CFS_HAVE_STORE
/* A run of a store is no directory anywhere but in the store's mount. */
static int check_whole_store(const struct request *q, struct cfs_error *err)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};
	int r = cfs_store_path_prefix(q->source_arg, &path);

	if (r < 0) /* opening it says why */
		return r == -ENOMEM ? r : 0;
	if (!r || !path.inside[strspn(path.inside, "/.")])
		return 0;
	return cfs_fail(err, -EINVAL,
			"%s lies in the store %s, which is mounted whole: "
			"ckptfs mount %s %s, and it is %s/%s",
			q->source_arg, path.store, path.store, q->dir_arg,
			q->dir_arg, path.inside);
}
#endif

static int resolve(struct request *q, struct cfs_error *err)
{
	int r;

	/* before anything looks at the directory, which may not answer */
	cfs_dead_daemon_end(q->source_arg);
	q->dir = cfs_mountinfo_realpath(q->dir_arg);
	if (!q->dir)
		return cfs_fail(err, -errno, "%s: %s", q->dir_arg,
				strerror(errno));
	r = detach_dead(q->dir, err);
	if (r < 0)
		return r;
#ifdef CFS_HAVE_STORE
	r = check_whole_store(q, err);
	if (r < 0)
		return r;
#endif
	q->source = realpath(q->source_arg, NULL);
	if (!q->source)
		return cfs_fail(err, -errno, "%s: %s", q->source_arg,
				strerror(errno));
	r = check_directory(q->dir, err);
	if (!r)
		r = check_directory(q->source, err);
	if (r < 0)
		return r;
	/* The daemon would wait for itself. */
	if (cfs_path_is_below(q->dir, q->source))
		return cfs_fail(err, -EINVAL,
				"%s lies in the source %s; mount outside it",
				q->dir, q->source);
	if (cfs_path_is_below(q->source, q->dir))
		return cfs_fail(err, -EINVAL,
				"the source %s lies in %s, which the mount "
				"would hide",
				q->source, q->dir);
#ifdef CFS_HAVE_STORE
	r = cfs_store_probe(q->source);
#endif
	if (r < 0)
		return cfs_fail(err, r, "%s: %s", q->source, strerror(-r));
	q->is_store = r > 0;
	return 0;
}

/* A view of many ranks holds many files open. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/*
 * Plans are made by many threads, from trees of tens of megabytes that go as
 * soon as a file is planned: few arenas, and what is large goes back at once.
 * Chunks on their way into a store come and go all the time: twice what may be
 * on the way stays, or every one would be paged in anew.
 */
static void tune_malloc(bool store)
{
#ifdef __GLIBC__
	(void)mallopt(M_ARENA_MAX, 2);
	(void)mallopt(M_MMAP_THRESHOLD, 4 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, store ? 128 << 20 : 16 << 20);
#else
	(void)store;
#endif
}

static void on_ready(void *arg)
{
	(void)arg;
	cfs_daemon_ready();
}

static int serve(const struct request *q, struct cfs_error *err)
{
	_cleanup_(cfs_source_freep) struct cfs_source *source = NULL;
	_cleanup_(cfs_views_closep) struct cfs_views *views = NULL;
	struct cfs_views_options views_options = {
		.block_cache_bytes = q->options.cache_bytes,
		.view = q->options.view,
		.crc_full = q->options.crc_full,
		.forget_trees = true,
		.source_path = q->source,
	};
	struct cfs_fuse_options fuse_options = {
		.source = q->source,
		.dir = q->dir,
		.allow_other = q->options.allow_other,
		.noexec = q->options.noexec,
		.direct_io = q->options.direct_io,
		.ready = on_ready,
	};
	int r;

	raise_file_limit();
	tune_malloc(q->is_store);
	cfs_fuse_block_signals();
#ifdef CFS_HAVE_STORE
	if (q->is_store)
		return cfs_mount_store(q->source, &q->options, &fuse_options,
				       err);
#endif
	r = cfs_source_dir_open(q->source, &source);
	if (r < 0)
		return cfs_fail(err, r, "%s: %s", q->source, strerror(-r));
	r = cfs_views_open(source, &views_options, &views, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", q->source);
	return cfs_fuse_run(views, &fuse_options, err);
}

static int mount_it(struct request *q)
{
	struct cfs_error err = {.text = ""};
	int r;

	r = resolve(q, &err);
	if (r < 0)
		return failed(q->dir_arg, r, &err);
	/* mount(8) says rw of its own accord. */
	if (!q->is_store && q->options.rw && !q->helper) {
		fputs("ckptfs mount: option 'rw': the mount of a directory "
		      "that is no store is read-only\n",
		      stderr);
		return CFS_EXIT_USAGE;
	}
	if (q->fake)
		return CFS_EXIT_OK;
	r = cfs_daemon_log(q->options.log, q->foreground);
	if (r < 0)
		return failed(q->options.log, r, NULL);
	if (!q->foreground) {
		r = cfs_daemon_fork();
		if (r == 1)
			return CFS_EXIT_OK;
		if (r == -ECHILD)
			return CFS_EXIT_FAILED;
		if (r < 0)
			return failed("cannot become a daemon", r, NULL);
	}
	r = serve(q, &err);
	return r < 0 ? failed(q->source, r, &err) : CFS_EXIT_OK;
}

static int run(int argc, char **argv)
{
	struct request q = {.source_arg = NULL};
	int r;

	r = parse(argc, argv, &q);
	if (!r)
		r = mount_it(&q);
	fini_request(&q);
	return r;
}

static const char help[] =
	"usage: ckptfs mount [-f] [-o OPTIONS] SOURCE DIR\n"
	"\n"
	"Shows SOURCE at DIR, plus views: after a run or a step, `@dp32` shows the\n"
	"same checkpoints as if 32 ranks had saved them.  A store (`ckptfs init`)\n"
	"is writable: trainers save into DIR.  Any other directory is shown as it\n"
	"is, read-only.  Returns when the mount answers; works as an ordinary\n"
	"user.  A mount whose daemon died is detached first.\n"
	"\n"
	"  -f, --foreground   stay; messages go to stderr, Ctrl-C unmounts\n"
	"  -o, --options OPTIONS   separated by commas:\n"
	"       view=NAME     show this view of SOURCE as the mount's root\n"
	"       allow_other   let other users in (permissions are checked)\n"
	"       crc=full      compute every checksum in made files by reading\n"
	"       cache=SIZE    memory for computed and decoded blocks (default\n"
	"                     256M)\n"
	"       derive=SECONDS   keep weights that are their rounded master\n"
	"                     as that, once a store is so long quiet (default\n"
	"                     30; 0: never)\n"
	"       ro            take no writes into a store\n"
	"       direct_io     no page cache: faster streams, no shared mmap\n"
	"       log=FILE      messages go there (default: syslog)\n"
	"     mount(8)'s own (ro, nofail, noauto, _netdev, x-…) are accepted.\n"
	"\n"
	"In fstab: /lustre/run1 /mnt/ckpt fuse.ckptfs noauto,view=@dp32 0 0\n";

const struct cfs_verb cfs_verb_mount = {
	"mount", "show a store or a directory of checkpoints, with its views",
	help, run};
