/* The configuration that check compares with: of one file, or of several. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/against.h"
#include "fs/container/yaml.h"
#include "store/util/error.h"

#define CONFIG_MAX ((size_t)1 << 20)

static void fclosep(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

static int read_file(const char *path, cJSON **out, struct cfs_error *err)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "re");
	_cleanup_(cfs_freep) char *text = malloc(CONFIG_MAX + 1);
	size_t n;
	int r;

	if (!file)
		return cfs_fail(err, -errno, "--against %s: %s", path,
				strerror(errno));
	if (!text)
		return -ENOMEM;
	n = fread(text, 1, CONFIG_MAX + 1, file);
	if (ferror(file) || n > CONFIG_MAX)
		return cfs_fail(err, -EINVAL, "--against %s: %s", path,
				n > CONFIG_MAX ? "too large"
					       : "cannot be read");
	r = cfs_yaml_read(text, n, out, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "--against %s", path);
	if (cJSON_IsObject(*out))
		return 0;
	return cfs_fail(err, -EINVAL, "--against %s: is no configuration",
			path);
}

/* How long the key of @item is if it is the first part of @path, or 0. */
static size_t key_len(const cJSON *item, const char *path)
{
	const size_t len = strcspn(path, ".");
	const char *s = item->string;
	size_t i;

	for (i = 0; s && s[i] && i < len; i++)
		if (s[i] != path[i] && !(s[i] == '-' && path[i] == '_'))
			break;
	return s && i == len && !s[i] ? len : 0;
}

const cJSON *cfs_against_get(const cJSON *in, const char *path)
{
	const cJSON *item;
	size_t len;

	cJSON_ArrayForEach(item, in)
	{
		len = key_len(item, path);
		if (len)
			return path[len] ? cfs_against_get(item, path + len + 1)
					 : item;
	}
	return NULL;
}

/* Takes all that @from holds. */
static int merge(cJSON *from, cJSON *to, const char *path,
		 struct cfs_error *err)
{
	cJSON *item;

	while ((item = from->child)) {
		if (cJSON_GetObjectItemCaseSensitive(to, item->string))
			return cfs_fail(err, -EINVAL,
					"--against %s: %s is in a file before "
					"it, too",
					path, item->string);
		(void)cJSON_DetachItemViaPointer(from, item);
		if (!cJSON_AddItemToObject(to, item->string, item)) {
			cJSON_Delete(item);
			return -ENOMEM;
		}
	}
	return 0;
}

int cfs_against_read(const struct cfs_check_configs *configs, cJSON **out,
		     struct cfs_error *err)
{
	_cleanup_(cfs_json_freep) cJSON *all = NULL;
	int r = 0;

	for (unsigned i = 0; !r && i < configs->n; i++) {
		_cleanup_(cfs_json_freep) cJSON *one = NULL;

		r = read_file(configs->paths[i], &one, err);
		if (!r && all)
			r = merge(one, all, configs->paths[i], err);
		else if (!r)
			all = cfs_steal(one);
	}
	if (!r)
		*out = cfs_steal(all);
	return r;
}

bool cfs_against_number(const struct cfs_against *a, const char *path,
			double *out)
{
	const cJSON *item = cfs_against_get(a->config, path);

	if (!cJSON_IsNumber(item))
		return false;
	*out = item->valuedouble;
	return true;
}

void cfs_against_differ(const struct cfs_against *a, const char *name,
			double saved, double config)
{
	cfs_check_report_problem(a->report, name,
				 "the step has %.12g, the configuration %.12g",
				 saved, config);
}
