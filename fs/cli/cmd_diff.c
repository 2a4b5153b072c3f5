/* ckptfs diff: which tensors of two steps, views or files differ. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/cli/delta.h"
#include "fs/cli/diff_report.h"
#include "fs/cli/latest.h"
#include "fs/cli/leaves.h"
#include "fs/cli/progress.h"
#include "fs/cli/say.h"
#include "fs/cli/target.h"
#include "fs/cli/target_file.h"
#include "fs/cli/tensors.h"
#include "fs/format/format.h"
#include "fs/view/view.h"
#include "store/util/buf.h"
#include "store/util/error.h"

/* What 1 means to a script that runs diff. */
enum {
	EXIT_DIFFERENT = 1,
	EXIT_TROUBLE = 2
};

struct options {
	const char *role; /* only this one, or NULL */
	bool json, quiet;
};

/* One side: a step (also of a view) or a file. */
struct side {
	const char *path;
	struct cfs_target_step step;
	struct cfs_target_file file;
	struct cfs_tensors tensors;
	struct cfs_leaves leaves;
	uint64_t n_others; /* values that are not compared */
};

static void side_close(struct side *s)
{
	cfs_leaves_free(&s->leaves);
	cfs_tensors_free(&s->tensors);
	cfs_target_file_close(&s->file);
	cfs_target_step_close(&s->step);
}

/* 1: @path is a file (or will fail as one), 0: a directory of some kind. */
static int open_file(struct side *s, struct cfs_error *err)
{
	struct cfs_target target = {0};
	struct stat st;
	int r;

	r = cfs_target_open(s->path, &target, err);
	if (r < 0)
		return r;
	r = cfs_vnode_stat(target.node, &st, err);
	if (r < 0 || S_ISDIR(st.st_mode)) {
		cfs_target_close(&target);
		return r;
	}
	r = cfs_target_file_take(&target, &s->file, err);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", s->path) : 1;
}

static int side_open(struct side *s, struct cfs_error *err)
{
	int r;

	r = open_file(s, err);
	if (r < 0)
		return r;
	if (r > 0) {
		const struct cfs_node *root = cfs_torchfile_root(s->file.torch);

		r = cfs_leaves_of_tree(root, &s->leaves);
		if (r < 0)
			return r;
		return cfs_tensors_of_tree(root, s->file.tab, s->file.pool,
					   &s->tensors, err);
	}
	r = cfs_target_step_open(s->path, &s->step, err);
	if (r < 0)
		return r;
	cfs_latest_warn(&cfs_verb_diff, &s->step.target);
	r = cfs_leaves_of_step(s->step.step, &s->leaves);
	if (r < 0)
		return r;
	r = cfs_leaves_others_of_step(s->step.step, &s->n_others);
	if (r < 0)
		return r;
	return cfs_tensors_of_step(s->step.step, &s->tensors, err);
}

static int open_named(struct side *s, char which, struct cfs_error *err)
{
	int r = side_open(s, err);

	if (r >= 0)
		return r;
	if (strncmp(err->text, s->path, strlen(s->path)) == 0)
		return cfs_fail_prefix(err, r, "%c", which);
	return cfs_fail_prefix(err, r, "%c: %s", which, s->path);
}

static bool has_role(const struct cfs_tensors *set, size_t n, const char *role)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strcmp(set->items[i].role, role) == 0)
			return true;
	return false;
}

/* A role nobody has would make anything equal. */
static int check_role(const struct side *a, const struct side *b,
		      const char *role, struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf list = CFS_BUF_INIT;
	const struct cfs_tensors *sets[] = {&a->tensors, &b->tensors};
	size_t s, i;

	for (s = 0; s < 2; s++) {
		for (i = 0; i < sets[s]->n; i++) {
			const char *have = sets[s]->items[i].role;

			if (strcmp(have, role) == 0)
				return 0;
			if (!has_role(sets[s], i, have) &&
			    (!s || !has_role(sets[0], sets[0]->n, have)))
				cfs_buf_printf(&list, "%s%s",
					       list.len ? ", " : "", have);
		}
	}
	return cfs_fail(err, -EINVAL,
			"--role %s: neither A nor B has such tensors; there "
			"are: %s",
			role, list.len ? cfs_buf_str(&list) : "none");
}

