/*
 * The configuration GPT-NeoX was started with, which it copies into a step's
 * directory `configs`, several files as one.
 *
 * Rules: GPT-NeoX ea7aefd8 megatron/neox_arguments/arguments.py (from_ymls),
 * megatron/checkpointing.py.
 */
#include "fs/format/deepspeed/neox_config.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>

#include "fs/container/yaml.h"
#include "store/util/buf.h"
#include "store/util/hash.h"
#include "store/util/path.h"

#define CONFIG_MAX ((size_t)256 << 10)
#define FILES_MAX  64u
#define KEYS_MAX   4096u

static void json_deletep(cJSON **json)
{
	cJSON_Delete(*json);
}

struct reading {
	struct cfs_ds_step *step;
	char dir[4096];
	cJSON *merged;
	uint32_t n_keys;
	bool unknown; /* something cannot be read, or contradicts */
};

/* ---- several as one ---- */

static void with_underscores(char *name)
{
	for (; *name; name++)
		if (*name == '-')
			*name = '_';
}

/* In which order files were given is not recorded, so two may not differ. */
static int merge(struct reading *rd, cJSON *config)
{
	cJSON *item, *next, *known;

	for (item = config->child; item; item = next) {
		next = item->next;
		with_underscores(item->string);
		known = cJSON_GetObjectItemCaseSensitive(rd->merged,
							 item->string);
		if (known) {
			rd->unknown |= !cJSON_Compare(known, item, true);
			continue;
		}
		if (++rd->n_keys > KEYS_MAX) {
			rd->unknown = true;
			return 0;
		}
		(void)cJSON_DetachItemViaPointer(config, item);
		if (!cJSON_AddItemToObject(rd->merged, item->string, item)) {
			cJSON_Delete(item);
			return -ENOMEM;
		}
	}
	return 0;
}

/* ---- files ---- */

/* Notes that @path is read, and as what: it changed, and so did the step. */
static int note(struct cfs_ds_step *step, const char *path,
		const struct stat *st)
{
	struct cfs_version v;
	uint64_t words[5];
	uint32_t row;

	cfs_version_of(st, &v);
	words[0] = v.dev;
	words[1] = v.ino;
	words[2] = v.size;
	words[3] = (uint64_t)v.mtime_ns;
	words[4] = (uint64_t)v.ctime_ns;
	step->base.identity =
		cfs_hash64(words, sizeof(words), step->base.identity) | 1;
	return cfs_filetab_add(step->base.beside, path, &v, &row);
}

/* Waits until a change would show. */
static int settle(struct cfs_source *source, const char *path)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct cfs_version unused;
	int r = source->ops->open(source, path, &file);

	return r < 0 ? r : cfs_file_settle(file, &unused);
}

static int read_one(struct reading *rd, const char *name)
{
	struct cfs_source *source = rd->step->base.source;
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	_cleanup_(json_deletep) cJSON *config = NULL;
	char path[4096 + 256];
	struct stat st;
	int r;

	r = cfs_path_put(path, sizeof(path), rd->dir, name);
	if (!r)
		r = settle(source, path);
	if (!r)
		r = source->ops->stat(source, path, &st);
	if (!r)
		r = note(rd->step, path, &st);
	if (!r)
		r = cfs_source_read_small(source, path, CONFIG_MAX, &text);
	if (!r)
		r = cfs_yaml_read(text.data, text.len, &config, NULL);
	if (r == -ENOMEM)
		return r;
	if (r < 0 || !config || !cJSON_IsObject(config)) {
		rd->unknown = true;
		return 0;
	}
	return merge(rd, config);
}

/* ---- the directory ---- */

struct names {
	char *v[FILES_MAX];
	uint32_t n;
	bool more;
};

static void names_fini(struct names *names)
{
	for (uint32_t i = 0; i < names->n; i++)
		free(names->v[i]);
}

/* The names that its launcher takes. */
static bool is_config(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && dot > name && name[0] != '.' &&
	       (!strcmp(dot, ".yml") || !strcmp(dot, ".yaml") ||
		!strcmp(dot, ".json"));
}

static int add_name(void *arg, const char *name, const struct stat *st)
{
	struct names *names = arg;

	if (!is_config(name) || !S_ISREG(st->st_mode))
		return 0;
	if (names->n == FILES_MAX) {
		names->more = true;
		return 1;
	}
	names->v[names->n] = strdup(name);
	return names->v[names->n] ? (names->n++, 0) : -ENOMEM;
}

static int read_all(struct reading *rd, struct names *names)
{
	struct cfs_source *source = rd->step->base.source;
	struct stat st;
	int r = source->ops->stat(source, rd->dir, &st);

	if (!r && !S_ISDIR(st.st_mode))
		return 0;
	if (!r)
		r = note(rd->step, rd->dir, &st);
	if (!r)
		r = source->ops->readdir(source, rd->dir, add_name, names);
	rd->unknown |= names->more || !names->n;
	for (uint32_t i = 0; r >= 0 && i < names->n; i++)
		r = read_one(rd, names->v[i]);
	return r;
}

int cfs_ds_neox_config_read(struct cfs_ds_step *step)
{
	_cleanup_(names_fini) struct names names = {.n = 0};
	struct reading rd = {.step = step};
	_cleanup_(json_deletep) cJSON *merged = cJSON_CreateObject();
	int r;

	step->base.beside = cfs_filetab_new();
	if (!merged || !step->base.beside)
		return -ENOMEM;
	rd.merged = merged;
	r = cfs_path_put(rd.dir, sizeof(rd.dir), step->base.path,
			 CFS_DS_NEOX_CONFIGS);
	if (!r)
		r = read_all(&rd, &names);
	if (r == -ENOMEM)
		return r;
	/* What may not be read says nothing. */
	if (r < 0 || rd.unknown || !cJSON_GetArraySize(merged))
		return 0;
	step->neox_config = merged;
	merged = NULL;
	return 0;
}

/* ---- what it says ---- */

int cfs_ds_neox_config_flag(const struct cfs_ds_step *step, const char *key)
{
	const cJSON *item =
		cJSON_GetObjectItemCaseSensitive(step->neox_config, key);

	if (!step->neox_config)
		return -1;
	if (!item)
		return 0;
	return cJSON_IsBool(item) ? cJSON_IsTrue(item) : -1;
}

const char *cfs_ds_neox_config_str(const struct cfs_ds_step *step,
				   const char *key)
{
	return cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(step->neox_config, key));
}
