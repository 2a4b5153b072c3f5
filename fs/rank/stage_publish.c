/*
 * A step gets its name, and the pointer names it: one change.  What was there
 * before changes places with them, into the stage's directory, so that all can
 * be taken back until it is durable; it goes when that directory goes.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/rank/stage_internal.h"
#include "store/ns/ns.h"
#include "store/util/error.h"
#include "store/util/log.h"

#define ROOT_INO 1u
#define TRIES	 100 /* others may make or remove the same names meanwhile */
#define DIRS_MAX 64u

struct publish {
	struct cfs_stage *stage;
	struct cfs_error *err;
	uint64_t run;
	struct { /* directories on the way to the run that were made */
		uint64_t dir;
		char name[256];
	} made[DIRS_MAX];
	unsigned n_made;
	struct cfs_ns_move moves[2];
	size_t n_moves;
};

static void forget(const struct cfs_stage *stage, uint64_t dir,
		   const char *name)
{
	struct cfs_verb_context *c = stage->context;

	if (c->invalidate)
		c->invalidate(c->invalidate_arg, dir, name);
}

/* ---- the run's directory ---- */

static int enter(struct publish *p, uint64_t dir, const char *name,
		 uint64_t *out)
{
	const struct cfs_stage_options *o = &p->stage->options;
	struct cfs_ns_cred cred = {o->uid, o->gid};
	struct cfs_ns *ns = p->stage->context->ns;
	struct stat st;
	int r = cfs_ns_lookup(ns, dir, name, &st);

	if (r == -ENOENT && p->n_made < DIRS_MAX) {
		r = cfs_ns_mkdir(ns, &cred, dir, name, 0777 & ~o->umask, &st);
		if (r == 0) {
			p->made[p->n_made].dir = dir;
			(void)snprintf(p->made[p->n_made].name,
				       sizeof(p->made[0].name), "%s", name);
			p->n_made++;
			forget(p->stage, dir, name);
		} else if (r == -EEXIST) { /* somebody else did */
			r = cfs_ns_lookup(ns, dir, name, &st);
		}
	}
	if (r < 0)
		return r;
	cfs_ns_forget(ns, st.st_ino, 1);
	*out = st.st_ino;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

static int enter_run(struct publish *p)
{
	const char *at = p->stage->options.run;
	int r = 0;

	p->run = ROOT_INO;
	while (r == 0 && *at) {
		size_t n = strcspn(at, "/");
		char name[256];

		if (n >= sizeof(name))
			return -ENAMETOOLONG;
		memcpy(name, at, n);
		name[n] = '\0';
		r = enter(p, p->run, name, &p->run);
		at += n + (at[n] == '/');
	}
	if (r < 0)
		return cfs_fail_prefix(p->err, r, "%s", p->stage->options.run);
	if (p->stage->run && p->run != p->stage->run)
		return cfs_fail(p->err, -ESTALE,
				"%s: is another directory than when the save "
				"began",
				p->stage->options.run);
	return 0;
}

/* Nothing of a save that failed is left, unless somebody uses it by now. */
static void leave_run(struct publish *p)
{
	while (p->n_made) {
		p->n_made--;
		if (cfs_ns_rmdir(p->stage->context->ns, p->made[p->n_made].dir,
				 p->made[p->n_made].name) < 0)
			return;
		forget(p->stage, p->made[p->n_made].dir,
		       p->made[p->n_made].name);
	}
}

/* ---- the change ---- */

static void plan(struct publish *p, bool step, bool pointer)
{
	const struct cfs_stage *s = p->stage;

	p->n_moves = 0;
	p->moves[p->n_moves++] = (struct cfs_ns_move){
		.dir = s->dir,
		.name = "step",
		.new_dir = p->run,
		.new_name = s->options.step,
		.flags = step ? RENAME_EXCHANGE : RENAME_NOREPLACE,
	};
	if (!cfs_stage_pointer(s)[0])
		return;
	p->moves[p->n_moves++] = (struct cfs_ns_move){
		.dir = s->dir,
		.name = "pointer",
		.new_dir = p->run,
		.new_name = cfs_stage_pointer(s),
		.flags = pointer ? RENAME_EXCHANGE : RENAME_NOREPLACE,
	};
}

static void tell(const struct publish *p)
{
	for (size_t i = 0; i < p->n_moves; i++)
		forget(p->stage, p->run, p->moves[i].new_name);
}

/* It is there but not known to be durable: as if it had never been. */
static void take_back(struct publish *p)
{
	struct cfs_ns_move back[2];

	for (size_t i = 0; i < p->n_moves; i++)
		back[i] = (struct cfs_ns_move){
			.dir = p->moves[i].new_dir,
			.name = p->moves[i].new_name,
			.new_dir = p->moves[i].dir,
			.new_name = p->moves[i].name,
			.flags = p->moves[i].flags,
		};
	/* its own sync fails, too, as the one before did */
	if (cfs_ns_publish(p->stage->context->ns, back, p->n_moves, NULL) < 0)
		cfs_log(CFS_LOG_WARN, "%s: a save that failed is taken back",
			p->stage->options.step);
	tell(p);
}

/* It was looked at before; what is out of the way now is what was seen? */
static int check_replaced(const struct publish *p,
			  const struct cfs_stage_seen *seen)
{
	if (seen->step == CFS_STAGE_EMPTY)
		return cfs_stage_check_empty(p->stage, p->err);
	return seen->step == CFS_STAGE_STEP
		       ? cfs_stage_check_pin(p->stage, p->err)
		       : 0;
}

static int move(struct publish *p)
{
	struct cfs_ns *ns = p->stage->context->ns;
	struct cfs_stage_seen seen;
	size_t which;
	int r = -EEXIST;

	for (int i = 0; i < TRIES && (r == -EEXIST || r == -ENOENT); i++) {
		r = cfs_stage_look_in(p->stage, p->run, &seen, p->err);
		if (r < 0)
			return r;
		plan(p, seen.step != CFS_STAGE_NONE, seen.pointer);
		r = cfs_ns_publish(ns, p->moves, p->n_moves, &which);
		if (r < 0 && which < p->n_moves)
			continue; /* nothing happened */
		if (r == 0)
			r = check_replaced(p, &seen);
		if (r == 0)
			r = cfs_ns_sync(ns);
		if (r < 0) {
			take_back(p);
			return r;
		}
	}
	if (r == 0)
		tell(p);
	return r;
}

int cfs_stage_publish(struct cfs_stage *stage, struct cfs_error *err)
{
	struct publish p = {.stage = stage, .err = err};
	int r = cfs_stage_check_access(stage,
				       err); /* things may have changed */

	if (r == 0)
		r = enter_run(&p);
	if (r == 0)
		r = move(&p);
	if (r < 0)
		leave_run(&p);
	return r;
}