/* A role that one side does not keep at all: stage 3 stores no weights. */
static bool role_is_derived(const struct side *s, const char *role)
{
	const struct cfs_step *step = s->step.step;

	return step && strcmp(role, "weight") == 0 &&
	       step->topology.optimizer == CFS_OPT_ZERO3;
}

static int compare_pair(const struct side *a, const struct cfs_tensors_item *x,
			const struct side *b, const struct cfs_tensors_item *y,
			struct cfs_progress *progress,
			struct cfs_diff_report *report, struct cfs_error *err)
{
	struct cfs_delta delta;
	int r;

	if (x->ndim != y->ndim ||
	    (x->ndim &&
	     memcmp(x->shape, y->shape, x->ndim * sizeof(*x->shape)) != 0))
		return cfs_diff_report_shape(report, x, y);
	r = cfs_delta_compare(&a->tensors, x, &b->tensors, y, progress, &delta,
			      err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s (%s)", x->name, x->role);
	return cfs_diff_report_delta(report, x, y, &delta);
}

static int one_sided(const struct side *without,
		     const struct cfs_tensors_item *item, char which,
		     struct cfs_diff_report *report)
{
	if (role_is_derived(without, item->role)) {
		report->n_derived++;
		return 0;
	}
	return cfs_diff_report_only(report, item, which);
}

static bool wanted(const struct options *o, const struct cfs_tensors_item *item)
{
	return !o->role || strcmp(item->role, o->role) == 0;
}

static int order(const struct cfs_tensors_item *x,
		 const struct cfs_tensors_item *y)
{
	int c = strverscmp(x->name, y->name);

	return c ? c : strcmp(x->role, y->role);
}

static int diff_tensors(const struct side *a, const struct side *b,
			const struct options *o, struct cfs_progress *progress,
			struct cfs_diff_report *report, struct cfs_error *err)
{
	const struct cfs_tensors_item *x = a->tensors.items;
	const struct cfs_tensors_item *y = b->tensors.items;
	size_t left_a = a->tensors.n, left_b = b->tensors.n;
	int r = 0;

	while (r == 0 && (left_a || left_b)) {
		int c = !left_a ? 1 : !left_b ? -1 : order(x, y);

		if (c < 0 && wanted(o, x))
			r = one_sided(b, x, 'A', report);
		else if (c > 0 && wanted(o, y))
			r = one_sided(a, y, 'B', report);
		else if (c == 0 && wanted(o, x))
			r = compare_pair(a, x, b, y, progress, report, err);
		if (c <= 0)
			x++, left_a--;
		if (c >= 0)
			y++, left_b--;
	}
	return r;
}

static int diff_leaves(const struct side *a, const struct side *b,
		       struct cfs_diff_report *report)
{
	const struct cfs_leaves_item *x = a->leaves.items;
	const struct cfs_leaves_item *y = b->leaves.items;
	size_t left_a = a->leaves.n, left_b = b->leaves.n;
	int r = 0;

	while (r == 0 && (left_a || left_b)) {
		int c = !left_a	  ? 1
			: !left_b ? -1
				  : strverscmp(x->path, y->path);

		if (c < 0)
			r = cfs_diff_report_leaf(report, x->path, x->node,
						 NULL);
		else if (c > 0)
			r = cfs_diff_report_leaf(report, y->path, NULL,
						 y->node);
		else
			r = cfs_diff_report_leaf(report, x->path, x->node,
						 y->node);
		if (c <= 0)
			x++, left_a--;
		if (c >= 0)
			y++, left_b--;
	}
	return r;
}

static uint64_t total_bytes(const struct side *a, const struct side *b)
{
	const struct cfs_tensors *sets[] = {&a->tensors, &b->tensors};
	uint64_t sum = 0;
	size_t s, i;

	for (s = 0; s < 2; s++)
		for (i = 0; i < sets[s]->n; i++)
			sum += cfs_tensors_item_bytes(&sets[s]->items[i]);
	return sum;
}

static int diff(const char *path_a, const char *path_b, const struct options *o,
		struct cfs_error *err)
{
	_cleanup_(side_close) struct side a = {.path = path_a};
	_cleanup_(side_close) struct side b = {.path = path_b};
	_cleanup_(cfs_diff_report_free) struct cfs_diff_report report = {0};
	struct cfs_progress progress;
	int r;

