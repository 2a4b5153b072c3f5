/*
 * Named views of a run, kept per user outside the source: one JSON file a run,
 *
 *   {"run": "/lustre/run1",
 *    "views": {"prod": "dp32-zero1",
 *              "wide": {"request": "tp2-pp4", "options": {"rules": [...]}}}}
 *
 * replaced by rename, so that a reader (a live mount) needs no lock.
 */
#include "fs/view/internal.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "fs/format/options.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/hash.h"

#define NAME_LEN_MAX 64
#define FILE_MAX     (1u << 20)

static void json_deletep(cJSON **json)
{
	cJSON_Delete(*json);
}

/* ---- where ---- */

static int cache_dir(struct cfs_buf *out)
{
	const char *dir = getenv("CKPTFS_CACHE_DIR");
	struct passwd pw, *found = NULL;
	char scratch[4096];

	if (dir && *dir) {
		cfs_buf_put_str(out, dir);
		return out->failed ? -ENOMEM : 0;
	}
	dir = getenv("XDG_CACHE_HOME");
	if (dir && *dir) {
		cfs_buf_printf(out, "%s/ckptfs", dir);
		return out->failed ? -ENOMEM : 0;
	}
	dir = getenv("HOME");
	/* A daemon started by mount(8) at boot has no HOME. */
	if ((!dir || !*dir) &&
	    !getpwuid_r(getuid(), &pw, scratch, sizeof(scratch), &found) &&
	    found)
		dir = pw.pw_dir;
	if (!dir || !*dir)
		return -ENOENT;
	cfs_buf_printf(out, "%s/.cache/ckptfs", dir);
	return out->failed ? -ENOMEM : 0;
}

int cfs_registry_fail(struct cfs_error *err, int r)
{
	_cleanup_(cfs_buf_free) struct cfs_buf dir = CFS_BUF_INIT;

	if (cache_dir(&dir) < 0)
		return cfs_fail(err, r,
				"the registry of views: no home directory; "
				"set CKPTFS_CACHE_DIR");
	return cfs_fail(err, r,
			"the registry of views in %s: %s (CKPTFS_CACHE_DIR "
			"names another directory)",
			cfs_buf_str(&dir), strerror(-r));
}

static void run_file_name(const char *run_path, char name[48])
{
	uint64_t hash = cfs_hash64(run_path, strlen(run_path), 0);

	snprintf(name, 48, "views-%016llx.json", (unsigned long long)hash);
}

