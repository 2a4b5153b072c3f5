/* STORE/ckptfs.json: written once, read at every open. */
#include "store/core/store_internal.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "store/util/error.h"

#define NAME	    "ckptfs.json"
#define FORMAT	    "ckptfs store"
#define BYTES_MAX   (1u << 20)
#define SECONDS	    5u
#define SECONDS_MAX 86400u

static const char *const built_in_markers[] = {
	"latest",
	"latest_universal",
	"done",
	"checkpoint",
	"metadata.json",
	".metadata",
	"latest_checkpointed_iteration.txt",
	"commit_success.txt",
	"trainer_state.json",
	"manifest.ocdbt",
	"model.safetensors.index.json",
	".ckptfs-complete",
};

static void json_freep(cJSON **json)
{
	cJSON_Delete(*json);
}

static void text_freep(char **text)
{
	cJSON_free(*text);
}

static bool add_uuid(cJSON *json)
{
	char hex[33];
	uint8_t uuid[16];
	size_t i;

	if (getrandom(uuid, sizeof(uuid), 0) != (ssize_t)sizeof(uuid))
		return false;
	for (i = 0; i < sizeof(uuid); i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", uuid[i]);
	return cJSON_AddStringToObject(json, "uuid", hex);
}

static cJSON *make(const struct cfs_store_init_options *o)
{
	_cleanup_(json_freep) cJSON *json = cJSON_CreateObject();
	const char *const *markers = o->markers;
	size_t i, n = o->n_markers;
	cJSON *list;

	if (!markers) {
		markers = built_in_markers;
		n = CFS_ARRAY_SIZE(built_in_markers);
	}
	if (!json || !cJSON_AddStringToObject(json, "format", FORMAT) ||
	    !cJSON_AddNumberToObject(json, "version", CFS_STORE_VERSION) ||
	    !add_uuid(json) || !cJSON_AddArrayToObject(json, "requires") ||
	    !cJSON_AddArrayToObject(json, "writes") ||
	    !cJSON_AddNumberToObject(json, "sync_seconds",
				     o->sync_seconds ? o->sync_seconds
						     : SECONDS))
		return NULL;
	list = cJSON_AddArrayToObject(json, "markers");
	for (i = 0; list && i < n; i++) {
		cJSON *item = cJSON_CreateString(markers[i]);

		if (!item || !cJSON_AddItemToArray(list, item))
			return NULL;
	}
	return list ? cfs_steal(json) : NULL;
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int cfs_config_write(int dirfd, const struct cfs_store_init_options *options,
		     struct cfs_error *err)
{
	static const struct cfs_store_init_options none;
	_cleanup_(json_freep) cJSON *json = make(options ? options : &none);
	_cleanup_(text_freep) char *text = NULL;
	_cleanup_(cfs_closep) int fd = -1;
	int r;

	if (json)
		text = cJSON_Print(json);
	if (!text)
		return cfs_fail(err, -ENOMEM, "no memory to write %s", NAME);
	fd = openat(dirfd, NAME ".new",
		    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	r = fd < 0 ? -errno : write_all(fd, text, strlen(text));
	if (r == 0 && renameat(dirfd, NAME ".new", dirfd, NAME) < 0)
		r = -errno;
	if (r == 0 && fsync(dirfd) < 0)
		r = -errno;
	if (r < 0)
		return cfs_fail_prefix(err, r, NAME);
	return 0;
}

static int slurp(int dirfd, char **text_out)
{
	_cleanup_(cfs_closep) int fd =
		openat(dirfd, NAME, O_RDONLY | O_CLOEXEC);
	_cleanup_(cfs_freep) char *text = NULL;
	struct stat st;
	size_t got = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size > BYTES_MAX)
		return -EBADMSG;
	text = calloc(1, (size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	while (got < (size_t)st.st_size) {
		ssize_t n = read(fd, text + got, (size_t)st.st_size - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	*text_out = cfs_steal(text);
	return 0;
}

static bool parse_uuid(const char *hex, uint8_t uuid[16])
{
	size_t i;

	if (!hex || strlen(hex) != 32 || strspn(hex, "0123456789abcdef") != 32)
		return false;
	for (i = 0; i < 16; i++) {
		char two[3] = {hex[2 * i], hex[2 * i + 1], 0};

		uuid[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return true;
}

/* No feature is defined in version 1, so every word is one not known here. */
static int check_features(const cJSON *json, const char *path,
			  struct cfs_error *err)
{
	static const char *const members[] = {"requires", "writes"};
	const cJSON *word;
	size_t i;

	for (i = 0; i < CFS_ARRAY_SIZE(members); i++)
		cJSON_ArrayForEach(word, cJSON_GetObjectItemCaseSensitive(
						 json, members[i]))
		{
			const char *s = cJSON_GetStringValue(word);

			return cfs_fail(err, -EPROTONOSUPPORT,
					"store %s uses \"%s\", which this "
					"version does not know: use a "
					"newer ckptfs",
					path, s ? s : "?");
		}
	return 0;
}

static uint32_t number(const cJSON *json, const char *name, uint32_t otherwise,
		       uint32_t max)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);

	if (!cJSON_IsNumber(item) || !(item->valuedouble >= 1))
		return otherwise;
	return item->valuedouble >= max ? max : (uint32_t)item->valuedouble;
}

static int take_markers(const cJSON *json, struct cfs_store_config *c)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "markers");
	const cJSON *item;

	c->markers = calloc((size_t)cJSON_GetArraySize(list) + 1,
			    sizeof(*c->markers));
	if (!c->markers)
		return -ENOMEM;
	cJSON_ArrayForEach(item, list)
	{
		const char *s = cJSON_GetStringValue(item);

		if (!s || !*s)
			continue;
		c->markers[c->n_markers] = strdup(s);
		if (!c->markers[c->n_markers])
			return -ENOMEM;
		c->n_markers++;
	}
	return 0;
}

/* It is there, so there is a store whose packs may be whole. */
static int bad(struct cfs_error *err, const char *path, const char *what)
{
	return cfs_fail(err, -EBADMSG,
			"%s/" NAME " %s: put it back from a copy, or from "
			"another store's with this one's uuid (bytes 76 to 91 "
			"of its packs)",
			path, what);
}

bool cfs_config_has_packs(int dirfd)
{
	int fd =
		openat(dirfd, "packs/0000", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	bool found = false;
	size_t n;

	if (!dir) {
		cfs_closep(&fd);
		return false;
	}
	while (!found && (e = readdir(dir))) {
		n = strspn(e->d_name, "0123456789abcdef");
		found = n == 8 && strcmp(e->d_name + n, ".pack") == 0;
	}
	(void)closedir(dir);
	return found;
}

int cfs_config_parse(const char *text, const char *path,
		     struct cfs_store_config *c, struct cfs_error *err)
{
	_cleanup_(json_freep) cJSON *json = cJSON_Parse(text);
	const char *format;
	int r;

	*c = (struct cfs_store_config){
		.frame_bytes = CFS_FRAME_BYTES,
		.chunk_bytes = CFS_CHUNK_BYTES,
	};
	format = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(json, "format"));
	if (!format || strcmp(format, FORMAT) != 0)
		return bad(err, path, "says of no store");
	c->version = number(json, "version", 0, UINT32_MAX);
	if (c->version > CFS_STORE_VERSION)
		return cfs_fail(err, -EPROTONOSUPPORT,
				"store %s has format version %u; this "
				"program knows up to %u: use a newer ckptfs",
				path, c->version, CFS_STORE_VERSION);
	if (!c->version ||
	    !parse_uuid(cJSON_GetStringValue(
				cJSON_GetObjectItemCaseSensitive(json, "uuid")),
			c->uuid))
		return bad(err, path, "has no good version or uuid");
	r = check_features(json, path, err);
	if (r < 0)
		return r;
	c->sync_seconds = number(json, "sync_seconds", SECONDS, SECONDS_MAX);
	r = take_markers(json, c);
	if (r == 0)
		return 0;
	cfs_config_fini(c);
	return cfs_fail(err, r, "%s/%s: no memory for its markers", path, NAME);
}

static int missing(struct cfs_error *err, int dirfd, const char *path)
{
	return cfs_config_has_packs(dirfd)
		       ? bad(err, path, "is missing, but packs are there")
		       : cfs_fail(err, -ENOENT, "%s is no store (no %s)", path,
				  NAME);
}

int cfs_config_read(int dirfd, const char *path,
		    struct cfs_store_config *config, struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *text = NULL;
	int r;

	r = slurp(dirfd, &text);
	if (r == -ENOENT)
		return missing(err, dirfd, path);
	if (r == -EBADMSG)
		return bad(err, path, "is no file of its kind");
	if (r < 0)
		return cfs_fail(err, r, "%s/%s cannot be read: %s", path, NAME,
				strerror(-r));
	return cfs_config_parse(text, path, config, err);
}

void cfs_config_fini(struct cfs_store_config *config)
{
	size_t i;

	for (i = 0; i < config->n_markers; i++)
		free(config->markers[i]);
	free(config->markers);
	config->markers = NULL;
	config->n_markers = 0;
}
