/* The content of a file as sorted pieces. */
#include "store/ns/content.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

struct cfs_pieces *cfs_pieces_new(void)
{
	struct cfs_pieces *p = calloc(1, sizeof(*p));

	if (p)
		atomic_init(&p->refs, 1);
	return p;
}

struct cfs_pieces *cfs_pieces_ref(struct cfs_pieces *pieces)
{
	atomic_fetch_add_explicit(&pieces->refs, 1, memory_order_relaxed);
	return pieces;
}

void cfs_pieces_unref(struct cfs_pieces *pieces)
{
	/* acq_rel: what others did with it comes before the free */
	if (!pieces || atomic_fetch_sub_explicit(&pieces->refs, 1,
						 memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < pieces->n; i++)
		cfs_blob_unref(pieces->v[i].blob);
	free(pieces->v);
	free(pieces);
}

void cfs_pieces_unrefp(struct cfs_pieces **pieces)
{
	cfs_pieces_unref(*pieces);
}

static int grow(struct cfs_pieces *p, size_t more)
{
	size_t cap = p->cap ? p->cap : 4;
	struct cfs_piece *v;

	while (cap - p->n < more)
		cap *= 2;
	if (cap == p->cap)
		return 0;
	v = reallocarray(p->v, cap, sizeof(*v));
	if (!v)
		return -ENOMEM;
	p->v = v;
	p->cap = cap;
	return 0;
}

int cfs_pieces_own(struct cfs_pieces **pieces, size_t more)
{
	struct cfs_pieces *p = *pieces, *q;

	/* acquire: pairs with the other holder's unref */
	if (atomic_load_explicit(&p->refs, memory_order_acquire) == 1)
		return grow(p, more);
	q = cfs_pieces_new();
	if (!q)
		return -ENOMEM;
	if (grow(q, p->n + more) < 0) {
		cfs_pieces_unref(q);
		return -ENOMEM;
	}
	q->n = p->n;
	if (p->n)
		memcpy(q->v, p->v, p->n * sizeof(*p->v));
	for (size_t i = 0; i < q->n; i++)
		if (q->v[i].blob)
			cfs_blob_ref(q->v[i].blob);
	cfs_pieces_unref(p);
	*pieces = q;
	return 0;
}

static uint64_t end_of(const struct cfs_piece *p)
{
	return p->off + p->len;
}

size_t cfs_pieces_find(const struct cfs_pieces *pieces, uint64_t off)
{
	size_t lo = 0, hi = pieces->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (end_of(&pieces->v[mid]) <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

uint64_t cfs_pieces_lo(const struct cfs_pieces *pieces, uint64_t off)
{
	size_t i = cfs_pieces_find(pieces, off ? off - 1 : 0);

	if (i == pieces->n || pieces->v[i].off > off)
		return off;
	return pieces->v[i].off;
}

uint64_t cfs_pieces_end(const struct cfs_pieces *pieces)
{
	return pieces->n ? end_of(&pieces->v[pieces->n - 1]) : 0;
}

uint64_t cfs_pieces_bytes(const struct cfs_pieces *pieces)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < pieces->n; i++)
		sum += pieces->v[i].len;
	return sum;
}

/* @n places at @i become @m places. */
static void resize(struct cfs_pieces *p, size_t i, size_t n, size_t m)
{
	assert(p->n - n + m <= p->cap);
	if (p->n > i + n)
		memmove(&p->v[i + m], &p->v[i + n],
			(p->n - i - n) * sizeof(*p->v));
	p->n = p->n - n + m;
}

/* Takes @n bytes from the front. */
static void behead(struct cfs_piece *piece, uint64_t n)
{
	piece->off += n;
	piece->len -= n;
	piece->chunk_off += (uint32_t)n;
}

void cfs_pieces_split(struct cfs_pieces *pieces, uint64_t off)
{
	size_t i = cfs_pieces_find(pieces, off);
	struct cfs_piece *p;

	if (i == pieces->n || pieces->v[i].off >= off)
		return;
	resize(pieces, i, 1, 2);
	p = &pieces->v[i];
	p[1] = p[0];
	if (p->blob)
		cfs_blob_ref(p->blob);
	p[0].len = off - p[0].off;
	behead(&p[1], p[0].len);
}

void cfs_pieces_punch(struct cfs_pieces *pieces, uint64_t off, uint64_t len)
{
	uint64_t end = len > UINT64_MAX - off ? UINT64_MAX : off + len;
	size_t i, j;

	if (!len)
		return;
	i = cfs_pieces_find(pieces, off);
	if (i == pieces->n || pieces->v[i].off >= end)
		return;
	if (pieces->v[i].off < off) {
		cfs_pieces_split(pieces, off);
		i++;
	}
	for (j = i; j < pieces->n && end_of(&pieces->v[j]) <= end; j++)
		cfs_blob_unref(pieces->v[j].blob);
	if (j < pieces->n && pieces->v[j].off < end)
		behead(&pieces->v[j], end - pieces->v[j].off);
	resize(pieces, i, j - i, 0);
}

static bool joins(const struct cfs_piece *a, const struct cfs_piece *b)
{
	if (end_of(a) != b->off || a->blob != b->blob ||
	    a->chunk_off + a->len != b->chunk_off)
		return false;
	return a->blob || (a->chunk_len == b->chunk_len &&
			   !cfs_digest_cmp(&a->digest, &b->digest));
}

/* Makes pieces @i and @i + 1 one if they can be. */
static void merge(struct cfs_pieces *p, size_t i)
{
	if (i + 1 >= p->n || !joins(&p->v[i], &p->v[i + 1]))
		return;
	p->v[i].len += p->v[i + 1].len;
	cfs_blob_unref(p->v[i + 1].blob);
	resize(p, i + 1, 1, 0);
}

void cfs_pieces_splice(struct cfs_pieces *pieces, const struct cfs_piece *piece)
{
	size_t i;

	assert(piece->len);
	cfs_pieces_punch(pieces, piece->off, piece->len);
	i = cfs_pieces_find(pieces, piece->off);
	resize(pieces, i, 0, 1);
	pieces->v[i] = *piece;
	if (piece->blob)
		cfs_blob_ref(piece->blob);
	merge(pieces, i);
	if (i)
		merge(pieces, i - 1);
}

int cfs_pieces_push(struct cfs_pieces *pieces, const struct cfs_piece *piece)
{
	if (grow(pieces, 1) < 0)
		return -ENOMEM;
	pieces->v[pieces->n] = *piece;
	if (piece->blob)
		cfs_blob_ref(piece->blob);
	pieces->n++;
	return 0;
}

bool cfs_pieces_check(const struct cfs_pieces *pieces)
{
	for (size_t i = 0; i < pieces->n; i++) {
		const struct cfs_piece *p = &pieces->v[i];

		if (!p->len || (i && end_of(p - 1) > p->off))
			return false;
		if (!p->blob && p->chunk_off + p->len > p->chunk_len)
			return false;
	}
	return true;
}
