/*
 * Cutting.  The stream is seen as two kinds of ground:
 *
 *  - large regions (a parameter's elements, at least LARGE_BYTES of them in
 *    this file): cut at their ends and on their grid, so that any other file
 *    that holds the same part of the parameter meets the same chunks;
 *  - everything between: unknown bytes, small parameters, other regions.  Cut
 *    by content, over their borders: many small ones make one chunk, and the
 *    next large region puts what follows back in step.
 *
 * A parameter's piece that a partition border made small falls under the
 * second kind; that is at most LARGE_BYTES per border.
 */
#include "store/chunk/chunker.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store/chunk/chunk.h"
#include "store/util/checked.h"

#define LARGE_BYTES  (64u << 10)
#define CONTENT_MIN  (256u << 10)
#define WINDOW_BYTES 64u /* bytes that the rolling hash remembers */
/*
 * Before the average a cut needs 22 zero bits, behind it 18: sizes gather.  The
 * upper bits, which the whole window is in; so a hash below the limit cuts.
 */
#define LIMIT_BEFORE (1ull << 42)
#define LIMIT_BEHIND (1ull << 46)

struct cfs_chunker {
	uint64_t start; /* of the next chunk, in the file */
	struct cfs_region *regions;
	size_t n_regions, cap, first; /* those before first are cut through */
	/* by content: */
	size_t scanned; /* so far, of the chunk; 0: not begun */
	uint64_t hash;
	size_t cut; /* found, perhaps behind the bytes there are; 0: not yet */
};

