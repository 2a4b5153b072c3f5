/* ckptfs view add|rm|list|explain: named views, and what a view is made of. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/explain.h"
#include "fs/cli/json.h"
#include "fs/cli/live.h"
#include "fs/cli/say.h"
#include "fs/cli/table.h"
#include "fs/cli/target.h"
#include "fs/cli/view_like.h"
#include "fs/cli/view_options.h"
#include "fs/cli/view_request.h"
#include "fs/format/options.h"
#include "fs/view/view.h"
#include "store/util/buf.h"

static const struct cfs_verb *const me = &cfs_verb_view;

/* Everything the four can be told; each takes what is its own. */
struct options {
	struct cfs_request request;
	struct cfs_view_options more;
	bool has_request, json, all;
};

/* What no item of a name can say: was it one of those? */
static bool take_more(int c, const char *arg, struct cfs_view_options *more)
{
	switch (c) {
	case 'R':
		more->rules = arg;
		return true;
	case 'B':
		more->boundaries = arg;
		return true;
	case 'M':
		more->method = arg;
		return true;
	case 'G':
		more->generation = arg;
		return true;
	case 'L':
		more->like = arg;
		return true;
	case 'P':
		more->partial = true;
		return true;
	default:
		return false;
	}
}

/* 0, or the exit status in @status_out and 1. */
static int take_options(int argc, char **argv, struct options *o,
			int *status_out)
{
	static const struct option options[] = {
		{"as", required_argument, NULL, 'a'},
		{"dp", required_argument, NULL, 'd'},
		{"zero", required_argument, NULL, 'z'},
		{"bf16-optimizer", no_argument, NULL, 'b'},
		{"zero-optimizer", no_argument, NULL, 'Z'},
		{"round-robin", no_argument, NULL, 'r'},
		{"no-round-robin", no_argument, NULL, 'n'},
		{"sub-group-size", required_argument, NULL, 's'},
		{"rules", required_argument, NULL, 'R'},
		{"boundaries", required_argument, NULL, 'B'},
		{"partition-method", required_argument, NULL, 'M'},
		{"partition-generation", required_argument, NULL, 'G'},
		{"like", required_argument, NULL, 'L'},
		{"partial", no_argument, NULL, 'P'},
		{"json", no_argument, NULL, 'j'},
		{"all", no_argument, NULL, 'A'},
		{0},
	};
	int c;

	while ((c = cfs_say_next_option(me, argc, argv, options, status_out)) >=
	       0) {
		*status_out = 0;
		if (c == 'j')
			o->json = true;
		else if (c == 'A')
			o->all = true;
		else if (!take_more(c, optarg, &o->more)) {
			*status_out =
				cfs_view_request_take(c, optarg, &o->request);
			o->has_request = true;
		}
		if (*status_out)
			return 1;
	}
	return c == CFS_ARGS_EXIT;
}

/* The run's real path in its source, which is what names are kept under. */
static int run_path(const char *path, char **out, struct cfs_error *err)
{
	_cleanup_(cfs_target_close) struct cfs_target t = {0};
	_cleanup_(cfs_freep) char *real = NULL, *seen = NULL;
	int r;

	r = cfs_live_translate_plain(path, &real, err);
	if (r == 0)
		r = cfs_target_open(real, &t, err);
	if (r < 0)
		return r;
	if (cfs_vnode_kind(t.node) != CFS_VNODE_SOURCE)
		return cfs_fail(err, -EINVAL, "%s: a view; name the run itself",
				path);
	r = cfs_vnode_is_run(t.node);
	if (r == 0)
		return cfs_fail(err, -EINVAL,
				"%s: not a run: no step of a known format in "
				"it",
				path);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	seen = cfs_target_path(&t);
	return seen ? cfs_live_translate(seen, out, err) : -ENOMEM;
}

static const char *bare(const char *name)
{
	return name[0] == '@' ? name + 1 : name;
}

