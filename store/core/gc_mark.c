/*
 * What is needed: found by following the namespace, and told by everyone who
 * makes a new reference meanwhile (cfs_gc_touched).
 *
 * Inodes are followed before extents: a file that is sealed in between has its
 * map touched, one that is opened again has extents by then.  The participant
 * is asked before and after, so that what moves between its memory and the
 * namespace is met on one side.
 */
#include <errno.h>
#include <string.h>

#include "store/core/gc_internal.h"
#include "store/util/endian.h"
#include "store/util/error.h"
#include "store/util/grow.h"

#define TELL_EVERY 4096u

/* ---- the set ---- */

static uint64_t slot_of(const struct cfs_digest *digest)
{
	const uint64_t v = cfs_get_le64(digest->bytes);

	return v ? v : 1;
}

/* Where @v is or would be. */
static uint64_t *find(const struct cfs_gc_set *set, uint64_t v)
{
	size_t i = v & (set->cap - 1);

	while (set->slots[i] && set->slots[i] != v)
		i = (i + 1) & (set->cap - 1);
	return &set->slots[i];
}

static int set_grow(struct cfs_gc_set *set)
{
	struct cfs_gc_set next = {.cap = set->cap ? set->cap * 2 : 4096};

	next.slots = calloc(next.cap, sizeof(*next.slots));
	if (!next.slots)
		return -ENOMEM;
	for (size_t i = 0; i < set->cap; i++)
		if (set->slots[i])
			*find(&next, set->slots[i]) = set->slots[i];
	next.n = set->n;
	free(set->slots);
	*set = next;
	return 0;
}

/* 1: it was not there. */
static int set_add(struct cfs_gc_set *set, uint64_t v)
{
	uint64_t *at;
	int r;

	if (set->n * 2 >= set->cap) {
		r = set_grow(set);
		if (r < 0)
			return r;
	}
	at = find(set, v);
	if (*at)
		return 0;
	*at = v;
	set->n++;
	return 1;
}

static bool set_has(const struct cfs_gc_set *set, uint64_t v)
{
	return set->cap && *find(set, v);
}

/* ---- what is needed ---- */

void cfs_gc_mark_fini(struct cfs_gc *gc)
{
	free(gc->chunks.slots);
	free(gc->maps.slots);
	free(gc->queue);
}

/* lock is held. */
static int add(struct cfs_gc *gc, bool is_map, const struct cfs_digest *digest)
{
	int r = set_add(is_map ? &gc->maps : &gc->chunks, slot_of(digest));

	if (r <= 0 || !is_map)
		return r < 0 ? r : 0;
	if (!CFS_GROW(gc->queue, gc->queue_n, gc->queue_cap))
		return -ENOMEM;
	gc->queue[gc->queue_n++] = *digest;
	return 0;
}

void cfs_gc_touched(void *arg, bool is_map, const struct cfs_digest *digest)
{
	struct cfs_gc *gc = arg;
	int r;

	pthread_mutex_lock(&gc->lock);
	r = add(gc, is_map, digest);
	if (r < 0)
		gc->failed = r;
	pthread_mutex_unlock(&gc->lock);
}

static int need(void *arg, bool is_map, const struct cfs_digest *digest)
{
	struct cfs_gc *gc = arg;
	int r;

	pthread_mutex_lock(&gc->lock);
	r = add(gc, is_map, digest);
	pthread_mutex_unlock(&gc->lock);
	return r;
}

bool cfs_gc_is_live(struct cfs_gc *gc, bool is_map,
		    const struct cfs_digest *digest)
{
	bool live;

	pthread_mutex_lock(&gc->lock);
	live = set_has(is_map ? &gc->maps : &gc->chunks, slot_of(digest));
	pthread_mutex_unlock(&gc->lock);
	return live;
}

bool cfs_gc_is_dead(struct cfs_gc *gc, bool is_map,
		    const struct cfs_digest *digest)
{
	bool dead;

	pthread_mutex_lock(&gc->lock);
	dead = !gc->failed && !gc->queue_n &&
	       !set_has(is_map ? &gc->maps : &gc->chunks, slot_of(digest));
	pthread_mutex_unlock(&gc->lock);
	return dead;
}

/* ---- maps ---- */

/* Stays in the queue until what it names is noted. */
static bool peek(struct cfs_gc *gc, struct cfs_digest *out, int *failed)
{
	bool any;

	pthread_mutex_lock(&gc->lock);
	*failed = gc->failed;
	any = !gc->failed && gc->queue_n;
	if (any)
		*out = gc->queue[gc->queue_n - 1];
	pthread_mutex_unlock(&gc->lock);
	return any;
}