static int make_parents(char *path)
{
	char *p;

	for (p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST) {
			*p = '/';
			return -errno;
		}
		*p = '/';
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* The registry's directory as a descriptor; made when @create. */
static int open_dir(bool create, int *fd_out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf path = CFS_BUF_INIT;
	_cleanup_(cfs_freep) char *copy = NULL;
	int fd, r;

	r = cache_dir(&path);
	if (r < 0)
		return r;
	if (create) {
		copy = strdup(cfs_buf_str(&path));
		if (!copy)
			return -ENOMEM;
		r = make_parents(copy);
		if (r < 0)
			return r;
	}
	fd = open(cfs_buf_str(&path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*fd_out = fd;
	return 0;
}

/* ---- reading and writing one run's file ---- */

static int read_all(int fd, struct cfs_buf *out)
{
	char chunk[4096];
	ssize_t n;

	for (;;) {
		n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return out->failed ? -ENOMEM : 0;
		cfs_buf_put(out, chunk, (size_t)n);
		if (out->len > FILE_MAX)
			return -EFBIG;
	}
}

/* The whole document, checked to be @run_path's; -ENOENT when there is none. */
static int load(int dir, const char *run_path, cJSON **out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	_cleanup_(json_deletep) cJSON *doc = NULL;
	_cleanup_(cfs_closep) int fd = -1;
	const cJSON *run;
	char name[48];
	int r;

	run_file_name(run_path, name);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = read_all(fd, &text);
	if (r < 0)
		return r;
	doc = cJSON_ParseWithLength((const char *)text.data, text.len);
	run = cJSON_GetObjectItemCaseSensitive(doc, "run");
	if (!cJSON_IsString(run) ||
	    !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(doc, "views")))
		return -EBADMSG;
	if (strcmp(run->valuestring, run_path))
		return -ENOENT; /* another run with the same hash */
	*out = cfs_steal(doc);
	return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
	ssize_t n;

	while (len) {
		n = write(fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int save(int dir, const char *run_path, const cJSON *doc)
{
	_cleanup_(cfs_freep) char *text = cJSON_PrintUnformatted(doc);
	_cleanup_(cfs_closep) int fd = -1;
	char name[48], temp[64];
	int r;

	if (!text)
		return -ENOMEM;
	if (strlen(text) > FILE_MAX) /* load() would refuse it */
		return -EFBIG;
	run_file_name(run_path, name);
	snprintf(temp, sizeof(temp), "%s.new", name);
	fd = openat(dir, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, strlen(text));
	if (!r && fsync(fd) < 0)
		r = -errno;
	if (!r && renameat(dir, temp, dir, name) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(dir, temp, 0);
	return r;
}

static int new_doc(const char *run_path, cJSON **out)
{
	_cleanup_(json_deletep) cJSON *doc = cJSON_CreateObject();

	if (!cJSON_AddStringToObject(doc, "run", run_path) ||
	    !cJSON_AddObjectToObject(doc, "views"))
		return -ENOMEM;
	*out = cfs_steal(doc);
	return 0;
}

/* ---- names ---- */

static int check_name(const char *name, struct cfs_error *err)
{
	struct cfs_request unused;
	size_t len = strlen(name);

	if (!len || len > NAME_LEN_MAX ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789._+-") != len)
		return cfs_fail(err, -EINVAL,
				"'%.80s': a view's name is 1 to %d letters, "
				"digits, or ._+-",
				name, NAME_LEN_MAX);
	if (!cfs_view_name_parse(name, &unused, NULL))
		return cfs_fail(err, -EINVAL,
				"'%s' is already a view by itself", name);
	return 0;
}

/* ---- the calls ---- */

int cfs_registry_request(const struct cfs_registry_entry *entry,
			 struct cfs_request *out, struct cfs_error *err)
{
	/* a template says it all */
	if (entry->options && !entry->request[0]) {
		*out = (struct cfs_request)CFS_REQUEST_INIT;
		return 0;
	}
	return cfs_view_name_parse(entry->request, out, err);
}

static int check_entry(const struct cfs_registry_entry *entry,
		       struct cfs_error *err)
{
	_cleanup_(cfs_options_fini) struct cfs_options options = {.old = -1};
	struct cfs_request parsed;
	int r;

	r = check_name(entry->name, err);
	if (!r)
		r = cfs_registry_request(entry, &parsed, err);
	if (!r && entry->options)
		r = cfs_options_parse(entry->options, &options, err);
	return r;
}

static cJSON *entry_to_json(const struct cfs_registry_entry *entry)
{
	cJSON *made = cJSON_CreateObject();

	if (!entry->options) {
		cJSON_Delete(made);
		return cJSON_CreateString(entry->request);
	}
	cJSON_AddStringToObject(made, "request", entry->request);
	cJSON_AddItemToObject(made, "options", cJSON_Parse(entry->options));
	if (cJSON_GetArraySize(made) == 2)
		return made;
	cJSON_Delete(made);
	return NULL;
}

/* -ENOENT: it is none. */
static int entry_from_json(const cJSON *item, struct cfs_registry_entry *out)
{
	const cJSON *options =
		cJSON_GetObjectItemCaseSensitive(item, "options");
	const char *request = cJSON_GetStringValue(
		cJSON_IsObject(item)
			? cJSON_GetObjectItemCaseSensitive(item, "request")
			: item);
	struct cfs_registry_entry made = {NULL, NULL, NULL};

	if (!request)
		return -ENOENT;
	made.name = strdup(item->string);
	made.request = strdup(request);
	made.options = options ? cJSON_PrintUnformatted(options) : NULL;
	if (!made.name || !made.request || (options && !made.options)) {
		cfs_registry_entry_fini(&made);
		return -ENOMEM;
	}
	*out = made;
	return 0;
}

void cfs_registry_entry_fini(struct cfs_registry_entry *entry)
{
	free(entry->name);
	free(entry->request);
	free(entry->options);
	*entry = (struct cfs_registry_entry){NULL, NULL, NULL};
}

int cfs_registry_add(const char *run_path,
		     const struct cfs_registry_entry *entry,
		     struct cfs_error *err)
{
	_cleanup_(json_deletep) cJSON *doc = NULL;
	_cleanup_(cfs_closep) int dir = -1;
	cJSON *views;
	int r;

	r = check_entry(entry, err);
	if (r < 0)
		return r;
	r = open_dir(true, &dir);
	if (r < 0)
		return cfs_registry_fail(err, r);
	if (flock(dir, LOCK_EX) < 0)
		return cfs_fail(err, -errno, "cannot lock the registry");
	r = load(dir, run_path, &doc);
	if (r == -ENOENT)
		r = new_doc(run_path, &doc);
	if (r < 0)
		return cfs_registry_fail(err, r);
	views = cJSON_GetObjectItemCaseSensitive(doc, "views");
	cJSON_DeleteItemFromObjectCaseSensitive(views, entry->name);
	if (!cJSON_AddItemToObject(views, entry->name, entry_to_json(entry)))
		return cfs_fail(err, -ENOMEM, "out of memory");
	r = save(dir, run_path, doc);
	if (r == -EFBIG)
		return cfs_fail(err, r,
				"the run's views with all their rules would "
				"take more than %u KiB; remove some (view rm)",
				FILE_MAX >> 10);
	return r < 0 ? cfs_registry_fail(err, r) : 0;
}

int cfs_registry_remove(const char *run_path, const char *name,
			struct cfs_error *err)
{
	_cleanup_(json_deletep) cJSON *doc = NULL;
	_cleanup_(cfs_closep) int dir = -1;
	cJSON *views;
	int r;

	r = open_dir(false, &dir);
	if (!r && flock(dir, LOCK_EX) < 0)
		r = -errno;
	if (!r)
		r = load(dir, run_path, &doc);
	if (r < 0 && r != -ENOENT)
		return cfs_registry_fail(err, r);
	views = cJSON_GetObjectItemCaseSensitive(doc, "views");
	if (!cJSON_GetObjectItemCaseSensitive(views, name))
		return cfs_fail(err, -ENOENT, "%s has no view named '%s'",
				run_path, name);
	cJSON_DeleteItemFromObjectCaseSensitive(views, name);
	r = save(dir, run_path, doc);
	return r < 0 ? cfs_registry_fail(err, r) : 0;
}

int cfs_registry_find(const char *run_path, const char *name,
		      struct cfs_registry_entry *out)
{
	_cleanup_(json_deletep) cJSON *doc = NULL;
	_cleanup_(cfs_closep) int dir = -1;
	const cJSON *views, *item;
	int r;

	r = open_dir(false, &dir);
	if (!r)
		r = load(dir, run_path, &doc);
	if (r < 0)
		return r;
	views = cJSON_GetObjectItemCaseSensitive(doc, "views");
	item = cJSON_GetObjectItemCaseSensitive(views, name);
	return item ? entry_from_json(item, out) : -ENOENT;
}

int cfs_registry_list(const char *run_path,
		      int (*fn)(void *arg,
				const struct cfs_registry_entry *entry),
		      void *arg, struct cfs_error *err)
{
	_cleanup_(json_deletep) cJSON *doc = NULL;
	_cleanup_(cfs_closep) int dir = -1;
	const cJSON *views, *item;
	int r;

	r = open_dir(false, &dir);
	if (!r)
		r = load(dir, run_path, &doc);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return cfs_registry_fail(err, r);
	views = cJSON_GetObjectItemCaseSensitive(doc, "views");
	cJSON_ArrayForEach(item, views)
	{
		_cleanup_(cfs_registry_entry_fini) struct cfs_registry_entry
			entry = {NULL, NULL, NULL};

		r = entry_from_json(item, &entry);
		if (r == -ENOENT)
			continue;
		if (!r)
			r = fn(arg, &entry);
		if (r)
			return r;
	}
	return 0;
}
