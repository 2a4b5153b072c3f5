/* ckptfs init: makes an empty store. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/cli/say.h"
#include "fs/cli/store_verb.h"
#include "store/core/store.h"

#define MARKERS_MAX 256

static int print_json(const char *path)
{
	_cleanup_(cfs_json_freep) cJSON *json = cJSON_CreateObject();

	cfs_json_str(json, "store", path);
	return cfs_json_print(json);
}

static int take_seconds(void *arg, const char *text)
{
	uint64_t *seconds = arg;
	int r = cfs_store_verb_number(text, seconds);

	return r == 0 && (!*seconds || *seconds > 3600) ? -EINVAL : r;
}

struct markers {
	const char *list[MARKERS_MAX];
	size_t n;
};

static int take_marker(void *arg, const char *text)
{
	struct markers *markers = arg;

	if (!text[0] || strchr(text, '/') || markers->n == MARKERS_MAX)
		return -EINVAL;
	markers->list[markers->n++] = text;
	return 0;
}

/* In a store's own directory it would be taken for a file of that, and in a
 * mount it would keep packs in packs. */
static int check_place(const char *path, struct cfs_error *err)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path found = {0};
	_cleanup_(cfs_freep) char *real = NULL;
	int r = cfs_store_path_find(path, &found, err);

	if (r <= 0)
		return r < 0 && r != -ENOENT ? r : 0;
	/* the store's own directory is refused as what it is */
	real = found.inside[0] ? NULL : realpath(path, NULL);
	if (real && !strcmp(real, found.store))
		return 0;
	return cfs_fail(err, -EINVAL,
			"lies in the store %s: choose a directory outside of "
			"stores",
			found.store);
}

static int run(int argc, char **argv)
{
	struct markers markers = {.n = 0};
	struct cfs_store_init_options o = {0};
	uint64_t seconds = 0;
	bool as_json = false;
	const struct cfs_say_option options[] = {
		{"sync", NULL, take_seconds, &seconds, "1 to 3600 seconds"},
		{"marker", NULL, take_marker, &markers,
		 "the name of a file, without a directory"},
		{.name = "json", .flag = &as_json},
		{0},
	};
	struct cfs_error err = {""};
	int r, status;

	if (!cfs_say_options(&cfs_verb_init, argc, argv, options, &status))
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(&cfs_verb_init, "name one directory");
	r = check_place(argv[optind], &err);
	if (r < 0)
		return cfs_say_fail(&cfs_verb_init, argv[optind], r, &err);
	o.sync_seconds = (uint32_t)seconds;
	o.markers = markers.n ? markers.list : NULL;
	o.n_markers = markers.n;
	r = cfs_store_init(argv[optind], &o, &err);
	if (r < 0)
		return cfs_say_fail(&cfs_verb_init, argv[optind], r, &err);
	if (as_json)
		r = print_json(argv[optind]);
	else
		printf("%s: an empty store; next: ckptfs mount %s DIR\n",
		       argv[optind], argv[optind]);
	if (r < 0)
		return cfs_say_fail(&cfs_verb_init, NULL, r, NULL);
	return cfs_say_done(&cfs_verb_init, CFS_EXIT_OK);
}

const struct cfs_verb cfs_verb_init = {
	.name = "init",
	.summary = "make an empty store",
	.help = "usage: ckptfs init [--sync SECONDS] [--marker NAME]… [--json] "
		"STORE\n"
		"\n"
		"Makes an empty store in the directory STORE, which must be "
		"empty or not there.\n"
		"It is what `ckptfs mount` shows as a filesystem that keeps "
		"everything once.\n"
		"\n"
		"  --sync SECONDS  what is written is on the disk after so "
		"long at the latest\n"
		"                  (default 5), the end of a file that grows "
		"fast after twice\n"
		"                  as long\n"
		"  --marker NAME   closing a file of this name makes it, and "
		"all before it,\n"
		"                  durable at once; in place of the names "
		"known by themselves\n"
		"                  (latest, done, metadata.json, .metadata, "
		"…); '*' stands for\n"
		"                  any characters\n"
		"  --json          print JSON\n"
		"  -h, --help      print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be made, 2 for bad usage.\n",
	.run = run,
};