/* One critical section: nobody sees the queue empty and a child missing. */
static int look_into(struct cfs_gc *gc, const struct cfs_digest *digest,
		     const struct cfs_content_map *map)
{
	size_t at = SIZE_MAX;
	int r = 0;

	pthread_mutex_lock(&gc->lock);
	for (size_t i = gc->queue_n; at == SIZE_MAX && i-- > 0;)
		if (!cfs_digest_cmp(&gc->queue[i], digest))
			at = i;
	if (at != SIZE_MAX)
		gc->queue[at] = gc->queue[--gc->queue_n];
	for (size_t i = 0; r == 0 && i < map->count; i++)
		r = map->level ? add(gc, true, &map->children[i].digest)
			       : add(gc, false, &map->extents[i].digest);
	if (r < 0)
		gc->failed = r;
	pthread_mutex_unlock(&gc->lock);
	return r;
}

static int read_map(struct cfs_gc *gc, const struct cfs_digest *digest)
{
	struct cfs_content_map map = {0};
	char hex[CFS_DIGEST_HEX];
	int r = cfs_store_get_map(gc->store, digest, &map);

	/* What it names cannot be told from what is not needed. */
	if (r < 0)
		return cfs_fail(gc->err, r,
				"map %s cannot be read (%s): nothing is "
				"collected; scrub tells more",
				cfs_digest_hex(digest, hex), strerror(-r));
	r = look_into(gc, digest, &map);
	cfs_content_map_fini(&map);
	return r;
}

int cfs_gc_drain(struct cfs_gc *gc)
{
	struct cfs_digest digest;
	int r = 0, failed = 0;

	while (r == 0 && peek(gc, &digest, &failed))
		r = read_map(gc, &digest);
	return r < 0 ? r : failed;
}

/* ---- the namespace ---- */

typedef int key_fn(struct cfs_gc *gc, struct cfs_slice key,
		   struct cfs_slice val);

static int each(struct cfs_gc *gc, char class, const char *what, key_fn *fn)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *it = NULL;
	struct cfs_slice prefix, key, val;
	struct cfs_key class_key;
	uint64_t done = 0;
	int r;

	cfs_key_prefix(&class_key, class, 0);
	prefix = cfs_key_slice(&class_key);
	r = cfs_levels_iter(gc->store->levels, prefix, prefix, &it);
	if (r < 0)
		return r;
	while ((r = it->ops->next(it, &key, &val)) > 0) {
		r = fn(gc, key, val);
		if (r == 0 && ++done % TELL_EVERY == 0)
			r = cfs_gc_tell(gc, done, 0, what);
		if (r < 0)
			return r;
	}
	return r;
}

static int on_inode(struct cfs_gc *gc, struct cfs_slice key,
		    struct cfs_slice val)
{
	struct cfs_inode_record inode;
	int r = cfs_inode_decode(val.data, val.len, &inode);

	(void)key;
	if (r < 0 || inode.content != CFS_CONTENT_SEALED)
		return r;
	r = need(gc, true, &inode.map);
	return r < 0 ? r : cfs_gc_drain(gc);
}

static int on_extent(struct cfs_gc *gc, struct cfs_slice key,
		     struct cfs_slice val)
{
	struct cfs_extent extent;
	int r;

	(void)key;
	r = cfs_extent_decode(0, val.data, val.len, &extent);
	return r < 0 ? r : need(gc, false, &extent.digest);
}

static int on_chunk(struct cfs_gc *gc, struct cfs_slice key,
		    struct cfs_slice val)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	struct cfs_object_value v;
	struct cfs_digest digest;
	int r;

	r = cfs_object_decode(val.data, val.len, &v);
	if (r == 0)
		r = cfs_key_parse_digest(key, &digest);
	if (r < 0 || !cfs_object_may_be_derived(&v) ||
	    !cfs_gc_is_live(gc, false, &digest))
		return r;
	r = cfs_object_chunk_head(gc->store, &digest, &v, &head);
	if (r == -EBADMSG || r == -ENOENT)
		return 0; /* lost: no part brings it back */
	for (uint32_t i = 0; r == 0 && i < head->n_parts; i++)
		r = need(gc, false, &head->parts[i].digest);
	return r;
}

static int ask_participant(struct cfs_gc *gc)
{
	const struct cfs_participant *p = &gc->store->participant;
	int r = p->mark ? p->mark(p->arg, need, gc) : 0;

	return r < 0 ? r : cfs_gc_drain(gc);
}

int cfs_gc_mark(struct cfs_gc *gc)
{
	int r = ask_participant(gc);

	if (r == 0)
		r = each(gc, 'i', "marking files", on_inode);
	if (r == 0)
		r = each(gc, 'e', "marking open files", on_extent);
	if (r == 0)
		r = ask_participant(gc);
	/* Last: it must know every derived chunk that is needed. */
	if (r == 0)
		r = each(gc, 'c', "marking parts", on_chunk);
	return r;
}
