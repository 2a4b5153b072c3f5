/* The table of verbs, and the rule that some run alone. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "fs/daemon/verb.h"
#include "store/core/store.h"
#include "store/ns/ns.h"

const struct cfs_daemon_verb *const cfs_daemon_verbs[] = {
	&cfs_daemon_verb_du,	  &cfs_daemon_verb_stats,
	&cfs_daemon_verb_prune,	  &cfs_daemon_verb_pin,
	&cfs_daemon_verb_gc,	  &cfs_daemon_verb_scrub,
	&cfs_daemon_verb_fsck,	  &cfs_daemon_verb_import,
	&cfs_daemon_verb_resolve, &cfs_daemon_verb_send,
	&cfs_daemon_verb_receive, NULL,
};

/* A process has one store, so one lock is enough. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct cfs_daemon_verb *alone; /* guarded by lock */

static int begin_alone(const struct cfs_daemon_verb *verb,
		       struct cfs_error *err)
{
	const struct cfs_daemon_verb *other;

	pthread_mutex_lock(&lock);
	other = alone;
	if (!other)
		alone = verb;
	pthread_mutex_unlock(&lock);
	if (!other)
		return 0;
	return cfs_fail(err, -EBUSY,
			"%s is under way on this store; try again "
			"when it is done",
			other->name);
}

static void end_alone(void)
{
	pthread_mutex_lock(&lock);
	alone = NULL;
	pthread_mutex_unlock(&lock);
}

static const struct cfs_daemon_verb *find(const char *name)
{
	size_t i;

	for (i = 0; cfs_daemon_verbs[i]; i++)
		if (!strcmp(cfs_daemon_verbs[i]->name, name))
			return cfs_daemon_verbs[i];
	return NULL;
}

int cfs_verb_may_change(const struct cfs_verb_context *context,
			const char *name, struct cfs_error *err)
{
	const struct cfs_store *store = cfs_ns_store(context->ns);

	if (!cfs_store_read_only(store))
		return 0;
	return cfs_fail(err, -EROFS,
			cfs_store_is_untouched(store)
				? "the store may only be read here, and %s "
				  "would change it"
				: "the store is mounted read-only (-o ro), and "
				  "%s would change it",
			name);
}

int cfs_verb_run(struct cfs_verb_context *context, const char *name,
		 const cJSON *arguments, const struct cfs_verb_reply *reply,
		 cJSON *result, struct cfs_error *err)
{
	const struct cfs_daemon_verb *verb = find(name);
	int r;

	if (!verb)
		return cfs_fail(err, -EINVAL, "no verb of a store: %.60s",
				name);
	r = verb->changes && !cfs_verb_flag(arguments, "dry_run")
		    ? cfs_verb_may_change(context, name, err)
		    : 0;
	if (r < 0)
		return r;
	if (!verb->exclusive)
		return verb->run(context, arguments, reply, result, err);
	r = begin_alone(verb, err);
	if (r < 0)
		return r;
	r = verb->run(context, arguments, reply, result, err);
	end_alone();
	return r;
}
