/*
 * prune: removes the steps of a run that no rule keeps.
 *
 * A step goes in one moment: renamed out of the run (CFS_NSTREE_TRASH), the
 * kernel told to forget the name, then emptied.  A crash in between leaves it
 * there, for the next prune, receive or opening after the crash to remove.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/daemon/nstree.h"
#include "fs/daemon/pins.h"
#include "fs/daemon/prune_rules.h"
#include "fs/daemon/steps.h"
#include "fs/daemon/verb.h"
#include "fs/view/view.h"
#include "store/ns/ns.h"
#include "store/util/path.h"

struct prune {
	struct cfs_verb_context *context;
	struct cfs_source *source;
	const char *run;
	uint64_t run_ino;
	struct cfs_steps steps;
	const char **reasons;
	char pointer[256], universal[256]; /* "": none */
	int pin_r;			   /* an error of looking pins up */
};

static void prune_fini(struct prune *p)
{
	cfs_steps_free(&p->steps);
	free(p->reasons);
}

static int path_of(const struct prune *p, const char *step, char **out)
{
	*out = cfs_path_join(p->run, step);
	return *out ? 0 : -ENOMEM;
}

static bool is_pinned(void *arg, const char *name)
{
	struct prune *p = arg;
	_cleanup_(cfs_freep) char *path = NULL;
	int r;

	r = path_of(p, name, &path);
	if (!r)
		r = cfs_pins_has(cfs_ns_store(p->context->ns), path);
	if (r < 0)
		p->pin_r = r;
	return r != 0;
}

static int read_pointers(struct prune *p)
{
	int r = cfs_steps_pointer(p->source, p->run, p->pointer);

	if (r < 0)
		return r;
	if (!r)
		p->pointer[0] = '\0';
	r = cfs_steps_universal(p->source, p->run, p->universal);
	if (!r)
		p->universal[0] = '\0';
	return CFS_MIN(r, 0);
}

static void name_pointed(const struct prune *p, struct cfs_prune_rules *rules)
{
	const struct cfs_steps_item *item;

	if (p->pointer[0]) {
		rules->pointer = p->pointer;
		item = cfs_steps_settle(&p->steps, p->pointer);
		rules->settled = item ? item->name : NULL;
	}
	if (p->universal[0]) {
		rules->universal = p->universal;
		item = cfs_steps_settle_universal(&p->steps, p->universal);
		rules->universal_settled = item ? item->name : NULL;
	}
}

static int decide(struct prune *p, const cJSON *arguments)
{
	struct timespec now;
	uint64_t newer = cfs_verb_u64(arguments, "newer_than_seconds", 0);
	struct cfs_prune_rules rules = {
		.keep_last = cfs_verb_u64(arguments, "keep_last", 0),
		.keep_every = cfs_verb_u64(arguments, "keep_every", 0),
		.newer_than_ns = INT64_MAX,
		.pinned = is_pinned,
		.arg = p,
	};
	int r;

	r = read_pointers(p);
	if (!r)
		r = cfs_steps_list(p->source, p->run, &p->steps);
	if (r < 0)
		return r;
	name_pointed(p, &rules);
	clock_gettime(CLOCK_REALTIME, &now);
	rules.now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	/* longer ago than can be counted: all are newer */
	if (newer)
		rules.newer_than_ns =
			newer < INT64_MAX / 1000000000
				? rules.now_ns - (int64_t)newer * 1000000000
				: INT64_MIN;
	p->reasons = calloc(p->steps.n + 1, sizeof(*p->reasons));
	if (!p->reasons)
		return -ENOMEM;
	cfs_prune_rules_apply(&rules, &p->steps, p->reasons);
	return p->pin_r;
}

/* Somebody may have saved or pinned while the rest was being removed. */
static int still_goes(struct prune *p, const char *name)
{
	int r = read_pointers(p);

	return r < 0 ? r
		     : strcmp(p->pointer, name) != 0 &&
			       strcmp(p->universal, name) != 0 &&
			       !is_pinned(p, name);
}

static void forget(struct cfs_verb_context *context, uint64_t ino,
		   const char *name)
{
	if (context->invalidate)
		context->invalidate(context->invalidate_arg, ino, name);
}

/* Is @name of @dir what was listed as @step?  1, 0. */
static int is_same(struct prune *p, uint64_t dir, const char *name,
		   const struct cfs_steps_item *step)
{
	struct cfs_ns *ns = p->context->ns;
	struct stat st;
	int r = cfs_ns_lookup(ns, dir, name, &st);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	cfs_ns_forget(ns, st.st_ino, 1);
	return st.st_ino == step->ino;
}

