/* import: copies directories and files into the store. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/daemon/import.h"
#include "fs/daemon/nstree.h"
#include "store/ns/ns.h"

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A source: {"path": absolute, "name": last component, "contents": bool}. */
static int scan_source(struct cfs_import *import, const cJSON *source,
		       struct cfs_error *err)
{
	const char *path = cfs_verb_str(source, "path");
	const char *name = cfs_verb_str(source, "name");
	bool contents = cfs_verb_flag(source, "contents");

	if (!path || path[0] != '/' ||
	    (!contents && (!name || !name[0] || strchr(name, '/') ||
			   !strcmp(name, ".") || !strcmp(name, ".."))))
		return cfs_fail(err, -EINVAL, "a source without a name");
	return cfs_import_scan(import, path, name ? name : "", contents, err);
}

static int scan_sources(struct cfs_import *import, const cJSON *arguments,
			struct cfs_error *err)
{
	const cJSON *sources =
		cJSON_GetObjectItemCaseSensitive(arguments, "sources");
	const cJSON *source;
	int r = 0;

	cJSON_ArrayForEach(source, sources)
	{
		r = scan_source(import, source, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Without merge nothing that comes may be there yet. */
static int check_names(const struct cfs_import *import, const char *path,
		       struct cfs_error *err)
{
	struct cfs_ns *ns = import->context->ns;
	size_t i;

	for (i = 0; !import->merge && i < import->n; i++) {
		const struct cfs_import_item *item = &import->items[i];
		struct stat st;
		int r;

		if (!item->path)
			continue;
		r = cfs_ns_lookup(ns, import->dest, item->name, &st);
		if (r == -ENOENT)
			continue;
		if (r < 0)
			return r;
		cfs_ns_forget(ns, st.st_ino, 1);
		return cfs_fail(err, -EEXIST,
				"%s%s%s is there already (--merge goes on "
				"with an import, or adds to it)",
				path, path[0] ? "/" : "", item->name);
	}
	return 0;
}

static int import_all(struct cfs_import *import, const char *path,
		      const cJSON *arguments, struct cfs_error *err)
{
	const struct cfs_verb_caller *caller = import->context->caller;
	struct cfs_ns_cred cred = {caller->uid, caller->gid};
	int r;

	r = scan_sources(import, arguments, err);
	if (!r)
		r = cfs_nstree_mkdirs(import->context->ns, &cred, path,
				      &import->dest);
	if (!r)
		r = check_names(import, path, err);
	return r < 0 ? r : cfs_import_copy(import, err);
}

static int run(struct cfs_verb_context *context, const cJSON *arguments,
	       const struct cfs_verb_reply *reply, cJSON *result,
	       struct cfs_error *err)
{
	_cleanup_(cfs_import_fini) struct cfs_import import = {
		.context = context,
		.reply = reply,
		.merge = cfs_verb_flag(arguments, "merge"),
		.compare = cfs_verb_flag(arguments, "compare"),
		.owners = context->caller->uid == 0,
		/* a daemon of root reads no more than who asks it may */
		.as_caller = context->caller->remote && geteuid() == 0 &&
			     context->caller->uid != 0,
	};
	_cleanup_(cfs_freep) char *path = NULL;
	double began = now();
	int r;

	r = cfs_verb_path(arguments, "path", &path, err);
	if (!r)
		r = import_all(&import, path, arguments, err);
	if (r < 0)
		return r;
	cfs_verb_put_u64(result, "files", import.files);
	cfs_verb_put_u64(result, "bytes", import.bytes);
	cfs_verb_put_u64(result, "files_kept", import.files_kept);
	cfs_verb_put_u64(result, "bytes_kept", import.bytes_kept);
	cJSON_AddNumberToObject(result, "seconds", now() - began);
	return 0;
}

const struct cfs_daemon_verb cfs_daemon_verb_import = {"import", run, false,
						       true};
