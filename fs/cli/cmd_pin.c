/* ckptfs pin, unpin: keeps a step from being pruned, or lets it go again. */
#include <stdio.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/cli/store_verb.h"
#include "fs/cli/text.h"
#include "store/util/buf.h"

static void print_pins(const cJSON *result)
{
	const cJSON *pin;

	cJSON_ArrayForEach(pin,
			   cJSON_GetObjectItemCaseSensitive(result, "pins"))
	{
		_cleanup_(cfs_buf_free) struct cfs_buf safe = CFS_BUF_INIT;

		cfs_text_safe(&safe, pin->valuestring,
			      strlen(pin->valuestring));
		puts(cfs_buf_str(&safe));
	}
}

static int call_pin(const struct cfs_verb *verb, int argc, char **argv,
		    bool unpin)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	_cleanup_(cfs_store_path_free) struct cfs_store_path path = {0};
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	struct cfs_store_verb call = {.verb = verb, .name = "pin"};
	bool as_json = false, listing;
	int c, r, status;

	cfs_say_errors_only();
	while ((c = cfs_say_next_option(verb, argc, argv, options, &status)) >=
	       0)
		as_json = true;
	if (c == CFS_ARGS_EXIT)
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(verb, "name one step in a store");
	call.object = argv[optind];
	listing = cfs_store_path_find(call.object, &path, NULL) > 0 &&
		  !path.inside[strspn(path.inside, "/.")];
	if (listing && unpin)
		return cfs_say_usage(verb, "name one step in a store");
	call.arguments = cJSON_CreateObject();
	cfs_json_bool(call.arguments, "unpin", unpin);
	r = cfs_store_verb_call(&call, &result);
	if (r)
		return r;
	if (as_json)
		return cfs_store_verb_json(verb, result, CFS_EXIT_OK);
	if (listing)
		print_pins(result);
	return cfs_say_done(verb, CFS_EXIT_OK);
}

static int run_pin(int argc, char **argv)
{
	return call_pin(&cfs_verb_pin, argc, argv, false);
}

static int run_unpin(int argc, char **argv)
{
	return call_pin(&cfs_verb_unpin, argc, argv, true);
}

const struct cfs_verb cfs_verb_pin = {
	.name = "pin",
	.summary = "keep a step from being pruned",
	.help = "usage: ckptfs pin [--json] STORE/RUN/STEP\n"
		"       ckptfs pin [--json] STORE\n"
		"\n"
		"Keeps a step from being pruned until `ckptfs unpin`. Of a "
		"store: lists what is\n"
		"pinned. A pin is kept by path: a step that is renamed has "
		"none.\n"
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
