/* What all verbs of a store that take one path do alike. */
#include "fs/cli/store_command.h"

#include "fs/cli/json.h"

/* What was printed is the status, too. */
static int finish(const struct cfs_store_command *command,
		  const struct cfs_store_verb *call, const cJSON *result,
		  bool as_json)
{
	int status = command->found && command->found(result) ? CFS_EXIT_FAILED
							      : CFS_EXIT_OK;
	int r;

	if (cfs_store_verb_flag(result, "duplex"))
		return CFS_EXIT_OK; /* standard output is the sender's */
	if (as_json)
		return cfs_store_verb_json(call->verb, result, status);
	r = command->print(call, result);
	if (r < 0)
		return cfs_say_fail(call->verb, NULL, r, NULL);
	return cfs_say_done(call->verb, status);
}

static int call_it(const struct cfs_store_command *command,
		   struct cfs_store_verb *call, bool flag, bool as_json)
{
	_cleanup_(cfs_json_freep) cJSON *arguments = cJSON_CreateObject();
	_cleanup_(cfs_json_freep) cJSON *result = NULL;
	int r;

	call->arguments = arguments;
	if (command->argument)
		cfs_json_bool(arguments, command->argument, flag);
	r = command->before ? command->before(call, flag) : 0;
	if (r)
		return r;
	call->arguments = cfs_steal(arguments);
	r = cfs_store_verb_call(call, &result);
	return r ? r : finish(command, call, result, as_json);
}

int cfs_store_command_run(const struct cfs_store_command *command, int argc,
			  char **argv)
{
	struct cfs_store_verb call = command->call;
	bool as_json = false, flag = false;
	struct cfs_say_option options[4] = {{.name = "json", .flag = &as_json}};
	int status, n = 1;

	if (command->has_quiet)
		options[n++] = (struct cfs_say_option){.name = "quiet",
						       .flag = &call.quiet};
	if (command->flag)
		options[n] = (struct cfs_say_option){.name = command->flag,
						     .flag = &flag};
	if (!cfs_say_options(call.verb, argc, argv, options, &status))
		return status;
	if (argc - optind != 1)
		return cfs_say_usage(call.verb, "%s", command->takes);
	call.object = argv[optind];
	return call_it(command, &call, flag, as_json);
}
