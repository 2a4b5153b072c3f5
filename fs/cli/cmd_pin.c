/* ckptfs pin, unpin: keeps a step from being pruned, or lets it go again. */
#include <stdio.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/cli/store_command.h"
#include "fs/cli/text.h"
#include "store/util/buf.h"

/* A store itself is named: what is pinned in it? */
static bool is_listing(const char *object)
{
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};

	return cfs_store_path_find(object, &path, NULL) > 0 &&
	       !path.inside[strspn(path.inside, "/.")];
}

static bool has(const cJSON *list, const char *text)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, list)
	{
		if (!strcmp(item->valuestring, text))
			return true;
	}
	return false;
}

static int print_pins(const struct cfs_store_verb *call, const cJSON *result)
{
	const cJSON *gone = cJSON_GetObjectItemCaseSensitive(result, "gone");
	const cJSON *pin;

	if (!is_listing(call->object))
		return 0;
	cJSON_ArrayForEach(pin,
			   cJSON_GetObjectItemCaseSensitive(result, "pins"))
	{
		_cleanup_(cfs_buf_free) struct cfs_buf safe = CFS_BUF_INIT;

		cfs_text_safe(&safe, pin->valuestring,
			      strlen(pin->valuestring));
		printf("%s%s\n", cfs_buf_str(&safe),
		       has(gone, pin->valuestring) ? " (gone or renamed)" : "");
	}
	return 0;
}

static int want_unpin(struct cfs_store_verb *call, bool flag)
{
	(void)flag;
	cfs_json_bool(call->arguments, "unpin", true);
	return is_listing(call->object)
		       ? cfs_say_usage(call->verb, "name one step in a store")
		       : 0;
}

static int run_pin(int argc, char **argv)
{
	static const struct cfs_store_command command = {
		.call = {.verb = &cfs_verb_pin, .name = "pin"},
		.takes = "name one step in a store",
		.print = print_pins,
	};

	return cfs_store_command_run(&command, argc, argv);
}

static int run_unpin(int argc, char **argv)
{
	static const struct cfs_store_command command = {
		.call = {.verb = &cfs_verb_unpin, .name = "pin"},
		.takes = "name one step in a store",
		.before = want_unpin,
		.print = print_pins,
	};

	return cfs_store_command_run(&command, argc, argv);
}

const struct cfs_verb cfs_verb_pin = {
	.name = "pin",
	.summary = "keep a step from being pruned",
	.help = "usage: ckptfs pin [--json] STORE/RUN/STEP\n"
		"       ckptfs pin [--json] STORE\n"
		"\n"
		"Keeps a step from being pruned until `ckptfs unpin`. Of a "
		"store: lists what is\n"
		"pinned. A pin is kept by path, and sent along by `ckptfs "
		"send`: a step that is\n"
		"renamed has none, and the list says that the old path is "
		"gone.\n"
		"\n"
		"  --json      print all pins as JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be done, 2 for bad usage.\n",
	.run = run_pin,
};

const struct cfs_verb cfs_verb_unpin = {
	.name = "unpin",
	.summary = "let a pinned step be pruned again",
	.help = "usage: ckptfs unpin [--json] STORE/RUN/STEP\n"
		"\n"
		"Lets a pinned step be pruned again. The step itself need not "
		"be there any more.\n"
		"\n"
		"  --json      print the pins that are left as JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be done, 2 for bad usage.\n",
	.run = run_unpin,
};
