/* ckptfs fsck --salvage: what it says. */
#include "fs/cli/fsck_salvage.h"

#include <errno.h>
#include <stdio.h>

#include "fs/cli/json.h"
#include "fs/daemon/open.h"

static void on_line(void *arg, const char *text)
{
	cfs_json_str(arg, NULL, text);
}

static int print(const struct cfs_store_verb *call, const char *store,
		 bool write, const cJSON *result, bool needed)
{
	cfs_store_verb_findings(result);
	if (!needed)
		printf("%s opens as it is: there is nothing to salvage\n",
		       store);
	else if (write)
		printf("%s opens again; no pack was removed. `ckptfs scrub` "
		       "tells whose bytes are damaged\n",
		       store);
	else
		printf("nothing was changed; to do it: ckptfs fsck --salvage "
		       "--yes %s\n",
		       store);
	return cfs_say_done(
		call->verb,
		needed && (!write || cfs_store_verb_u64(result, "problems"))
			? CFS_EXIT_FAILED
			: CFS_EXIT_OK);
}

int cfs_fsck_salvage(const struct cfs_store_verb *call, bool write,
		     bool as_json)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};
	_cleanup_(cfs_json_freep) cJSON *result = cJSON_CreateObject();
	struct cfs_verb_reply reply = {.line = on_line};
	struct cfs_error err = {""};
	bool needed;
	int r = cfs_store_path_find(call->object, &path, &err);

	if (!r)
		r = cfs_fail(&err, -EINVAL, "%s: not in a store", call->object);
	if (r < 0)
		return cfs_say_fail(call->verb, call->object, r, &err);
	reply.arg = cfs_json_array(result, "findings");
	r = cfs_opened_salvage(path.store, write, &reply, result, &err);
	if (r < 0)
		return cfs_say_fail(call->verb, call->object, r, &err);
	needed = r == 0;
	if (as_json)
		return cfs_store_verb_json(
			call->verb, result,
			needed && (!write ||
				   cfs_store_verb_u64(result, "problems"))
				? CFS_EXIT_FAILED
				: CFS_EXIT_OK);
	return print(call, path.store, write, result, needed);
}
