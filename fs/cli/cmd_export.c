/* ckptfs export: writes a view out as real files. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/cli/export_copy.h"
#include "fs/cli/export_marker.h"
#include "fs/cli/export_plan.h"
#include "fs/cli/export_source.h"
#include "fs/cli/json.h"
#include "fs/cli/latest.h"
#include "fs/cli/live.h"
#include "fs/cli/progress.h"
#include "fs/cli/say.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/target.h"
#include "fs/cli/text.h"
#include "store/util/error.h"

struct options {
	struct cfs_export_select select;
	bool resume, json, quiet;
};

/* An export under way. */
struct job {
	const char *dir_path;
	int dir;
	const struct options *options;
	struct cfs_export_plan plan;
	cJSON *marker; /* of an earlier attempt, or NULL */
	struct cfs_progress progress;
	uint64_t n_written, n_kept, bytes_written;
};

static void job_close(struct job *job)
{
	cfs_export_plan_free(&job->plan);
	cfs_json_freep(&job->marker);
	cfs_closep(&job->dir);
}

static void skipped(const char *step, const char *why)
{
	cfs_say_warn(&cfs_verb_export, "%s left out, %s", step, why);
}

/* 1: nothing in it, 0: something. */
static int is_empty(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *e;
	int empty = 1;
	DIR *d;

	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	while (empty && (e = readdir(d)))
		empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
	closedir(d);
	return empty;
}

static int refuse_existing(const struct job *job, const char *name,
			   struct cfs_error *err)
{
	return cfs_fail(err, -EEXIST,
			"%s/%s is there and is not of this export; choose "
			"another directory",
			job->dir_path, name);
}

/* Nothing that is not ours may be mixed with, or replaced by, what comes. */
static int check_steps(const struct job *job, struct cfs_error *err)
{
	struct stat st;
	size_t i;
	int r;

	for (i = 0; i < job->plan.n_steps; i++) {
		const char *name = job->plan.steps[i].name;

		if (job->marker && cfs_export_marker_has(job->marker, name))
			continue;
		if (name[0]) {
			if (fstatat(job->dir, name, &st, AT_SYMLINK_NOFOLLOW) ==
			    0)
				return refuse_existing(job, name, err);
			continue;
		}
		r = is_empty(job->dir);
		if (r < 0)
			return r;
		if (!r)
			return cfs_fail(err, -EEXIST,
					"%s is not empty; a step needs a "
					"directory of its own",
					job->dir_path);
	}
	return 0;
}

