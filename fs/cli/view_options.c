/* Options of view add to the text that the registry keeps. */
#include "fs/cli/view_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/format/options.h"
#include "store/util/error.h"

static void fclosep(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

/* "0,4,9" */
static int add_boundaries(cJSON *doc, const char *text, struct cfs_error *err)
{
	cJSON *array = cJSON_AddArrayToObject(doc, "boundaries");
	const char *s = text;
	char *end;

	for (;;) {
		unsigned long v;

		errno = 0;
		v = strtoul(s, &end, 10);
		if (end == s || *s < '0' || *s > '9' || errno ||
		    v > UINT32_MAX || (*end && *end != ','))
			return cfs_fail(err, -EINVAL,
					"--boundaries %.80s: layers joined by "
					"',', as in 0,4,9",
					text);
		if (!cJSON_AddItemToArray(array, cJSON_CreateNumber((double)v)))
			return -ENOMEM;
		if (!*end)
			return 0;
		s = end + 1;
	}
}

static int add_rules(cJSON *doc, const char *path, struct cfs_error *err)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "re");
	_cleanup_(cfs_freep) char *text = malloc(CFS_OPTIONS_TEXT_MAX + 1);
	cJSON *rules = NULL;
	size_t n;
	int r;

	if (!file)
		return cfs_fail(err, -errno, "--rules %s: %s", path,
				strerror(errno));
	if (!text)
		return -ENOMEM;
	n = fread(text, 1, CFS_OPTIONS_TEXT_MAX + 1, file);
	if (ferror(file))
		return cfs_fail(err, -EIO, "--rules %s: cannot be read", path);
	if (n > CFS_OPTIONS_TEXT_MAX)
		return cfs_fail(err, -E2BIG, "--rules %s: more than %u bytes",
				path, CFS_OPTIONS_TEXT_MAX);
	r = cfs_options_read_rules(text, n, &rules, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "--rules %s", path);
	return cJSON_AddItemToObject(doc, "rules", rules) ? 0 : -ENOMEM;
}

static int add_text(cJSON *doc, const char *key, const char *text)
{
	return !text || cJSON_AddStringToObject(doc, key, text) ? 0 : -ENOMEM;
}

static int add_like(cJSON *doc, const struct cfs_view_options *given)
{
	char id[17];

	(void)snprintf(id, sizeof(id), "%016llx",
		       (unsigned long long)given->like_id);
	if (!cJSON_AddStringToObject(doc, "like", given->like) ||
	    !cJSON_AddStringToObject(doc, "like_id", id) ||
	    (given->partial && !cJSON_AddTrueToObject(doc, "partial")))
		return -ENOMEM;
	return 0;
}

int cfs_view_options_text(const struct cfs_view_options *given, char **text_out,
			  struct cfs_error *err)
{
	_cleanup_(cfs_options_fini) struct cfs_options checked = {.old = -1};
	_cleanup_(cfs_json_freep) cJSON *doc = cJSON_CreateObject();
	_cleanup_(cfs_freep) char *text = NULL;
	int r = doc ? 0 : -ENOMEM;

	if (!r && given->rules)
		r = add_rules(doc, given->rules, err);
	if (!r && given->boundaries)
		r = add_boundaries(doc, given->boundaries, err);
	if (!r)
		r = add_text(doc, "partition_method", given->method);
	if (!r)
		r = add_text(doc, "partition_generation", given->generation);
	if (!r && given->like)
		r = add_like(doc, given);
	if (r < 0)
		return r;
	if (cJSON_GetArraySize(doc)) {
		text = cJSON_PrintUnformatted(doc);
		r = text ? cfs_options_parse(text, &checked, err) : -ENOMEM;
	}
	if (!r)
		*text_out = cfs_steal(text);
	return r;
}
