/* ckptfs check: is a step whole and consistent? */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/check.h"
#include "fs/cli/check_against.h"
#include "fs/cli/facts.h"
#include "fs/cli/latest.h"
#include "fs/cli/progress.h"
#include "fs/cli/say.h"
#include "fs/cli/target.h"
#include "fs/cli/tensors.h"
#include "fs/format/format.h"
#include "fs/view/view.h"
#include "store/util/error.h"

/* What 1 means to a script that runs check. */
enum {
	EXIT_WRONG = 1,
	EXIT_TROUBLE = 2
};

struct options {
	bool json, quiet, crc;
	struct cfs_check_configs against;
};

static int take_config(void *arg, const char *text)
{
	struct cfs_check_configs *configs = arg;

	if (configs->n == CFS_CHECK_CONFIGS_MAX)
		return -E2BIG;
	configs->paths[configs->n++] = text;
	return 0;
}

static uint64_t total_bytes(struct cfs_step *step, bool crc)
{
	_cleanup_(cfs_tensors_free) struct cfs_tensors set = {0};
	uint64_t sum = 0;
	size_t i;

	if (cfs_tensors_of_step(step, &set, NULL) == 0)
		for (i = 0; i < set.n; i++)
			sum += cfs_tensors_item_bytes(&set.items[i]);
	for (i = 0; crc && i < cfs_filetab_count(step->files); i++)
		sum += cfs_filetab_version(step->files, (uint32_t)i)->size;
	return sum;
}

static int run_checks(struct cfs_check *check, struct cfs_error *err)
{
	static int (*const parts[])(struct cfs_check * check,
				    struct cfs_error * err) = {
		cfs_check_files,   cfs_check_coverage, cfs_check_values,
		cfs_check_padding, cfs_check_replicas,
	};
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < CFS_ARRAY_SIZE(parts); i++)
		r = parts[i](check, err);
	return r;
}

/* What the format itself says is missing: better than the reader's first
 * stumble.  Only a step on disk can be asked. */
static void say_missing(const char *path, struct cfs_check_report *report)
{
	_cleanup_(cfs_target_close) struct cfs_target t = {0};
	const struct cfs_format *format = NULL;
	struct cfs_error why = {""};

	if (cfs_target_open(path, &t, NULL) < 0 ||
	    cfs_vnode_kind(t.node) != CFS_VNODE_SOURCE ||
	    cfs_vnode_is_step(t.node) <= 0 ||
	    cfs_format_probe(t.source, cfs_vnode_source_path(t.node), &format) <
		    0)
		return;
	if (format->complete(t.source, cfs_vnode_source_path(t.node), &why) ==
	    0)
		cfs_check_report_problem(report, path, "not whole: %s",
					 why.text);
}

/* A step that is there and makes no sense is one that is wrong; anything else
 * is trouble of this run. */
static bool is_finding(const char *path, int r)
{
	_cleanup_(cfs_target_close) struct cfs_target t = {0};

	if (r == -ENOMEM || r == -EINTR || r == -EACCES || r == -EPERM ||
	    r == -EIO || cfs_target_open(path, &t, NULL) < 0)
		return false;
	return cfs_target_is_run(t.node) > 0 ||
	       cfs_vnode_kind(t.node) == CFS_VNODE_STEP_VIEW ||
	       cfs_vnode_is_step(t.node) > 0;
}

static int unreadable(const char *path, int r, struct cfs_error *err,
		      struct cfs_check_report *report)
{
	if (!is_finding(path, r))
		return r;
	cfs_check_report_begin(report, "read");
	say_missing(path, report);
	cfs_check_report_problem(report, path, "%s",
				 err->text[0] ? err->text : strerror(-r));
	cfs_check_report_end(report, "the step cannot be read");
	return 0;
}

