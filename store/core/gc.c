/*
 * Collecting garbage: mark what is needed, forget the keys of the rest, give
 * packs back.
 *
 *   listen (touches) ─▶ commit ─▶ mark ─▶ forget ─▶ stop listening
 *        ─▶ snapshot ─▶ copy what is needed out of poor packs ─▶ remove them
 *
 * It may end anywhere, also with the power: until a pack is removed all is
 * there twice or as it was, and what was removed nobody knows any more.
 */
#include <errno.h>
#include <string.h>

#include "store/core/gc_internal.h"
#include "store/util/error.h"

#define MIN_DEAD_PERCENT 25u

int cfs_gc_tell(struct cfs_gc *gc, uint64_t done, uint64_t total,
		const char *what)
{
	const struct cfs_job_control *c = gc->control;

	return !c || !c->progress || c->progress(c->arg, done, total, what)
		       ? 0
		       : -ECANCELED;
}

/* Chunks that are being derived were claimed before anyone listened. */
static void listen(struct cfs_gc *gc)
{
	pthread_rwlock_wrlock(&gc->store->derive_lock);
	cfs_gc_barrier(gc->store, cfs_gc_touched, gc);
	pthread_rwlock_unlock(&gc->store->derive_lock);
}

static int mark_and_forget(struct cfs_gc *gc)
{
	int r;

	listen(gc);
	/* Whatever was claimed before and is in nobody's memory is in keys. */
	r = cfs_store_commit(gc->store);
	if (r == 0)
		r = cfs_gc_tell(gc, 0, 0, "marking files");
	if (r == 0)
		r = cfs_gc_mark(gc);
	if (r == 0)
		r = cfs_gc_forget_dead(gc);
	return r;
}

static bool any_poor(const struct cfs_gc *gc, const struct cfs_gc_packs *packs,
		     uint32_t from, uint32_t to)
{
	for (size_t i = 0; i < packs->n; i++) {
		const struct cfs_gc_pack *p = &packs->v[i];

		if (p->number >= from && p->number < to && p->size &&
		    cfs_gc_is_poor(gc, p))
			return true;
	}
	return false;
}

static void sum_up(struct cfs_gc *gc, const struct cfs_gc_packs *packs)
{
	struct cfs_gc_result *r = &gc->result;

	r->packs_before = packs->n;
	for (size_t i = 0; i < packs->n; i++) {
		r->bytes_before += packs->v[i].size;
		if (!gc->options.dry_run || !cfs_gc_is_poor(gc, &packs->v[i]))
			continue;
		r->packs_removed++;
		r->packs_rewritten += packs->v[i].live > 0;
		r->bytes_freed += packs->v[i].size;
		r->bytes_copied += packs->v[i].live;
	}
}

/*
 * Packs before @before_out hold objects only.  Where there is no room for a
 * snapshot those before the last one do.
 */
static int settle(struct cfs_gc *gc, uint32_t *before_out)
{
	struct cfs_store *s = gc->store;
	struct cfs_position at = {0, 0};
	int r = cfs_gc_snapshot(s, &at);

	if (r == -ENOSPC || r == -EDQUOT) {
		at = s->recovered_snapshot;
		/* names that went are to be gone before their bytes are */
		r = cfs_group_commit(s, CFS_WISH_GROUP);
	}
	*before_out = at.pack;
	return r;
}

static int sweep(struct cfs_gc *gc)
{
	_cleanup_(cfs_gc_packs_fini) struct cfs_gc_packs packs = {NULL, 0, 0};
	struct cfs_store *s = gc->store;
	uint32_t before, open;
	int r;

	r = cfs_gc_count(gc, &packs);
	if (r < 0)
		return r;
	sum_up(gc, &packs);
	if (gc->options.dry_run || !any_poor(gc, &packs, 0, UINT32_MAX))
		return 0;
	r = cfs_append_start(s);
	if (r < 0)
		return r;
	open = cfs_packs_end(s->packs).pack;
	if (any_poor(gc, &packs, open, UINT32_MAX))
		r = cfs_packs_roll(s->packs);
	else if (!any_poor(gc, &packs, 0, open))
		return 0;
	if (r == 0 || r == -ENOSPC || r == -EDQUOT)
		r = settle(gc, &before);
	return r == 0 ? cfs_gc_sweep(gc, &packs, before) : r;
}

static int run(struct cfs_gc *gc)
{
	int r = mark_and_forget(gc);

	cfs_gc_barrier(gc->store, NULL, NULL);
	if (r == 0)
		r = sweep(gc);
	if (!gc->options.dry_run)
		gc->result.bytes_freed -= CFS_MIN(gc->result.bytes_freed,
						  gc->result.bytes_copied);
	return r;
}

int cfs_store_gc(struct cfs_store *store, const struct cfs_gc_options *options,
		 const struct cfs_job_control *control,
		 struct cfs_gc_result *result_out, struct cfs_error *err)
{
	struct cfs_error why = {""};
	struct cfs_gc gc = {.store = store, .control = control, .err = &why};
	int r;

	if (atomic_exchange_explicit(&store->gc_running, true,
				     memory_order_acquire))
		return cfs_fail(err, -EBUSY, "a collection is under way");
	if (options)
		gc.options = *options;
	if (!gc.options.min_dead_percent)
		gc.options.min_dead_percent = MIN_DEAD_PERCENT;
	pthread_mutex_init(&gc.lock, NULL);
	r = run(&gc);
	cfs_gc_mark_fini(&gc);
	pthread_mutex_destroy(&gc.lock);
	atomic_store_explicit(&store->gc_running, false, memory_order_release);
	if (result_out)
		*result_out = gc.result;
	if (r < 0 && why.text[0])
		return cfs_fail(err, r, "%s", why.text);
	return r < 0 ? cfs_fail(err, r, "the collection ended early: %s",
				strerror(-r))
		     : 0;
}
