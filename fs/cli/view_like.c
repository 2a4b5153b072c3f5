#include "fs/cli/view_like.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/cli/live.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/target.h"
#include "fs/format/format.h"
#include "fs/view/view.h"
#include "store/util/error.h"
#include "store/util/path.h"

static bool is_dir(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return !strncmp(path, dir, n) && (!path[n] || path[n] == '/');
}

/* A step of a store is found in the run's own store, or where it is mounted. */
static int check_place(const char *named, const char *seen, const char *run,
		       char **out, struct cfs_error *err)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};
	int r = cfs_store_path_prefix(named, &path);

	if (r < 0)
		return r;
	if (!r || is_below(run, path.store)) {
		*out = strdup(named);
	} else if (is_dir(seen)) {
		*out = strdup(seen);
	} else {
		return cfs_fail(err, -ENOTSUP,
				"--like %s: lies in another store; mount that, "
				"and name the step there",
				named);
	}
	return *out ? 0 : -ENOMEM;
}

int cfs_view_like(const char *dir, const char *run, char **path_out,
		  uint64_t *id_out, struct cfs_error *err)
{
	_cleanup_(cfs_target_step_close) struct cfs_target_step ts = {0};
	_cleanup_(cfs_freep) char *plain = NULL, *seen = NULL, *named = NULL;
	struct cfs_error why = {""};
	int r;

	r = cfs_live_translate_plain(dir, &plain, err);
	if (r < 0)
		return r;
	r = cfs_target_step_open(plain, &ts, &why);
	if (r < 0)
		return cfs_fail(err, r, "--like %s: %s", dir,
				why.text[0] ? why.text : strerror(-r));
	if (cfs_vnode_kind(ts.target.node) != CFS_VNODE_SOURCE)
		return cfs_fail(err, -EINVAL,
				"--like %s: a view; a template is a step as it "
				"was saved",
				dir);
	seen = cfs_path_join(ts.target.root, ts.rel);
	if (!seen)
		return -ENOMEM;
	r = cfs_live_translate(seen, &named, err);
	if (!r)
		r = check_place(named, seen, run, path_out, err);
	if (!r)
		*id_out = cfs_step_fingerprint(ts.step);
	return r;
}