/* Was this file promised by the export that is being resumed? */
static bool is_own(const struct job *job, const struct cfs_export_item *item)
{
	struct stat st;

	return job->marker && item->step < job->plan.n_steps &&
	       cfs_export_marker_has(job->marker,
				     job->plan.steps[item->step].name) &&
	       fstatat(job->dir, item->path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(st.st_mode);
}

/* It had its name only when it was whole, so somebody has touched it since:
 * whether to lose it is for them to say. */
static int refuse_damaged(const struct job *job,
			  const struct cfs_export_item *item,
			  struct cfs_error *err)
{
	struct stat st = {0};

	(void)fstatat(job->dir, item->path, &st, AT_SYMLINK_NOFOLLOW);
	return cfs_fail(err, -EEXIST,
			"%s/%s is a file of this export, but damaged (%lld "
			"bytes of %lld); remove it and go on with --resume",
			job->dir_path, item->path, (long long)st.st_size,
			(long long)item->st.st_size);
}

static int check_items(const struct job *job, struct cfs_error *err)
{
	size_t i;

	for (i = 0; i < job->plan.n_items; i++) {
		const struct cfs_export_item *item = &job->plan.items[i];
		int r = cfs_export_copy_done(job->dir, item);

		if (r == 0 || (job->marker && (r > 0 || item->pointer)))
			continue;
		if (r < 0 && r != -EEXIST)
			return cfs_fail_prefix(err, r, "%s/%s", job->dir_path,
					       item->path);
		if (is_own(job, item))
			return refuse_damaged(job, item, err);
		return refuse_existing(job, item->path, err);
	}
	return 0;
}

static int open_dir(struct job *job, struct cfs_error *err)
{
	int r;

	if (mkdir(job->dir_path, 0777) < 0 && errno != EEXIST)
		return cfs_fail_prefix(err, -errno, "%s", job->dir_path);
	job->dir = open(job->dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (job->dir < 0)
		return cfs_fail_prefix(err, -errno, "%s", job->dir_path);
	r = cfs_export_marker_read(job->dir, &job->marker, err);
	if (r == -ENOENT)
		return 0;
	if (r == 0 && !job->options->resume)
		return cfs_fail(err, -EEXIST,
				"%s holds an export already; --resume goes on "
				"with it",
				job->dir_path);
	if (r == 0)
		r = cfs_export_marker_check(job->marker, &job->plan, err);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", job->dir_path) : 0;
}

static int explain_failure(const struct job *job,
			   const struct cfs_export_item *item, int r,
			   struct cfs_error *err)
{
	uint64_t left =
		job->plan.bytes - CFS_MIN(job->progress.done, job->plan.bytes);

	if (r == -ENOSPC || r == -EDQUOT)
		return cfs_fail(err, r,
				"%s/%s: %s; about %s are still to be written: "
				"make room and go on with --resume",
				job->dir_path, item->path, strerror(-r),
				cfs_text_bytes(left).s);
	if (r == -ESTALE && !err->text[0])
		return cfs_fail(err, r,
				"%s: its source changed while it was read; "
				"start again",
				item->path);
	return cfs_fail_prefix(err, r, "%s/%s", job->dir_path, item->path);
}

static int do_item(struct job *job, const struct cfs_export_item *item,
		   struct cfs_error *err)
{
	uint64_t size =
		S_ISREG(item->st.st_mode) ? (uint64_t)item->st.st_size : 0;
	bool replace = item->pointer && job->marker;
	int r;

	r = replace ? 0 : cfs_export_copy_done(job->dir, item);
	if (r > 0) {
		job->n_kept += S_ISREG(item->st.st_mode);
		cfs_progress_skip(&job->progress, size);
		return 0;
	}
	if (r == 0)
		r = cfs_export_copy(job->dir, item, replace, &job->progress,
				    err);
	if (r < 0)
		return explain_failure(job, item, r, err);
	job->n_written++;
	job->bytes_written += size;
	return 0;
}

/* The first @n names reach the disk. */
static int sync_names(const struct job *job, size_t n, struct cfs_error *err)
{
	int r = cfs_export_copy_sync_dirs(job->dir, job->plan.items, n);

	return r < 0 ? cfs_fail_prefix(err, r, "%s", job->dir_path) : 0;
}

/* All of it; before the first pointer every name has reached the disk. */
static int do_items(struct job *job, struct cfs_error *err)
{
	const struct cfs_export_plan *plan = &job->plan;
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < plan->n_items; i++) {
		if (plan->items[i].pointer && i && !plan->items[i - 1].pointer)
			r = sync_names(job, i, err);
		if (r == 0)
			r = do_item(job, &plan->items[i], err);
	}
	/* without a pointer the note that it is complete comes next */
	if (r == 0 && plan->n_items && !plan->items[plan->n_items - 1].pointer)
		r = sync_names(job, plan->n_items, err);
	return r;
}

static int print_result(const struct job *job, const char *path)
{
	_cleanup_(cfs_json_freep) cJSON *json = NULL;
	double seconds = cfs_progress_seconds(&job->progress);
	cJSON *steps;
	size_t i;

	if (job->options->quiet && !job->options->json)
		return 0;
	if (!job->options->json) {
		printf("%s: %" PRIu64 " files, %s written to %s in %s", path,
		       job->n_written, cfs_text_bytes(job->bytes_written).s,
		       job->dir_path, cfs_text_duration(seconds).s);
		if (job->n_kept)
			printf("; %" PRIu64 " were there", job->n_kept);
		putchar('\n');
		return 0;
	}
	json = cJSON_CreateObject();
	cfs_json_str(json, "view", path);
	cfs_json_str(json, "directory", job->dir_path);
	cfs_json_u64(json, "files_written", job->n_written);
	cfs_json_u64(json, "files_kept", job->n_kept);
	cfs_json_u64(json, "bytes_written", job->bytes_written);
	cfs_json_real(json, "seconds", seconds);
	steps = cfs_json_array(json, "steps");
	for (i = 0; i < job->plan.n_steps; i++)
		cfs_json_str(steps, NULL,
			     job->plan.steps[i].name[0]
				     ? job->plan.steps[i].name
				     : ".");
	return cfs_json_print(json);
}

static int work(struct job *job, struct cfs_error *err)
{
	int r;

	r = open_dir(job, err);
	if (r == 0)
		r = check_steps(job, err);
	if (r == 0)
		r = check_items(job, err);
	if (r == 0)
		r = cfs_export_marker_write(job->dir, job->marker, &job->plan,
					    false, err);
	if (r < 0)
		return r;
	cfs_progress_init(&job->progress, job->plan.bytes, job->options->quiet);
	r = do_items(job, err);
	cfs_progress_end(&job->progress);
	if (r < 0)
		return r;
	return cfs_export_marker_write(job->dir, job->marker, &job->plan, true,
				       err);
}

static int export(const char *path, const char *dir,
		  const struct options *options, struct cfs_error *err)
{
	_cleanup_(cfs_target_close) struct cfs_target target = {0};
	_cleanup_(job_close) struct job job = {
		.dir_path = dir, .dir = -1, .options = options};
	_cleanup_(cfs_freep) char *real = NULL;
	int r;

	r = cfs_live_translate_plain(path, &real, err);
	if (r == 0)
		r = cfs_target_open(real, &target, err);
	if (r < 0)
		return r;
	r = cfs_export_source_refuse(&target, dir, err);
	if (r < 0)
		return r;
	if (!options->select.step)
		cfs_latest_warn(&cfs_verb_export, &target);
	r = cfs_export_plan_make(&target, &options->select, skipped, &job.plan,
				 err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	r = work(&job, err);
	return r < 0 ? r : print_result(&job, path);
}

/* There is no cp(1) for what is in a store that is not mounted. */
static bool is_in_store(const char *path)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path found = {0};

	return cfs_store_path_find(path, &found, NULL) > 0;
}

static int run(int argc, char **argv)
{
	struct options o = {0};
	struct cfs_error err = {""};
	const struct cfs_say_option options[] = {
		{"step", NULL, cfs_say_take_text, &o.select.step, NULL},
		{.name = "all", .flag = &o.select.all},
		{.name = "tree", .flag = &o.select.tree},
		{.name = "resume", .flag = &o.resume},
		{.name = "quiet", .flag = &o.quiet},
		{.name = "json", .flag = &o.json},
		{0},
	};
	int r, status;

	if (!cfs_say_options(&cfs_verb_export, argc, argv, options, &status))
		return status;
	if (argc - optind != 2)
		return cfs_say_usage(&cfs_verb_export,
				     "name a view and a directory");
	if (!!o.select.step + o.select.all + o.select.tree > 1)
		return cfs_say_usage(&cfs_verb_export,
				     "one of --step, --all and --tree");
	o.select.any = is_in_store(argv[optind]);
	r = export(argv[optind], argv[optind + 1], &o, &err);
	if (r < 0)
		return cfs_say_fail(&cfs_verb_export, argv[optind], r, &err);
	return cfs_say_done(&cfs_verb_export, CFS_EXIT_OK);
}

const struct cfs_verb cfs_verb_export = {
	.name = "export",
	.summary = "write a view out as real files",
	.help = "usage: ckptfs export [--step NAME | --all | --tree] [--resume]\n"
		"                     [--quiet] [--json] VIEW DIR\n"
		"\n"
		"Writes a view to DIR, for places where nothing can be "
		"mounted. Of a run's view\n"
		"(RUN/@dp32): the step that `latest` names, that pointer, and "
		"DeepSpeed's\n"
		"zero_to_*.py; other files of the run stay. Of a step's view "
		"(STEP/@dp32, or\n"
		"RUN/@dp32/STEP): its files, straight into DIR. A run or step "
		"without a view is\n"
		"copied as it is, and so is any other directory or file of a "
		"store.\n"
		"\n"
		"A file gets its name when it is whole and on the disk; "
		"pointers come last. DIR\n"
		"keeps a note, " CFS_EXPORT_MARKER ", by which --resume knows "
		"which files are\n"
		"done, and refuses to mix in another view or a source that "
		"changed. Files of\n"
		"others are never overwritten.\n"
		"\n"
		"  --step NAME  of a run: this step; `latest` will name it\n"
		"  --all        of a run: every whole step\n"
		"  --tree       all that is in VIEW, whatever it is\n"
		"  --resume     go on with the export that DIR holds\n"
		"  --quiet      no progress, no summary\n"
		"  --json       print the summary as JSON\n"
		"  -h, --help   print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be done, 2 for bad usage.\n",
	.run = run,
};