static uint64_t gear[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* splitmix64: any fixed table of random numbers would do. */
static void make_gear(void)
{
	uint64_t x = 0, z;
	size_t i;

	for (i = 0; i < CFS_ARRAY_SIZE(gear); i++) {
		x += 0x9e3779b97f4a7c15;
		z = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
		z = (z ^ z >> 27) * 0x94d049bb133111eb;
		gear[i] = z ^ z >> 31;
	}
}

struct cfs_chunker *cfs_chunker_new(uint64_t off)
{
	struct cfs_chunker *c;

	pthread_once(&once, make_gear);
	c = calloc(1, sizeof(*c));
	if (c)
		c->start = off;
	return c;
}

void cfs_chunker_free(struct cfs_chunker *chunker)
{
	if (!chunker)
		return;
	free(chunker->regions);
	free(chunker);
}

static uint64_t end_of(const struct cfs_region *r)
{
	return r->off + r->len;
}

static bool is_large(const struct cfs_region *r)
{
	return r->grid && r->len >= LARGE_BYTES;
}

static int make_room(struct cfs_chunker *c)
{
	struct cfs_region *p;
	size_t cap;

	if (c->first && c->first >= c->n_regions / 2) {
		c->n_regions -= c->first;
		memmove(c->regions, c->regions + c->first,
			c->n_regions * sizeof(*c->regions));
		c->first = 0;
	}
	if (c->n_regions < c->cap)
		return 0;
	cap = CFS_MAX(c->cap * 2, (size_t)16);
	p = reallocarray(c->regions, cap, sizeof(*p));
	if (!p)
		return -ENOMEM;
	c->regions = p;
	c->cap = cap;
	return 0;
}

int cfs_chunker_hint(struct cfs_chunker *chunker,
		     const struct cfs_region *region)
{
	struct cfs_region hint = *region;
	uint64_t end;
	int r;

	if (!hint.len || !cfs_add_u64(hint.off, hint.len, &end) ||
	    end <= chunker->start)
		return 0;
	if (chunker->n_regions &&
	    hint.off < end_of(&chunker->regions[chunker->n_regions - 1]))
		return 0;
	if (hint.elem_size > 8 || (hint.elem_size & (hint.elem_size - 1)))
		hint.elem_size = 0;
	r = make_room(chunker);
	if (r < 0)
		return r;
	chunker->regions[chunker->n_regions++] = hint;
	/* late: what was scanned is judged anew */
	if (hint.off < chunker->start + CFS_MAX(chunker->scanned, chunker->cut))
		chunker->scanned = chunker->cut = 0;
	return 0;
}

/* The first region that ends behind @pos, or NULL. */
static const struct cfs_region *region_at(const struct cfs_chunker *c,
					  uint64_t pos)
{
	size_t i;

	for (i = c->first; i < c->n_regions; i++)
		if (end_of(&c->regions[i]) > pos)
			return &c->regions[i];
	return NULL;
}

/* Where the large region @r is cut next behind @pos. */
static uint64_t grid_cut(const struct cfs_region *r, uint64_t pos)
{
	uint64_t in =
		(pos - r->off + r->phase % CFS_CHUNK_BYTES) % CFS_CHUNK_BYTES;

	return pos + CFS_MIN(CFS_CHUNK_BYTES - in, end_of(r) - pos);
}

/* The next large region from the chunk's start on begins there or here. */
static uint64_t content_end(const struct cfs_chunker *c, uint64_t limit)
{
	size_t i;

	for (i = c->first; i < c->n_regions; i++) {
		if (c->regions[i].off >= limit)
			break;
		if (is_large(&c->regions[i]))
			return CFS_MAX(c->regions[i].off, c->start);
	}
	return limit;
}

/* The element border at or behind @pos. */
static uint64_t align_up(const struct cfs_chunker *c, uint64_t pos)
{
	const struct cfs_region *r = region_at(c, pos);
	uint64_t in;

	if (!r || r->off >= pos || r->elem_size < 2)
		return pos;
	in = (pos - r->off + r->phase) & (r->elem_size - 1);
	return in ? CFS_MIN(pos + r->elem_size - in, end_of(r)) : pos;
}

/* The same at or before @pos. */
static uint64_t align_down(const struct cfs_chunker *c, uint64_t pos)
{
	const struct cfs_region *r = region_at(c, pos);

	if (!r || r->off >= pos || r->elem_size < 2)
		return pos;
	return CFS_MAX(pos - ((pos - r->off + r->phase) & (r->elem_size - 1)),
		       r->off);
}

/* Rolls on to @to or to the first hash below @limit; true for that. */
static bool roll(struct cfs_chunker *c, const uint8_t *p, size_t to,
		 uint64_t limit)
{
	uint64_t hash = c->hash, a, b, d;
	size_t i = c->scanned;

	/* four at a time: the branches are never taken but once a chunk */
	for (; i + 4 <= to; i += 4) {
		a = (hash << 1) + gear[p[i]];
		b = (a << 1) + gear[p[i + 1]];
		d = (b << 1) + gear[p[i + 2]];
		if (a < limit || b < limit || d < limit)
			break;
		hash = (d << 1) + gear[p[i + 3]];
		if (hash < limit) {
			c->scanned = i + 4;
			c->hash = hash;
			return true;
		}
	}
	for (a = limit; i < to && a >= limit; i++)
		a = hash = (hash << 1) + gear[p[i]];
	c->scanned = CFS_MAX(i, c->scanned);
	c->hash = hash;
	return a < limit;
}

/* The same with the limit that goes with where it is. */
static bool roll_on(struct cfs_chunker *c, const uint8_t *p, size_t to)
{
	return roll(c, p, CFS_MIN(to, (size_t)CFS_CHUNK_BYTES), LIMIT_BEFORE) ||
	       roll(c, p, to, LIMIT_BEHIND);
}

/* Fills the window in front of the first place that may be a cut. */
static void warm_up(struct cfs_chunker *c, const uint8_t *p, size_t to)
{
	size_t i;

	if (!c->scanned) {
		c->scanned = CONTENT_MIN - WINDOW_BYTES;
		c->hash = 0;
	}
	for (i = c->scanned; i < CFS_MIN(to, (size_t)CONTENT_MIN); i++)
		c->hash = (c->hash << 1) + gear[p[i]];
	c->scanned = CFS_MAX(i, c->scanned);
}

/*
 * Length of a chunk by content, @limit at most.  It may be a few bytes more
 * than @to, those that have been seen; 0: not among them.
 */
static size_t content_cut(struct cfs_chunker *c, const uint8_t *p, size_t to,
			  size_t limit)
{
	if (c->cut)
		return c->cut;
	warm_up(c, p, to);
	if (c->scanned >= CONTENT_MIN && roll_on(c, p, to))
		c->cut =
			(size_t)(align_up(c, c->start + c->scanned) - c->start);
	else if (to == limit)
		c->cut = limit;
	return c->cut;
}

/* What the chunk is made of, when all of it that is known is the same. */
static uint32_t elem_size_of(const struct cfs_chunker *c, uint64_t end)
{
	uint32_t size = 0;
	size_t i;

	for (i = c->first; i < c->n_regions; i++) {
		if (c->regions[i].off >= end)
			break;
		if (size && size != c->regions[i].elem_size)
			return 0;
		size = c->regions[i].elem_size;
	}
	return size;
}

static size_t emit(struct cfs_chunker *c, size_t n, uint32_t *elem_size_out)
{
	*elem_size_out = elem_size_of(c, c->start + n);
	c->start += n;
	c->scanned = c->cut = 0;
	while (c->first < c->n_regions &&
	       end_of(&c->regions[c->first]) <= c->start)
		c->first++;
	return n;
}

size_t cfs_chunker_next(struct cfs_chunker *chunker, const void *data,
			size_t len, bool eof, uint32_t *elem_size_out)
{
	const struct cfs_region *r = region_at(chunker, chunker->start);
	uint64_t end;
	size_t limit, cut;

	if (!len)
		return 0;
	if (r && is_large(r) && r->off <= chunker->start) {
		cut = (size_t)(grid_cut(r, chunker->start) - chunker->start);
	} else {
		end = align_down(chunker, chunker->start + CFS_CHUNK_BYTES_MAX);
		limit = (size_t)(content_end(chunker, end) - chunker->start);
		cut = content_cut(chunker, data, CFS_MIN(len, limit), limit);
	}
	if (cut && cut <= len)
		return emit(chunker, cut, elem_size_out);
	return eof ? emit(chunker, len, elem_size_out) : 0;
}
