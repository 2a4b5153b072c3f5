/* The format's table: universal checkpoints on disk. */
#include "fs/format/universal/read.h"

#include <errno.h>
#include <string.h>

#include "fs/format/deepspeed/read.h"
#include "fs/format/deepspeed/remodel.h"
#include "fs/format/deepspeed/template.h"
#include "store/util/error.h"
#include "store/util/path.h"

/* `zero` is a directory, the rest are model states. */
static bool uc_owns(const char *name)
{
	return !strcmp(name, "zero") ||
	       cfs_ds_name_parse(name).kind != CFS_DS_OTHER;
}

static int uc_probe(struct cfs_source *source, const char *path)
{
	_cleanup_(cfs_ds_list_fini) struct cfs_ds_list list = {0};
	uint32_t n_model, n_zero3, n_optim;
	int r = cfs_ds_list_read(source, path, &list);

	if (r < 0)
		return r == -ENOTDIR ? 0 : r;
	cfs_ds_list_kind(&list, CFS_DS_MODEL, &n_model);
	cfs_ds_list_kind(&list, CFS_DS_MODEL_ZERO3, &n_zero3);
	cfs_ds_list_kind(&list, CFS_DS_OPTIM, &n_optim);
	return list.zero_dir && !n_optim && (n_model || n_zero3);
}

/* The converter writes this file behind all tensors, the model states last. */
static int uc_complete(struct cfs_source *source, const char *path,
		       struct cfs_error *err)
{
	char full[4096];
	struct stat st;
	int r = cfs_path_put(full, sizeof(full), path,
			     "zero/optimizer_state.pt");

	if (!r)
		r = cfs_source_stat_file(source, full, &st);
	if (r == -ENOENT) {
		(void)cfs_fail(err, r, "zero/optimizer_state.pt is missing");
		return 0;
	}
	return r < 0 ? r : 1;
}

const struct cfs_format cfs_format_universal = {
	.name = "universal",
	.probe = uc_probe,
	.owns = uc_owns,
	.read = cfs_uc_read,
	.resolve = cfs_ds_resolve,
	.write = cfs_ds_write,
	.fill = cfs_ds_template_fill,
	.whole = cfs_ds_whole,
	.complete = uc_complete,
	.step_free = cfs_ds_step_free,
};
