/* Which store a path leads into. */
#include <errno.h>
#include <string.h>

#include "fs/cli/live.h"
#include "fs/cli/store_verb.h"
#include "store/core/store.h"
#include "store/util/error.h"
#include "store/util/storepath.h"

void cfs_store_path_free(struct cfs_store_path *path)
{
	free(path->store);
	free(path->inside);
	*path = (struct cfs_store_path){0};
}

int cfs_store_path_prefix(const char *path, struct cfs_store_path *out)
{
	*out = (struct cfs_store_path){0};
	return cfs_storepath_prefix(path, cfs_store_probe, &out->store,
				    &out->inside);
}

int cfs_store_path_find(const char *path, struct cfs_store_path *out,
			struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *real = NULL;
	bool denied;
	int r;

	r = cfs_store_path_prefix(path, out);
	if (r > 0 || (r < 0 && r != -EACCES))
		return r;
	denied = r < 0; /* somebody's mount, maybe */
	r = cfs_live_translate(path, &real, err);
	if (r < 0)
		return r;
	if (strcmp(real, path) != 0)
		return cfs_store_path_prefix(real, out);
	return denied ? cfs_fail(err, -EACCES, "%s: %s", path, strerror(EACCES))
		      : 0;
}
