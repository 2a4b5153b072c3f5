/* ckptfs show: one step, or one torch file, on a page. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/cli/latest.h"
#include "fs/cli/say.h"
#include "fs/cli/show.h"
#include "fs/cli/target.h"
#include "fs/cli/target_file.h"
#include "fs/view/view.h"

/* A file is taken over as such; 1 when it was. */
static int show_file(const char *path, const struct cfs_show_options *options,
		     struct cfs_error *err)
{
	_cleanup_(cfs_target_file_close) struct cfs_target_file tf = {0};
	struct cfs_target target = {0};
	struct stat st;
	int r;

	r = cfs_target_open(path, &target, err);
	if (r < 0)
		return r;
	r = cfs_vnode_stat(target.node, &st, err);
	if (r < 0 || S_ISDIR(st.st_mode)) {
		cfs_target_close(&target);
		return r;
	}
	r = cfs_target_file_take(&target, &tf, err);
	if (r == 0)
		r = cfs_show_file(path, &tf, options);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", path) : 1;
}

static int show(const char *path, const struct cfs_show_options *options,
		struct cfs_error *err)
{
	_cleanup_(cfs_target_step_close) struct cfs_target_step ts = {0};
	int r;

	r = show_file(path, options, err);
	if (r)
		return r < 0 ? r : 0;
	r = cfs_target_step_open(path, &ts, err);
	if (r < 0)
		return r;
	cfs_latest_warn(&cfs_verb_show, &ts.target);
	return cfs_show_step(path, &ts, options);
}

static int run(int argc, char **argv)
{
	struct cfs_show_options o = {0};
	struct cfs_error err = {""};
	const struct cfs_say_option options[] = {
		{.name = "json", .flag = &o.json},
		{.name = "params", .flag = &o.params},
		{.name = "all", .flag = &o.all},
		{0},
	};
	int r, status;

	if (!cfs_say_options(&cfs_verb_show, argc, argv, options, &status))
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_show, "name one step or file");
	r = show(argv[optind], &o, &err);
	if (r < 0)
		return cfs_say_fail(&cfs_verb_show, argv[optind], r, &err);
	return cfs_say_done(&cfs_verb_show, CFS_EXIT_OK);
}

const struct cfs_verb cfs_verb_show = {
	.name = "show",
	.summary = "one step (topology, parameters, …) or one torch file",
	.help = "usage: ckptfs show [--params] [--json] STEP\n"
		"       ckptfs show [--all] [--json] FILE\n"
		"\n"
		"Of a step (of a run: the one `latest` names; a view is read "
		"back from what it\n"
		"shows): topology, ZeRO stage, optimizer class, parameters, "
		"groups with their\n"
		"hyper-parameters, step count, batch arithmetic (micro x "
		"accumulation x dp),\n"
		"the writer's version, and files.\n"
		"\n"
		"Of any file of torch.save: the archive's records, the "
		"tensors with their place\n"
		"in the saved object, type, shape and storage, and all other "
		"values. Nothing in\n"
		"the file is executed or imported.\n"
		"\n"
		"  --params    list every parameter of the step\n"
		"  --all       print every line of a file, however many\n"
		"  --json      print JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be read, 2 for bad usage.\n",
	.run = run,
};
