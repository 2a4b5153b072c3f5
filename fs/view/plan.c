/*
 * The cache of steps and trees.
 *
 *   plans -> entry (one a step, least recently used goes)
 *              step        what read() made of it, or why it refused
 *              planned …   one a request: write()'s tree, or why not
 *
 * All fields are guarded by plans->lock.  Reading and planning happen without
 * it: the entry is marked busy, and who wants the same entry waits on the
 * condition.
 */
#include "fs/view/plan.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/view/internal.h"
#include "fs/view/plan_make.h"
#include "store/util/error.h"

enum {
	STEPS_MAX = 16,
	TREES_MAX = 16, /* a step */
};
#define TRUST_NS INT64_C(1000000000)

struct planned {
	struct planned *next; /* newest first */
	char view[CFS_VIEW_NAME_MAX];
	struct cfs_plan_made made;
};

struct entry {
	struct entry *next; /* most recently used first */
	char *path;
	unsigned users; /* threads inside cfs_plans_get() */
	bool busy;
	uint64_t dev, ino; /* the directory, when last looked at */
	int64_t mtime_ns, ctime_ns;
	uint64_t names;	       /* which of the format's files there are */
	int64_t checked_ns;    /* 0: not to be believed */
	struct cfs_step *step; /* NULL: refused */
	int r;		       /* why: 1 no step, or an errno */
	struct cfs_error why;
	struct planned *planned;
};

struct cfs_plans {
	const struct cfs_views *views; /* borrowed */
	struct cfs_source *source;
	pthread_mutex_t lock;
	pthread_cond_t idle; /* some entry is no longer busy */
	struct entry *entries;
	unsigned n_entries;
};