/* What no step whatever could be shown as; 0 or an exit status. */
static int check_add(const char *name, const struct cfs_request *request)
{
	if (!strcmp(name, ".") || !strcmp(name, "..") ||
	    !strcmp(name, "latest"))
		return cfs_say_usage(me, "add: '%s' cannot name a view", name);
	if (request->bf16_optimizer == 1 && request->zero_stage >= 2)
		return cfs_say_usage(me,
				     "add: BF16_Optimizer is for stage 1, not "
				     "stage %d",
				     request->zero_stage);
	return 0;
}

/* A template decides all but what no checkpoint tells; 0 or an exit status. */
static int check_like(const struct options *o)
{
	const struct cfs_request *q = &o->request;

	if (o->more.partial && !o->more.like)
		return cfs_say_usage(me, "add: --partial is for --like");
	if (!o->more.like)
		return 0;
	if (q->dp || q->tp || q->pp >= 0 || q->zero_stage >= 0 ||
	    q->bf16_optimizer >= 0 || q->round_robin >= 0 ||
	    q->sub_group_size || q->universal >= 0)
		return cfs_say_usage(me, "add: the template says what is "
					 "shown; with --like, --as takes "
					 "vocabN, qkv… and bias… only");
	if (o->more.boundaries || o->more.method || o->more.generation)
		return cfs_say_usage(me, "add: the template says itself where "
					 "the stages of its pipeline begin");
	return 0;
}

/* Does the run's newest step fill the template?  Else nothing is added. */
static int try_like(const char *run, const struct cfs_request *request,
		    const char *options, char **note, struct cfs_error *err)
{
	_cleanup_(cfs_target_close) struct cfs_target t = {0};
	_cleanup_(cfs_freep) char *plain = NULL;
	struct cfs_request asked = *request;
	int r;

	asked.options = cfs_options_intern(options);
	r = asked.options ? cfs_live_translate_plain(run, &plain, err)
			  : -ENOMEM;
	if (r == 0)
		r = cfs_target_open(plain, &t, err);
	if (r == 0)
		r = cfs_vnode_try(t.node, &asked, note, err);
	return r == -ENOENT && !err->text[0]
		       ? cfs_fail(err, r,
				  "%s: no whole step to try the template with",
				  run)
		       : r;
}

static int add(int argc, char **argv, const struct options *o)
{
	_cleanup_(cfs_freep) char *run = NULL, *options = NULL, *name = NULL;
	_cleanup_(cfs_freep) char *like = NULL, *note = NULL;
	struct cfs_view_options more = o->more;
	struct cfs_registry_entry entry;
	struct cfs_error err = {""};
	char request[160];
	int r;

	if (argc != 2)
		return cfs_say_usage(me, "add: name a run and a name");
	if (!o->has_request && !more.like)
		return cfs_say_usage(me, "add: say what to show: --as dp32, or "
					 "--dp 32");
	r = check_add(bare(argv[1]), &o->request);
	if (!r)
		r = check_like(o);
	if (r)
		return r;
	cfs_view_name_format(&o->request, request, sizeof(request));
	name = strdup(bare(argv[1]));
	r = name ? run_path(argv[0], &run, &err) : -ENOMEM;
	if (r == 0 && more.like) {
		r = cfs_view_like(more.like, run, &like, &more.like_id, &err);
		more.like = like;
	}
	if (r == 0)
		r = cfs_view_options_text(&more, &options, &err);
	if (r == 0 && more.like)
		r = try_like(argv[0], &o->request, options, &note, &err);
	entry = (struct cfs_registry_entry){name, request, options};
	if (r == 0)
		r = cfs_registry_add(run, &entry, &err);
	if (r < 0)
		return cfs_say_fail(me, argv[0], r, &err);
	if (note)
		printf("%s: %s\n", argv[0], note);
	if (more.like)
		printf("%s/@%s is %s with the run's state\n", argv[0], name,
		       like);
	else
		printf("%s/@%s is @%s%s%s\n", argv[0], name, request,
		       options ? " with " : "", options ? options : "");
	return CFS_EXIT_OK;
}

