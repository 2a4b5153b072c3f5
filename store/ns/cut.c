/*
 * What a group takes of the namespace's memory: cut() takes down the inodes
 * that changed, resolve.c writes them, done() settles the outcome.
 */
#include "store/ns/ns_internal.h"

#include <errno.h>

/*
 * Does the file end with a tail that grows fast, all of it newer than what was
 * due when the last group was cut?  Then it may wait for the next: what would
 * be stored now is a part of a chunk, of no use when the chunk is whole.  Lock
 * held.
 */
static bool tail_waits(const struct cfs_ino *ino)
{
	const struct cfs_pieces *p = ino->cur.pieces;
	const struct cfs_piece *e = p->n > 1 ? &p->v[p->n - 1] : NULL;

	return e && e->blob && !e->chunk_off && e->off > ino->due &&
	       e[-1].off + e[-1].len == e->off &&
	       e->off + e->len == ino->cur.size && cfs_blob_is_tail(e->blob);
}

/* Takes down content; lock held. */
static void snap_content(struct cfs_ino *ino, struct cfs_content *c, bool all,
			 struct cfs_snap *s)
{
	s->pieces = cfs_pieces_ref(c->pieces);
	s->n = c->pieces->n;
	s->lo = c->lo;
	c->dirty = false;
	c->lo = UINT64_MAX;
	cfs_ino_share(ino);
	if (!all && !s->seal && tail_waits(ino)) {
		s->n--;
		s->record.size = c->pieces->v[s->n].off;
		c->dirty = true;
		c->lo = s->record.size;
		cfs_ino_mark(ino);
	}
	ino->due = ino->cur.size;
}

/* Takes down @ino: false if there is nothing to write.  Nobody is inside. */
static bool snap(struct cfs_ino *ino, bool all, struct cfs_snap *s)
{
	struct cfs_content *c;
	bool any;

	(void)pthread_mutex_lock(&ino->lock);
	c = ino->staged ? ino->staged : &ino->cur;
	any = c->dirty || ino->meta_dirty;
	if (any) {
		s->ino = ino;
		s->content = c->dirty;
		s->seal = ino->staged || !ino->opens;
		s->had_keys = ino->has_keys;
		cfs_ino_record(ino, c, &s->record);
		ino->meta_dirty = false;
		ino->in_cut = true;
	}
	if (c->dirty)
		snap_content(ino, c, all, s);
	(void)pthread_mutex_unlock(&ino->lock);
	return any;
}

/* An inode that only the list of changes still knows need not be written. */
static bool is_gone(struct cfs_ino *ino)
{
	bool gone;

	(void)pthread_mutex_lock(&ino->ns->table_lock);
	gone = ino->refs == 1 && !ino->nlink;
	(void)pthread_mutex_unlock(&ino->ns->table_lock);
	return gone;
}

static int cut(void *arg, bool all, void **state_out)
{
	struct cfs_ns *ns = arg;
	struct cfs_cut *c = calloc(1, sizeof(*c));
	struct cfs_ino *i, *next;

	if (!c)
		return -ENOMEM;
	c->ns = ns;
	(void)pthread_mutex_lock(&ns->table_lock);
	c->snaps = calloc(ns->n_dirty ? ns->n_dirty : 1, sizeof(*c->snaps));
	i = c->snaps ? cfs_steal(ns->dirty) : NULL;
	if (c->snaps)
		ns->n_dirty = 0;
	for (struct cfs_ino *k = i; k; k = k->list_next)
		k->listed = false;
	(void)pthread_mutex_unlock(&ns->table_lock);
	if (!c->snaps) {
		free(c);
		return -ENOMEM;
	}
	/* what tells of others must not be there before they are */
	all |= atomic_exchange_explicit(&ns->pointed, false,
					memory_order_relaxed);
	for (; i; i = next) {
		next = i->list_next;
		if (!is_gone(i) && snap(i, all, &c->snaps[c->n]))
			c->n++;
		else
			cfs_ino_put(i);
	}
	atomic_store_explicit(&ns->waiting, 0, memory_order_relaxed);
	atomic_store_explicit(&ns->small, 0, memory_order_relaxed);
	(void)pthread_mutex_lock(&ns->table_lock);
	c->dead = cfs_steal(ns->dead);
	ns->n_dead = 0;
	(void)pthread_mutex_unlock(&ns->table_lock);
	if (!c->n && !c->dead) { /* no reason for a group */
		free(c->snaps);
		free(cfs_steal(c));
	}
	*state_out = c;
	return 0;
}

static int resolve(void *arg, void *state, struct cfs_levels *levels)
{
	(void)arg;
	(void)levels; /* the ones that ns has */
	return cfs_resolve_cut(state);
}

/* Pieces whose digest is known by now say so themselves; io, lock held. */
static void normalise(struct cfs_ino *ino)
{
	struct cfs_pieces *p = ino->cur.pieces;

	if (!p || cfs_pieces_own(&ino->cur.pieces, 0) < 0)
		return;
	p = ino->cur.pieces;
	for (size_t i = 0; i < p->n; i++) {
		struct cfs_piece *e = &p->v[i];

		if (!e->blob || !cfs_blob_poll(e->blob, &e->digest))
			continue;
		e->chunk_len = (uint32_t)cfs_blob_len(e->blob);
		cfs_blob_unref(cfs_steal(e->blob));
	}
}