	r = open_named(&a, 'A', err);
	if (r == 0)
		r = open_named(&b, 'B', err);
	if (r < 0)
		return r;
	if (!a.step.step != !b.step.step)
		return cfs_fail(err, -EINVAL,
				"%s is a file and %s a step: name two files "
				"or two steps",
				a.step.step ? path_b : path_a,
				a.step.step ? path_a : path_b);
	r = o->role ? check_role(&a, &b, o->role, err) : 0;
	if (r < 0)
		return r;
	r = cfs_diff_report_init(&report, path_a, path_b, o->json);
	if (r < 0)
		return r;
	report.n_skipped = CFS_MAX(a.n_others, b.n_others);
	if (o->role)
		report.n_skipped += CFS_MAX(a.leaves.n, b.leaves.n);
	cfs_progress_init(&progress, total_bytes(&a, &b), o->quiet);
	r = diff_tensors(&a, &b, o, &progress, &report, err);
	cfs_progress_end(&progress);
	if (r == 0 && !o->role)
		r = diff_leaves(&a, &b, &report);
	if (r == 0 && !o->quiet)
		r = cfs_diff_report_print(&report);
	return r < 0 ? r : (report.n_different > 0);
}

static int run(int argc, char **argv)
{
	struct options o = {0};
	struct cfs_error err = {""};
	const struct cfs_say_option options[] = {
		{"role", NULL, cfs_say_take_text, &o.role, NULL},
		{.name = "json", .flag = &o.json},
		{.name = "quiet", .flag = &o.quiet},
		{0},
	};
	int r, status;

	if (!cfs_say_options(&cfs_verb_diff, argc, argv, options, &status))
		return status;
	if (argc - optind != 2)
		return cfs_say_usage(&cfs_verb_diff,
				     "name two steps, views or files");
	r = diff(argv[optind], argv[optind + 1], &o, &err);
	if (r < 0) {
		cfs_say_fail(&cfs_verb_diff, NULL, r, &err);
		return EXIT_TROUBLE;
	}
	status = cfs_say_done(&cfs_verb_diff, CFS_EXIT_OK);
	return status ? EXIT_TROUBLE : r ? EXIT_DIFFERENT : CFS_EXIT_OK;
}

const struct cfs_verb cfs_verb_diff = {
	.name = "diff",
	.summary = "which tensors of two steps, views or files differ",
	.help = "usage: ckptfs diff [--json] [--quiet] [--role ROLE] A B\n"
		"\n"
		"Compares two steps, two views of steps, or two torch files. "
		"Steps are compared\n"
		"by parameter and role (weight, master, exp_avg, …), whatever "
		"their topologies;\n"
		"of a run, the step that `latest` names is taken. Files are "
		"compared by the path\n"
		"of each tensor and value in the saved object. A view is "
		"read back from the\n"
		"bytes it shows. Nothing is executed. What else steps keep "
		"(client state,\n"
		"scheduler, counters) is counted, not compared: compare the "
		"files for that.\n"
		"\n"
		"For every tensor that differs: how many elements, the "
		"largest absolute\n"
		"difference, and the norm of the difference relative to A. "
		"NaN equals NaN.\n"
		"\n"
		"  --json       print JSON\n"
		"  --quiet      print nothing, only exit\n"
		"  --role ROLE  compare tensors of this role only\n"
		"  -h, --help   print this help\n"
		"\n"
		"Exits like diff(1): 0 when equal, 1 when different, 2 for "
		"trouble or bad usage.\n",
	.run = run,
};
