/* The note an export leaves about itself. */
#include "fs/cli/export_marker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/export_plan.h"
#include "fs/cli/json.h"
#include "store/util/buf.h"
#include "store/util/error.h"

#define FILE_MAX (16u << 20)
#define TEMP	 CFS_EXPORT_MARKER ".new"

static int read_all(int fd, struct cfs_buf *out)
{
	char block[8192];
	ssize_t n;

	while ((n = read(fd, block, sizeof(block))) > 0) {
		cfs_buf_put(out, block, (size_t)n);
		if (out->len > FILE_MAX)
			return -EFBIG;
	}
	if (n < 0)
		return -errno;
	return out->failed ? -ENOMEM : 0;
}

int cfs_export_marker_read(int dir, cJSON **out, struct cfs_error *err)
{
	_cleanup_(cfs_closep) int fd = -1;
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	_cleanup_(cfs_json_freep) cJSON *json = NULL;
	int r;

	fd = openat(dir, CFS_EXPORT_MARKER, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	r = read_all(fd, &text);
	if (r < 0)
		return cfs_fail_prefix(err, r, CFS_EXPORT_MARKER);
	json = cJSON_Parse(cfs_buf_str(&text));
	if (!cJSON_GetStringValue(cJSON_GetObjectItem(json, "view")) ||
	    !cJSON_IsObject(cJSON_GetObjectItem(json, "steps")))
		return cfs_fail(err, -EBADMSG,
				CFS_EXPORT_MARKER
				" is damaged; export to an empty directory");
	*out = cfs_steal(json);
	return 0;
}

static const char *identity_of(const cJSON *marker, const char *step)
{
	const cJSON *steps = cJSON_GetObjectItem(marker, "steps");

	return cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(steps, step));
}

bool cfs_export_marker_has(const cJSON *marker, const char *step)
{
	return identity_of(marker, step) != NULL;
}

int cfs_export_marker_check(const cJSON *marker,
			    const struct cfs_export_plan *plan,
			    struct cfs_error *err)
{
	const char *view =
		cJSON_GetStringValue(cJSON_GetObjectItem(marker, "view"));
	const char *version = cJSON_GetStringValue(
		cJSON_GetObjectItem(marker, "ckptfs_version"));
	size_t i;

	if (strcmp(view, plan->view) != 0)
		return cfs_fail(err, -EEXIST,
				"holds an export of %s, not of %s; choose "
				"another directory",
				view, plan->view);
	if (!version || strcmp(version, CFS_VERSION) != 0)
		return cfs_fail(err, -EEXIST,
				"was begun by ckptfs %s; remove it and start "
				"again",
				version ? version : "?");
	for (i = 0; i < plan->n_steps; i++) {
		const char *id = identity_of(marker, plan->steps[i].name);

		if (id && strcmp(id, plan->steps[i].identity) != 0)
			return cfs_fail(err, -EEXIST,
					"the source of %s has changed since "
					"the export began; remove what was "
					"exported and start again",
					plan->steps[i].name[0]
						? plan->steps[i].name
						: plan->view);
	}
	return 0;
}

static cJSON *make(const cJSON *old, const struct cfs_export_plan *plan,
		   bool complete)
{
	cJSON *json = cJSON_CreateObject(), *steps;
	const cJSON *item;
	size_t i;

	cfs_json_str(json, "view", plan->view);
	cfs_json_str(json, "ckptfs_version", CFS_VERSION);
	cfs_json_bool(json, "complete", complete);
	steps = cfs_json_object(json, "steps");
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(old, "steps"))
		cfs_json_str(steps, item->string, cJSON_GetStringValue(item));
	for (i = 0; i < plan->n_steps; i++)
		if (!cfs_export_marker_has(old, plan->steps[i].name))
			cfs_json_str(steps, plan->steps[i].name,
				     plan->steps[i].identity);
	return json;
}

static int write_all(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int cfs_export_marker_write(int dir, const cJSON *old,
			    const struct cfs_export_plan *plan, bool complete,
			    struct cfs_error *err)
{
	_cleanup_(cfs_json_freep) cJSON *json = make(old, plan, complete);
	_cleanup_(cfs_closep) int fd = -1;
	char *text = cJSON_Print(json);
	int r;

	if (!text)
		return -ENOMEM;
	(void)unlinkat(dir, TEMP, 0);
	fd = openat(dir, TEMP, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	r = fd < 0 ? -errno : write_all(fd, text);
	cJSON_free(text);
	if (r == 0 && renameat(dir, TEMP, dir, CFS_EXPORT_MARKER) < 0)
		r = -errno;
	if (r == 0 && fsync(dir) < 0)
		r = -errno;
	return r < 0 ? cfs_fail_prefix(err, r, CFS_EXPORT_MARKER) : 0;
}
