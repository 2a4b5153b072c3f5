/* pin: keeps a step from being pruned, lets it go again, or lists pins. */
#include <errno.h>
#include <string.h>

#include "fs/daemon/pins.h"
#include "fs/daemon/steps.h"
#include "fs/daemon/verb.h"
#include "fs/view/view.h"
#include "store/core/store.h"
#include "store/ns/ns.h"

static int add_pin(void *arg, const char *path)
{
	cJSON *holder = cJSON_CreateObject();

	cfs_verb_put_str(holder, "path", path);
	cJSON_AddItemToArray(
		arg, cJSON_DetachItemFromObjectCaseSensitive(holder, "path"));
	cJSON_Delete(holder);
	return 0;
}

/* Pins whose step was removed, or has another name now. */
static int put_gone(struct cfs_ns *ns, const cJSON *pins, cJSON *gone)
{
	const cJSON *pin;

	cJSON_ArrayForEach(pin, pins)
	{
		struct stat st;
		int r = cfs_ns_walk(ns, pin->valuestring, &st);

		if (r == -ENOENT || r == -ENOTDIR)
			r = add_pin(gone, pin->valuestring);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Whole or not: a pin on anything else would keep nothing. */
static int check_step(struct cfs_verb_context *context, const char *path,
		      struct cfs_error *err)
{
	_cleanup_(cfs_steps_free) struct cfs_steps steps = {0};
	_cleanup_(cfs_freep) char *run = strdup(path);
	char *slash = run ? strrchr(run, '/') : NULL;
	const char *name = slash ? slash + 1 : path;
	size_t i;
	int r;

	if (!run)
		return -ENOMEM;
	if (slash)
		*slash = '\0';
	r = cfs_steps_list(cfs_views_source(context->views), slash ? run : "",
			   &steps);
	for (i = 0; !r && i < steps.n; i++)
		if (!strcmp(steps.list[i].name, name))
			return 0;
	return r < 0 ? r
		     : cfs_fail(err, -EINVAL,
				"%s is no step; name a step of a run", path);
}

static int set_pin(struct cfs_verb_context *context, const char *path,
		   bool pinned, struct cfs_error *err)
{
	struct cfs_store *store = cfs_ns_store(context->ns);
	struct stat st;
	int r;

	r = cfs_verb_may_change(context, pinned ? "pin" : "unpin", err);
	if (r < 0)
		return r;
	r = cfs_ns_walk(context->ns, path, &st);
	if (!r && !S_ISDIR(st.st_mode))
		r = -ENOTDIR;
	if (!r && pinned)
		r = check_step(context, path, err);
	if (r < 0 && pinned)
		return err->text[0] ? r : cfs_fail_prefix(err, r, "%s", path);
	r = cfs_pins_has(store, path);
	if (!r && !pinned)
		return cfs_fail(err, -ENOENT, "%s is not pinned", path);
	if (r >= 0)
		r = cfs_pins_set(store, path, pinned);
	if (r == -ENAMETOOLONG)
		return cfs_fail(err, r, "%s: too long to be pinned", path);
	return r < 0 ? r : cfs_store_commit(store);
}

/* path "": list; unpin: let go. */
static int pin(struct cfs_verb_context *context, const cJSON *arguments,
	       const struct cfs_verb_reply *reply, cJSON *result,
	       struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = NULL;
	cJSON *pins;
	int r;

	(void)reply;
	r = cfs_verb_path(arguments, "path", &path, err);
	if (r < 0)
		return r;
	if (path[0])
		r = set_pin(context, path, !cfs_verb_flag(arguments, "unpin"),
			    err);
	if (r < 0)
		return r;
	pins = cJSON_AddArrayToObject(result, "pins");
	r = cfs_pins_each(cfs_ns_store(context->ns), add_pin, pins);
	return r < 0 ? r
		     : put_gone(context->ns, pins,
				cJSON_AddArrayToObject(result, "gone"));
}

const struct cfs_daemon_verb cfs_daemon_verb_pin = {"pin", pin, false, false};