/* Lock held: it did not get through, or only in part. */
static void again(struct cfs_ino *ino, const struct cfs_snap *s)
{
	struct cfs_content *c = ino->staged ? ino->staged : &ino->cur;

	ino->meta_dirty = true;
	if (s->content) {
		c->dirty = true;
		c->lo = CFS_MIN(c->lo, s->lo);
		ino->has_keys = true;
	}
	cfs_ino_mark(ino);
}

/* Lock held. */
static void through(struct cfs_ino *ino, const struct cfs_snap *s)
{
	if (!s->content)
		return;
	ino->kind = s->record.content;
	ino->map = s->record.map;
	ino->has_keys = ino->kind == CFS_CONTENT_EXTENTS;
	/* closed while this was under way: seal it next time */
	if (ino->has_keys && !ino->opens && !ino->cur.dirty && !ino->staged) {
		ino->cur.dirty = true;
		cfs_ino_mark(ino);
	}
}

static void settle(struct cfs_snap *s, int r)
{
	struct cfs_ino *ino = s->ino;
	/* a writer that holds it may wait for this very commit's chunks */
	bool io = !pthread_mutex_trylock(&ino->io);

	cfs_pieces_unref(cfs_steal(s->pieces));
	(void)pthread_mutex_lock(&ino->lock);
	ino->in_cut = false;
	if (r < 0)
		again(ino, s);
	else
		through(ino, s);
	if (io) {
		cfs_ino_unload(ino);
		if (s->content)
			normalise(ino);
	}
	(void)pthread_mutex_unlock(&ino->lock);
	if (io)
		(void)pthread_mutex_unlock(&ino->io);
	cfs_ino_put(ino);
}

/* The keys of these are gone, or still have to go. */
static void bury(struct cfs_ns *ns, struct cfs_ino *dead, int r)
{
	while (dead) {
		struct cfs_ino *i = dead;

		dead = i->list_next;
		(void)pthread_mutex_lock(&ns->table_lock);
		if (r < 0) {
			i->list_next = ns->dead;
			ns->dead = i;
			ns->n_dead++;
		}
		(void)pthread_mutex_unlock(&ns->table_lock);
		if (r == 0)
			cfs_ino_forget_dead(i);
	}
}

static void done(void *arg, void *state, int r)
{
	struct cfs_cut *c = state;

	if (r < 0) /* of what the next one says, too */
		cfs_ns_points(arg);
	for (size_t i = 0; i < c->n; i++)
		settle(&c->snaps[i], r);
	bury(arg, c->dead, r);
	free(c->snaps);
	free(c);
}

/* ---- gc ---- */

typedef int mark_fn(void *arg, bool is_map, const struct cfs_digest *digest);

/* What is on its way, ingest itself tells gc about. */
static int mark_pieces(const struct cfs_pieces *pieces, mark_fn *fn,
		       void *fn_arg)
{
	for (size_t i = 0; pieces && i < pieces->n; i++) {
		const struct cfs_piece *e = &pieces->v[i];
		struct cfs_digest digest = e->digest;
		int r;

		if (e->blob && !cfs_blob_poll(e->blob, &digest))
			continue;
		r = fn(fn_arg, false, &digest);
		if (r)
			return r;
	}
	return 0;
}

static int mark_ino(struct cfs_ino *ino, mark_fn *fn, void *fn_arg)
{
	_cleanup_(cfs_pieces_unrefp) struct cfs_pieces *cur = NULL;
	_cleanup_(cfs_pieces_unrefp) struct cfs_pieces *staged = NULL;
	int r;

	(void)pthread_mutex_lock(&ino->lock);
	if (ino->cur.pieces)
		cur = cfs_pieces_ref(ino->cur.pieces);
	if (ino->staged && ino->staged->pieces)
		staged = cfs_pieces_ref(ino->staged->pieces);
	(void)pthread_mutex_unlock(&ino->lock);
	r = mark_pieces(cur, fn, fn_arg);
	return r ? r : mark_pieces(staged, fn, fn_arg);
}

static int mark(void *arg, mark_fn *fn, void *fn_arg)
{
	struct cfs_ns *ns = arg;
	struct cfs_pieces **pins = NULL;
	struct cfs_ino **inos = NULL;
	size_t n = 0, n_pins = 0;
	int r = 0;

	(void)pthread_mutex_lock(&ns->table_lock);
	for (struct cfs_pin *p = ns->pins; p; p = p->next)
		n_pins++;
	inos = calloc(ns->n_inos + 1, sizeof(struct cfs_ino *));
	pins = calloc(n_pins + 1, sizeof(struct cfs_pieces *));
	if (!inos || !pins)
		r = -ENOMEM;
	n_pins = 0;
	for (struct cfs_pin *p = ns->pins; p && !r; p = p->next)
		pins[n_pins++] = cfs_pieces_ref(p->pieces);
	for (size_t b = 0; b < ns->n_buckets && !r; b++) {
		for (struct cfs_ino *i = ns->buckets[b]; i; i = i->hash_next) {
			if (i->state != CFS_INO_LIVE)
				continue;
			i->refs++;
			inos[n++] = i;
		}
	}
	(void)pthread_mutex_unlock(&ns->table_lock);
	for (size_t i = 0; i < n_pins; i++) {
		if (!r)
			r = mark_pieces(pins[i], fn, fn_arg);
		cfs_pieces_unref(pins[i]);
	}
	for (size_t i = 0; i < n; i++) {
		if (!r)
			r = mark_ino(inos[i], fn, fn_arg);
		cfs_ino_put(inos[i]);
	}
	free(pins);
	free(inos);
	return r;
}

const struct cfs_participant cfs_ns_participant = {
	.cut = cut,
	.resolve = resolve,
	.done = done,
	.mark = mark,
};