static int check(const char *path, const struct options *o,
		 struct cfs_check_report *report, struct cfs_error *err)
{
	_cleanup_(cfs_target_step_close) struct cfs_target_step ts = {0};
	struct cfs_progress progress;
	struct cfs_check c = {
		.report = report, .progress = &progress, .crc = o->crc};
	int r;

	r = cfs_target_step_open(path, &ts, err);
	if (r < 0)
		return unreadable(path, r, err, report);
	cfs_latest_warn(&cfs_verb_check, &ts.target);
	c.step = ts.step;
	if (report->print)
		printf("%s: %s\n", path,
		       cfs_facts_topology(&ts.step->topology, ts.step->n_ranks)
			       .s);
	if (o->against.n)
		return cfs_check_against(report, ts.step, !ts.vsource,
					 &o->against, err);
	cfs_progress_init(&progress, total_bytes(ts.step, o->crc), o->quiet);
	r = run_checks(&c, err);
	cfs_progress_end(&progress);
	return r;
}

static int trouble(const char *path, int r, const struct cfs_error *err)
{
	cfs_say_fail(&cfs_verb_check, path, r, err);
	return EXIT_TROUBLE;
}

static int run(int argc, char **argv)
{
	_cleanup_(cfs_check_report_free) struct cfs_check_report report = {0};
	struct cfs_error err = {""};
	struct options o = {0};
	const struct cfs_say_option options[] = {
		{.name = "against",
		 .take = take_config,
		 .arg = &o.against,
		 .wrong = "one of too many files"},
		{.name = "crc", .flag = &o.crc},
		{.name = "quiet", .flag = &o.quiet},
		{.name = "json", .flag = &o.json},
		{0},
	};
	int r, status;

	if (!cfs_say_options(&cfs_verb_check, argc, argv, options, &status))
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_check, "name one step");
	r = cfs_check_report_init(&report, argv[optind], o.json, o.quiet);
	if (r == 0)
		r = check(argv[optind], &o, &report, &err);
	if (r == 0 && o.json)
		r = cfs_check_report_print(&report);
	if (r < 0)
		return trouble(argv[optind], r, &err);
	if (cfs_say_done(&cfs_verb_check, CFS_EXIT_OK))
		return EXIT_TROUBLE;
	return report.n_wrong ? EXIT_WRONG : CFS_EXIT_OK;
}

const struct cfs_verb cfs_verb_check = {
	.name = "check",
	.summary = "whether a step is whole and consistent",
	.help = "usage: ckptfs check [--crc] [--quiet] [--json] STEP\n"
		"       ckptfs check --against FILE... [--quiet] [--json] "
		"STEP\n"
		"\n"
		"Reads a whole step (of a run: the one `latest` names; a "
		"view is read back from\n"
		"what it shows) and looks for what no loader would notice:\n"
		"\n"
		"  files     all are there, parse, and hold the records they "
		"name\n"
		"  tensors   every element of every parameter is found once\n"
		"  weights   equal to the masters, rounded, bit for bit\n"
		"  values    NaN and Inf, counted by role\n"
		"  padding   zero wherever the format promises it\n"
		"  replicas  what is stored more than once is the same\n"
		"\n"
		"With --against nothing of that, but what would clash on "
		"resuming with the\n"
		"configuration FILE (GPT-NeoX's YAML, or a ds_config), with "
		"both values, and\n"
		"which accumulation keeps the global batch on the step's "
		"ranks; a view says\n"
		"which: check RUN/@dp8 --against new.yml.\n"
		"\n"
		"  --against FILE  compare with a configuration; several "
		"files of GPT-NeoX's\n"
		"                  are one: the option may be repeated\n"
		"  --crc           also compare the CRC-32 of every record that "
		"has one\n"
		"  --quiet         print nothing, only exit\n"
		"  --json          print JSON, with every problem\n"
		"  -h, --help      print this help\n"
		"\n"
		"Exits 0 when nothing is wrong, 1 when something is, 2 for "
		"trouble (no such step,\n"
		"not permitted to read it) or bad usage.\n",
	.run = run,
};
