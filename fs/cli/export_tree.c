/* Plans the export of what is no step: everything there is, as it is. */
#include "fs/cli/export_tree.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/export_marker.h"
#include "fs/cli/files.h"
#include "fs/cli/target.h"
#include "fs/daemon/nstree.h"
#include "fs/view/view.h"
#include "store/util/digest.h"
#include "store/util/error.h"

#define POINTER	   "latest"
#define NOT_COPIED "it is no file, link or directory"

/* All that tells whether it is still the same. */
static void add_to_sum(struct cfs_digester *sum,
		       const struct cfs_files_entry *e)
{
	const int64_t facts[] = {(int64_t)e->st.st_mode, (int64_t)e->st.st_size,
				 (int64_t)e->st.st_mtim.tv_sec,
				 (int64_t)e->st.st_mtim.tv_nsec};

	cfs_digester_add(sum, e->path, strlen(e->path) + 1);
	/* of a directory the time is that of names, which are all here */
	cfs_digester_add(sum, facts,
			 S_ISDIR(e->st.st_mode) ? sizeof(facts[0])
						: sizeof(facts));
}

static int identify(const struct cfs_files *files, char **out)
{
	struct cfs_digester *sum = cfs_digester_new();
	char hex[2 * CFS_DIGEST_BYTES + 1];
	struct cfs_digest digest;
	size_t i;

	if (!sum)
		return -ENOMEM;
	for (i = 0; i < files->n; i++)
		add_to_sum(sum, &files->entries[i]);
	cfs_digester_end(sum, &digest);
	cfs_digester_free(sum);
	if (asprintf(out, "tree %.32s", cfs_digest_hex(&digest, hex)) < 0)
		return *out = NULL, -ENOMEM;
	return 0;
}

/* The note of an earlier export is none of this one; what is on its way into
 * a store or out of it is nobody's. */
static bool is_ours(const struct cfs_target *t, const char *path)
{
	size_t len = strlen(CFS_NSTREE_TRASH);

	if (!strcmp(path, CFS_EXPORT_MARKER))
		return true;
	return !t->rel[0] && !strncmp(path, CFS_NSTREE_TRASH, len) &&
	       (!path[len] || path[len] == '/');
}

static bool is_copied(mode_t mode)
{
	return S_ISREG(mode) || S_ISLNK(mode) || S_ISDIR(mode);
}

static bool is_pointer(const char *path)
{
	const char *slash = strrchr(path, '/');

	return !strcmp(slash ? slash + 1 : path, POINTER);
}

static int add_entries(const struct cfs_target *t, struct cfs_files *files,
		       void (*skipped)(const char *name, const char *why),
		       struct cfs_export_plan *plan)
{
	size_t i;
	int r = 0;

	for (i = 0; !r && i < files->n; i++) {
		struct cfs_files_entry *e = &files->entries[i];

		if (is_ours(t, e->path))
			continue;
		if (!is_copied(e->st.st_mode)) {
			skipped(e->path, NOT_COPIED);
			continue;
		}
		r = cfs_export_plan_add(plan, "", plan->n_steps - 1, e);
		if (!r && S_ISREG(e->st.st_mode) && is_pointer(e->path))
			plan->items[plan->n_items - 1].pointer = true;
	}
	return r;
}

/* One file is a list of one. */
static int list_one(struct cfs_target *t, const struct stat *st,
		    struct cfs_files *files)
{
	const char *slash = strrchr(t->rel, '/');

	files->entries = calloc(1, sizeof(*files->entries));
	if (!files->entries)
		return -ENOMEM;
	files->n = files->cap = 1;
	files->entries[0].st = *st;
	files->entries[0].node = cfs_vnode_ref(t->node);
	files->entries[0].path = strdup(slash ? slash + 1 : t->rel);
	return files->entries[0].path ? 0 : -ENOMEM;
}

int cfs_export_plan_tree(struct cfs_target *t,
			 void (*skipped)(const char *name, const char *why),
			 struct cfs_export_plan *plan, struct cfs_error *err)
{
	_cleanup_(cfs_files_free) struct cfs_files files = {0};
	struct cfs_export_step *step;
	struct stat st;
	bool is_dir;
	int r;

	r = cfs_vnode_stat(t->node, &st, err);
	if (r < 0)
		return r;
	if (!is_copied(st.st_mode))
		return cfs_fail(err, -EINVAL, NOT_COPIED);
	is_dir = S_ISDIR(st.st_mode);
	r = is_dir ? cfs_files_list(t->node, true, &files, err)
		   : list_one(t, &st, &files);
	if (r < 0)
		return r;
	/* one file has its name to itself, a tree the directory */
	step = cfs_export_plan_begin(plan, is_dir ? "" : files.entries[0].path);
	r = step ? identify(&files, &step->identity) : -ENOMEM;
	return r < 0 ? r : add_entries(t, &files, skipped, plan);
}