static int64_t ns_of(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void free_planned(struct planned *p)
{
	struct planned *next;

	for (; p; p = next) {
		next = p->next;
		cfs_tree_unref(p->made.tree);
		free(p);
	}
}

static void free_entry(struct entry *e)
{
	free_planned(e->planned);
	cfs_step_unref(e->step);
	free(e->path);
	free(e);
}

struct cfs_plans *cfs_plans_new(const struct cfs_views *views)
{
	struct cfs_plans *plans = calloc(1, sizeof(*plans));

	if (!plans)
		return NULL;
	plans->views = views;
	plans->source = views->source;
	pthread_mutex_init(&plans->lock, NULL);
	pthread_cond_init(&plans->idle, NULL);
	return plans;
}

void cfs_plans_free(struct cfs_plans *plans)
{
	struct entry *e;

	if (!plans)
		return;
	while ((e = plans->entries)) {
		plans->entries = e->next;
		free_entry(e);
	}
	pthread_cond_destroy(&plans->idle);
	pthread_mutex_destroy(&plans->lock);
	free(plans);
}

void cfs_plan_fini(struct cfs_plan *plan)
{
	cfs_tree_unref(plan->tree);
	cfs_step_unref(plan->step);
	*plan = (struct cfs_plan)CFS_PLAN_INIT;
}

/* ---- entries; plans->lock is held ---- */

/* Drops the least recently used entries that nobody is in. */
static void evict(struct cfs_plans *plans)
{
	struct entry **p, **last;
	struct entry *e;

	while (plans->n_entries > STEPS_MAX) {
		last = NULL;
		for (p = &plans->entries; *p; p = &(*p)->next)
			if (!(*p)->users)
				last = p;
		if (!last)
			return;
		e = *last;
		*last = e->next;
		plans->n_entries--;
		free_entry(e);
	}
}

/* Finds or adds, and moves to the front. */
static struct entry *enter(struct cfs_plans *plans, const char *path)
{
	struct entry **p, *e;

	for (p = &plans->entries; *p; p = &(*p)->next)
		if (!strcmp((*p)->path, path))
			break;
	e = *p;
	if (e) {
		*p = e->next;
	} else {
		e = calloc(1, sizeof(*e));
		if (!e)
			return NULL;
		e->path = strdup(path);
		if (!e->path) {
			free(e);
			return NULL;
		}
		plans->n_entries++;
	}
	e->next = plans->entries;
	plans->entries = e;
	e->users++;
	return e;
}

static void leave(struct cfs_plans *plans, struct entry *e)
{
	e->users--;
	evict(plans);
}

static bool same_dir(const struct entry *e, const struct stat *dir)
{
	return e->dev == dir->st_dev && e->ino == dir->st_ino &&
	       e->mtime_ns == ns_of(dir->st_mtim) &&
	       e->ctime_ns == ns_of(dir->st_ctim);
}

/* A refusal that more memory or another try would not change. */
static bool is_lasting(int r)
{
	return !r || r == -EINVAL || r == -ENOTSUP || r == -EACCES;
}

static bool believed(const struct entry *e, const struct stat *dir)
{
	if (!e->step && e->r < 0 && !is_lasting(e->r))
		return false; /* not whole yet, perhaps */
	return e->checked_ns && same_dir(e, dir) &&
	       cfs_now_ns() - e->checked_ns < TRUST_NS;
}

static struct planned *find_planned(struct entry *e, const char *view)
{
	struct planned **p, *found;

	for (p = &e->planned; *p; p = &(*p)->next)
		if (!strcmp((*p)->view, view))
			break;
	found = *p;
	if (found) {
		*p = found->next;
		found->next = e->planned;
		e->planned = found;
	}
	return found;
}

static void add_planned(struct entry *e, struct planned *made)
{
	struct planned **p;
	unsigned n = 0;

	made->next = e->planned;
	e->planned = made;
	for (p = &e->planned; *p; p = &(*p)->next)
		if (n++ == TREES_MAX) {
			free_planned(*p);
			*p = NULL;
			return;
		}
}

/* ---- reading a step; without the lock, the entry is busy ---- */

/* Is what was read still there, and nothing besides? */
static bool still_holds(struct cfs_plans *plans, const struct entry *e,
			bool dir_changed)
{
	uint64_t names;

	if (cfs_step_check(e->step, NULL) < 0)
		return false;
	if (!dir_changed)
		return true;
	return !cfs_plan_names(plans->source, e->path, e->step->format,
			       &names) &&
	       names == e->names;
}

/* Trees that another step is part of, which is no longer what it was. */
static struct planned *take_stale(struct entry *e)
{
	struct planned **p = &e->planned, *stale = NULL, *one;

	while ((one = *p)) {
		if (!one->made.tree || !one->made.tree->step->also ||
		    !cfs_step_check(one->made.tree->step->also, NULL)) {
			p = &one->next;
			continue;
		}
		*p = one->next;
		one->next = stale;
		stale = one;
	}
	return stale;
}

/* Looks at the step again, or for the first time. */
static void refresh(struct cfs_plans *plans, struct entry *e,
		    const struct stat *dir)
{
	bool changed = !same_dir(e, dir), keep = false;
	int64_t now = cfs_is_young(dir) ? 0 : cfs_now_ns(); /* before looking */
	struct cfs_plan_read loaded = {.r = 0};
	struct planned *old = NULL;
	struct cfs_step *old_step = NULL;

	e->busy = true;
	pthread_mutex_unlock(&plans->lock);
	if (e->step)
		keep = still_holds(plans, e, changed);
	if (!keep)
		cfs_plan_read_step(plans->views, e->path, &loaded);
	else
		old = take_stale(e);
	pthread_mutex_lock(&plans->lock);
	if (!keep) {
		old = cfs_steal(e->planned);
		old_step = e->step;
		e->step = loaded.step;
		e->names = loaded.names;
		e->r = loaded.r;
		e->why = loaded.why;
	}
	e->dev = dir->st_dev;
	e->ino = dir->st_ino;
	e->mtime_ns = ns_of(dir->st_mtim);
	e->ctime_ns = ns_of(dir->st_ctim);
	e->checked_ns = now;
	e->busy = false;
	pthread_cond_broadcast(&plans->idle);
	free_planned(old);
	cfs_step_unref(old_step);
}

/* ---- planning; without the lock, the entry is busy ---- */

static int plan(struct cfs_plans *plans, struct entry *e,
		const struct cfs_request *request, const char *view,
		struct cfs_plan *out, struct cfs_error *err)
{
	struct planned *made = calloc(1, sizeof(*made));
	int r;

	if (!made)
		return -ENOMEM;
	memcpy(made->view, view, sizeof(made->view));
	e->busy = true;
	pthread_mutex_unlock(&plans->lock);
	cfs_plan_make_tree(plans->views, e->step, request, &made->made);
	pthread_mutex_lock(&plans->lock);
	e->busy = false;
	pthread_cond_broadcast(&plans->idle);
	r = made->made.r;
	if (r < 0 && err)
		*err = made->made.why;
	if (!r) {
		out->step = cfs_step_ref(e->step);
		out->tree = cfs_plan_tree(&made->made);
	}
	/* a template may be mended without the step changing */
	if (is_lasting(r) && (!r || !made->made.like))
		add_planned(e, made);
	else
		free_planned(made);
	return r;
}

/* The answer from what is known of a step, made if need be. */
static int answer(struct cfs_plans *plans, struct entry *e,
		  const struct cfs_request *request, struct cfs_plan *out,
		  struct cfs_error *err)
{
	char view[CFS_VIEW_NAME_MAX] = "";
	struct planned *known;

	if (!e->step) {
		if (e->r < 0 && err)
			*err = e->why;
		/* Not whole.  A trainer takes a path that is not there for "no
		 * checkpoint" and starts anew; a view has to fail loudly. */
		if (request && e->r == -ENOENT)
			return -EINVAL;
		return e->r;
	}
	if (!request) {
		out->step = cfs_step_ref(e->step);
		return 0;
	}
	cfs_view_name_format(request, view, sizeof(view));
	known = find_planned(e, view);
	if (!known)
		return plan(plans, e, request, view, out, err);
	if (known->made.r < 0) {
		if (err)
			*err = known->made.why;
		return known->made.r;
	}
	out->step = cfs_step_ref(e->step);
	out->tree = cfs_plan_tree(&known->made);
	return 0;
}

int cfs_plans_get(struct cfs_plans *plans, const char *path,
		  const struct stat *dir, const struct cfs_request *request,
		  struct cfs_plan *out, struct cfs_error *err)
{
	struct cfs_plan got = CFS_PLAN_INIT;
	struct entry *e;
	int r = -ENOMEM;

	pthread_mutex_lock(&plans->lock);
	e = enter(plans, path);
	if (e) {
		while (e->busy)
			pthread_cond_wait(&plans->idle, &plans->lock);
		if (!believed(e, dir))
			refresh(plans, e, dir);
		while (e->busy)
			pthread_cond_wait(&plans->idle, &plans->lock);
		r = answer(plans, e, request, &got, err);
		leave(plans, e);
	}
	pthread_mutex_unlock(&plans->lock);
	if (!r)
		*out = got;
	return r;
}

void cfs_plans_suspect(struct cfs_plans *plans, const char *path)
{
	struct entry *e;

	pthread_mutex_lock(&plans->lock);
	for (e = plans->entries; e; e = e->next)
		if (!strcmp(e->path, path))
			e->checked_ns = 0;
	pthread_mutex_unlock(&plans->lock);
}