static int rm(int argc, char **argv, const struct options *o)
{
	_cleanup_(cfs_freep) char *run = NULL;
	struct cfs_error err = {""};
	int r;

	(void)o;
	if (argc != 2)
		return cfs_say_usage(me, "rm: name a run and a name");
	r = run_path(argv[0], &run, &err);
	if (r == 0)
		r = cfs_registry_remove(run, bare(argv[1]), &err);
	if (r < 0)
		return cfs_say_fail(me, argv[0], r, &err);
	return CFS_EXIT_OK;
}

/* What can be written behind '@' without any name being given. */
static const struct {
	const char *item, *means;
} items[] = {
	{"dpN", "N data-parallel ranks"},
	{"zeroN", "ZeRO stage N: 0, 1, 2 or 3"},
	{"bf16opt", "optimizer state as BF16_Optimizer keeps it"},
	{"zeroopt", "optimizer state as ZeRO's own optimizer keeps it"},
	{"rr, norr", "round_robin_gradients on, off"},
	{"universal", "a universal checkpoint, with tpN and ppN alone"},
	{"subN", "sub_group_size N (stage 3)"},
	{"tpN", "N tensor-parallel ranks"},
	{"ppN", "N pipeline stages; 0: no pipeline"},
	{"vocabN", "the vocabulary's size without padding is N"},
	{"qkvparts, qkvheads", "queries before keys before values, or by head"},
	{"biassum, biassame", "ranks add up row biases, or have the same"},
};

struct list {
	struct cfs_table *table;
	cJSON *json;
	size_t n;
};

static int list_entry(void *arg, const struct cfs_registry_entry *entry)
{
	struct list *list = arg;
	cJSON *o = cfs_json_object(list->json, NULL);

	cfs_json_str(o, "name", entry->name);
	cfs_json_str(o, "request", entry->request);
	if (list->json && entry->options)
		cJSON_AddItemToObject(o, "options",
				      cJSON_Parse(entry->options));
	cfs_table_cell(list->table, "@%s", entry->name);
	cfs_table_cell(list->table, "%s%s%s%s", entry->request[0] ? "@" : "",
		       entry->request,
		       entry->options && entry->request[0] ? " with " : "",
		       entry->options ? entry->options : "");
	list->n++;
	return 0;
}