/* Out of the run, unless it was replaced since it was listed: 1, 0. */
static int take_out(struct prune *p, const struct cfs_steps_item *step,
		    uint64_t trash, const char *hidden)
{
	struct cfs_ns *ns = p->context->ns;
	int r = is_same(p, p->run_ino, step->name, step);

	if (r <= 0)
		return r;
	r = cfs_ns_rename(ns, p->run_ino, step->name, trash, hidden, 0);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = is_same(p, trash, hidden, step);
	if (r)
		return r;
	/* replaced just now: back to where it came from */
	r = cfs_ns_rename(ns, trash, hidden, p->run_ino, step->name,
			  RENAME_NOREPLACE);
	return CFS_MIN(r, 0);
}

static int remove_step(struct prune *p, const struct cfs_steps_item *step)
{
	struct cfs_ns *ns = p->context->ns;
	const char *name = step->name;
	char hidden[64];
	uint64_t trash;
	int r;

	r = still_goes(p, name);
	if (r <= 0)
		return r;
	r = cfs_nstree_trash(ns, &trash, hidden);
	if (!r)
		r = take_out(p, step, trash, hidden);
	if (r <= 0)
		return r;
	forget(p->context, p->run_ino, name);
	r = cfs_nstree_remove(ns, trash, hidden);
	return r < 0 ? r : 1;
}

static int remove_steps(struct prune *p, const struct cfs_verb_reply *reply,
			uint64_t *removed_out, struct cfs_error *err)
{
	size_t i, total = 0, done = 0;
	int r;

	for (i = 0; i < p->steps.n; i++)
		total += !p->reasons[i];
	for (i = 0; i < p->steps.n; i++) {
		const char *name = p->steps.list[i].name;

		if (p->reasons[i])
			continue;
		if (!cfs_verb_progress(reply, done++, total, name))
			return -ECANCELED;
		r = remove_step(p, &p->steps.list[i]);
		if (r < 0)
			return cfs_fail_prefix(err, r, "%s", name);
		if (!r)
			p->reasons[i] =
				"named, pinned or saved anew meanwhile, or gone";
		*removed_out += r > 0;
	}
	return 0;
}

static void put_steps(const struct prune *p, cJSON *result)
{
	cJSON *steps = cJSON_AddArrayToObject(result, "steps");
	size_t i;

	for (i = 0; i < p->steps.n; i++) {
		const struct cfs_steps_item *step = &p->steps.list[i];
		cJSON *o = cJSON_CreateObject();

		cfs_verb_put_str(o, "name", step->name);
		cfs_verb_put_flag(o, "complete", step->whole);
		cfs_verb_put_flag(o, "keep", p->reasons[i] != NULL);
		cfs_verb_put_str(o, "reason",
				 p->reasons[i] ? p->reasons[i]
				 : step->whole ? "no rule keeps it"
					       : "not whole");
		cJSON_AddItemToArray(steps, o);
	}
}

static int prune_run(struct prune *p, const cJSON *arguments,
		     const struct cfs_verb_reply *reply, cJSON *result,
		     struct cfs_error *err)
{
	bool dry_run = cfs_verb_flag(arguments, "dry_run");
	uint64_t removed = 0;
	int r;

	r = decide(p, arguments);
	if (r < 0)
		return r;
	if (!p->steps.n)
		return cfs_fail(err, -EINVAL,
				"not a run: no step of a known format in it");
	if (!dry_run)
		r = remove_steps(p, reply, &removed, err);
	if (!r && !dry_run)
		r = cfs_verb_sweep(p->context);
	if (!r && !dry_run)
		r = cfs_ns_sync(p->context->ns);
	if (r < 0)
		return r;
	cfs_verb_put_flag(result, "dry_run", dry_run);
	cfs_verb_put_u64(result, "removed", removed);
	put_steps(p, result);
	return 0;
}

static int prune(struct cfs_verb_context *context, const cJSON *arguments,
		 const struct cfs_verb_reply *reply, cJSON *result,
		 struct cfs_error *err)
{
	_cleanup_(prune_fini) struct prune p = {
		.context = context, .source = cfs_views_source(context->views)};
	_cleanup_(cfs_freep) char *path = NULL;
	struct stat st;
	int r;

	r = cfs_verb_path(arguments, "path", &path, err);
	if (r < 0)
		return r;
	p.run = path;
	r = cfs_ns_walk(context->ns, path, &st);
	if (!r && !S_ISDIR(st.st_mode))
		r = -ENOTDIR;
	p.run_ino = st.st_ino;
	if (!r)
		r = prune_run(&p, arguments, reply, result, err);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", path[0] ? path : "/") : 0;
}

const struct cfs_daemon_verb cfs_daemon_verb_prune = {"prune", prune, true,
						      true};
