/*
 * Keys of dead objects go, so that nobody finds them any more.
 *
 * In this order: maps; derived chunks; the rest.  A derived chunk that someone
 * still meets has its parts, then, and meeting it keeps them.
 */
#include <errno.h>

#include "store/core/gc_internal.h"

#define AT_ONCE 1024u
#define TRIES	8
#define TELL_AT 65536u

enum which {
	MAPS,
	DERIVED,
	OTHERS
};

struct batch {
	struct cfs_gc *gc;
	enum which which;
	struct cfs_digest digests[AT_ONCE];
	struct cfs_object_value places[AT_ONCE];
	size_t n;
	bool unsure; /* a map that was touched is not looked into yet */
};

static bool dead(void *arg, const struct cfs_digest *digest)
{
	struct batch *b = arg;
	struct cfs_gc *gc = b->gc;

	if (cfs_gc_is_dead(gc, b->which == MAPS, digest))
		return true;
	if (!cfs_gc_is_live(gc, b->which == MAPS, digest))
		b->unsure = true;
	return false;
}

static int forget(struct batch *b)
{
	int r = 0;

	b->unsure = b->n > 0;
	for (int i = 0; r == 0 && b->unsure && i < TRIES; i++) {
		b->unsure = false;
		r = cfs_gc_drain(b->gc);
		if (r == 0)
			r = cfs_gc_forget(b->gc->store, b->which == MAPS,
					  b->digests, b->places, b->n, dead, b);
	}
	b->n = 0;
	return r;
}

static int on_key(struct batch *b, struct cfs_slice key, struct cfs_slice val)
{
	struct cfs_gc *gc = b->gc;
	struct cfs_object_value v;
	struct cfs_digest digest;
	int r;

	r = cfs_object_decode(val.data, val.len, &v);
	if (r == 0)
		r = cfs_key_parse_digest(key, &digest);
	if (r < 0 || (b->which != MAPS &&
		      (b->which == DERIVED) != cfs_object_may_be_derived(&v)))
		return r;
	if (cfs_gc_is_live(gc, b->which == MAPS, &digest)) {
		gc->result.chunks_live += b->which != MAPS;
		return 0;
	}
	gc->result.chunks_dead += b->which != MAPS;
	if (gc->options.dry_run)
		return 0;
	b->digests[b->n] = digest;
	b->places[b->n++] = v;
	return b->n < AT_ONCE ? 0 : forget(b);
}

static int pass(struct cfs_gc *gc, struct batch *b, enum which which)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *it = NULL;
	struct cfs_slice prefix, key, val;
	struct cfs_key class_key;
	uint64_t done = 0;
	int r;

	b->gc = gc;
	b->which = which;
	b->n = 0;
	cfs_key_prefix(&class_key, which == MAPS ? 'm' : 'c', 0);
	prefix = cfs_key_slice(&class_key);
	r = cfs_levels_iter(gc->store->levels, prefix, prefix, &it);
	if (r < 0)
		return r;
	while ((r = it->ops->next(it, &key, &val)) > 0) {
		r = on_key(b, key, val);
		if (r == 0 && ++done % TELL_AT == 0)
			r = cfs_gc_tell(gc, done, 0, "looking for garbage");
		if (r < 0)
			return r;
	}
	return r < 0 ? r : forget(b);
}

int cfs_gc_forget_dead(struct cfs_gc *gc)
{
	_cleanup_(cfs_freep) struct batch *b = malloc(sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	r = pass(gc, b, MAPS);
	if (r == 0)
		r = pass(gc, b, DERIVED);
	if (r == 0)
		r = pass(gc, b, OTHERS);
	return r;
}