static int print_items(void)
{
	static const char *const headers[] = {"ITEM", "MEANS", NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table = NULL;
	size_t i;

	puts("Without a name, after '@' and joined by '-' (RUN/@dp32-zero1):");
	table = cfs_table_new(headers);
	for (i = 0; i < CFS_ARRAY_SIZE(items); i++) {
		cfs_table_cell(table, "%s", items[i].item);
		cfs_table_cell(table, "%s", items[i].means);
	}
	return cfs_table_print(table, 2, stdout);
}

static int print_list(const char *run, bool as_json, struct cfs_error *err)
{
	static const char *const headers[] = {"NAME", "SHOWS", NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table = NULL;
	_cleanup_(cfs_json_freep) cJSON *json = NULL;
	struct list list = {0};
	int r;

	json = as_json ? cJSON_CreateObject() : NULL;
	cfs_json_str(json, "run", run);
	list.json = cfs_json_array(json, "views");
	list.table = table = cfs_table_new(headers);
	r = cfs_registry_list(run, list_entry, &list, err);
	if (r < 0 && r != -ENOENT)
		return r;
	if (json)
		return cfs_json_print(json);
	if (!list.n)
		puts("No named views (ckptfs view add).");
	else if (cfs_table_print(table, 0, stdout) < 0)
		return -ENOMEM;
	return print_items();
}

static int list(int argc, char **argv, const struct options *o)
{
	_cleanup_(cfs_freep) char *run = NULL;
	struct cfs_error err = {""};
	int r;

	if (argc != 1)
		return cfs_say_usage(me, "list: name one run");
	r = run_path(argv[0], &run, &err);
	if (r == 0)
		r = print_list(run, o->json, &err);
	if (r < 0)
		return cfs_say_fail(me, argv[0], r, &err);
	return CFS_EXIT_OK;
}

static int print_refusal(const char *path, int r, const struct cfs_error *err)
{
	_cleanup_(cfs_json_freep) cJSON *json = cJSON_CreateObject();

	cfs_json_str(json, "path", path);
	cfs_json_bool(json, "possible", 0);
	cfs_json_str(json, "reason", err->text[0] ? err->text : strerror(-r));
	return cfs_json_print(json);
}

static int explain(int argc, char **argv, const struct options *o)
{
	struct cfs_explain_options options = {.json = o->json, .all = o->all};
	struct cfs_error err = {""};
	int r;

	if (argc != 1)
		return cfs_say_usage(me, "explain: name one view or a file in "
					 "it");
	r = cfs_explain(argv[0], &options, &err);
	if (r == 0)
		return CFS_EXIT_OK;
	if (o->json && print_refusal(argv[0], r, &err) < 0)
		r = -ENOMEM;
	return cfs_say_fail(me, argv[0], r, &err);
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv, const struct options *o);
} subverbs[] = {{"add", add}, {"rm", rm}, {"list", list}, {"explain", explain}};

static int run(int argc, char **argv)
{
	struct options o = {.request = CFS_REQUEST_INIT};
	int status = 0;
	size_t i;

	cfs_say_errors_only();
	if (take_options(argc, argv, &o, &status))
		return status;
	argc -= optind;
	argv += optind;
	for (i = 0; argc && i < CFS_ARRAY_SIZE(subverbs); i++)
		if (strcmp(argv[0], subverbs[i].name) == 0)
			return cfs_say_done(
				me, subverbs[i].run(argc - 1, argv + 1, &o));
	return cfs_say_usage(me, "say what to do: add, rm, list or explain");
}

const struct cfs_verb cfs_verb_view = {
	.name = "view",
	.summary = "name views of a run, list them, explain one",
	.help = "usage: ckptfs view add RUN NAME --as REQUEST\n"
		"       ckptfs view add RUN NAME [--dp N] [--zero N] ...\n"
		"       ckptfs view add RUN NAME --like DIR [--partial]\n"
		"       ckptfs view rm RUN NAME\n"
		"       ckptfs view list [--json] RUN\n"
		"       ckptfs view explain [--all] [--json] PATH\n"
		"\n"
		"A view shows a run or a step as other hardware would have "
		"saved it: RUN/@dp32.\n"
		"`add` gives a request a name, so that RUN/@NAME shows it, "
		"`rm` drops the name,\n"
		"`list` prints the names of a run and what can be written "
		"without one. Names are\n"
		"kept per user beside the cache, never in the run; live "
		"mounts see them at once.\n"
		"\n"
		"`explain` takes a view or a file in it, on disk or in a live "
		"mount: where each\n"
		"item of the topology comes from, and how many bytes of each "
		"file, or which\n"
		"source ranges of each tensor, are read, gathered, cast, zero "
		"or made up. A view\n"
		"that cannot be says why and exits 1.\n"
		"\n"
		"  --as REQUEST        items joined by '-', such as "
		"dp32-zero1\n"
		"  --dp N              data-parallel ranks\n"
		"  --zero N            ZeRO stage, 0 to 3\n"
		"  --bf16-optimizer    state as BF16_Optimizer keeps it\n"
		"  --zero-optimizer    state as ZeRO's own optimizer keeps it\n"
		"  --round-robin       round_robin_gradients on\n"
		"  --no-round-robin    round_robin_gradients off\n"
		"  --sub-group-size N  sub_group_size of stage 3\n"
		"  --rules FILE        how ranks share parameters, as JSON\n"
		"  --boundaries LIST   layers where the stages begin: 0,4,9\n"
		"  --partition-method METHOD\n"
		"                      type:REGEX, parameters or uniform\n"
		"  --partition-generation old|new\n"
		"                      of DeepSpeed's balancing, before and "
		"from 0.12.5\n"
		"  --like DIR          the files of the step at DIR, which the "
		"job to come saved\n"
		"                      once, with the run's state in them\n"
		"  --partial           and DIR's own where the run has nothing "
		"of that name\n"
		"  --all               every source range, however many\n"
		"  --json              print JSON\n"
		"  -h, --help          print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be done, 2 for bad usage.\n",
	.run = run,
};
