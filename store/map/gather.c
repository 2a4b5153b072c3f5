/*
 * Strided boxes.  A walk goes over the runs of the box in the order in which
 * they are shown; runs that lie close behind each other are fetched with one
 * read of the window around them and picked out of it.
 *
 * A box whose inner dimensions take the larger steps (a transposed tensor)
 * would jump at every run.  Its runs are listed and sorted by place first:
 * what the asked bytes take from one row of the child lies together then.
 */
#include "store/map/eval_internal.h"

#include <errno.h>
#include <string.h>

#define WINDOW_MAX ((uint64_t)1 << 20)
#define GAP_MAX	   16 /* bytes read in vain for each byte wanted */
#define GAP_BYTES                                                              \
	((uint64_t)2048) /* what costs more to copy than one more read */
/* Longer runs are read one by one, straight to where they belong. */
#define LONG_RUN 4096

struct walk {
	const struct cfs_gather *box;
	uint64_t index[CFS_GATHER_DIMS_MAX];
	uint64_t run_at; /* of the current run, in the child */
	uint64_t within; /* bytes of it that are done */
	uint64_t left;	 /* bytes still to show, from here on */
};

static void walk_start(struct walk *w, const struct cfs_gather *box,
		       uint64_t off, uint64_t len)
{
	uint64_t run = off / box->run;

	*w = (struct walk){.box = box,
			   .run_at = box->base,
			   .within = off % box->run,
			   .left = len};
	for (uint32_t i = box->ndim; i-- > 0;) {
		w->index[i] = run % box->shape[i];
		run /= box->shape[i];
		w->run_at += w->index[i] * box->stride[i];
	}
}

/* The piece at hand: where in the child, how long. */
static uint64_t piece_at(const struct walk *w)
{
	return w->run_at + w->within;
}

static uint64_t piece_len(const struct walk *w)
{
	return CFS_MIN(w->box->run - w->within, w->left);
}

static void walk_next(struct walk *w)
{
	const struct cfs_gather *box = w->box;

	w->left -= piece_len(w);
	w->within = 0;
	for (uint32_t i = box->ndim; i-- > 0;) {
		w->run_at += box->stride[i];
		if (++w->index[i] < box->shape[i])
			return;
		w->run_at -= box->shape[i] * box->stride[i];
		w->index[i] = 0;
	}
}

/* Moves @w behind all pieces that one window holds; returns its end. */
static uint64_t window_end(struct walk *w, unsigned *n_out)
{
	uint64_t start = piece_at(w), end = start + piece_len(w);
	uint64_t run = w->box->run, gap = CFS_MIN(run * GAP_MAX, GAP_BYTES);

	if (run >= LONG_RUN)
		gap = 0;

	*n_out = 1;
	for (walk_next(w); w->left; walk_next(w)) {
		uint64_t at = piece_at(w), to = at + piece_len(w);

		if (at < end || at - end > gap || to - start > WINDOW_MAX)
			break;
		end = to;
		++*n_out;
	}
	return end;
}

static int gather_in_order(struct cfs_eval *ev, const struct cfs_expr *expr,
			   uint64_t off, uint8_t *buf, uint64_t len)
{
	_cleanup_(cfs_freep) uint8_t *window = NULL;
	struct walk w, ahead;

	walk_start(&w, expr->box, off, len);
	while (w.left) {
		uint64_t start = piece_at(&w), end, n = piece_len(&w);
		unsigned pieces;
		int r;

		ahead = w;
		end = window_end(&ahead, &pieces);
		if (pieces > 1 && !window) {
			window = malloc(WINDOW_MAX);
			if (!window)
				return -ENOMEM;
		}
		r = cfs_eval_read(ev, expr->children[0], start,
				  pieces > 1 ? window : buf, end - start, true);
		if (r < 0)
			return r;
		for (; pieces > 1 && w.left > ahead.left; walk_next(&w)) {
			n = piece_len(&w);
			memcpy(buf, window + (piece_at(&w) - start), n);
			buf += n;
		}
		if (pieces == 1)
			buf += n;
		w = ahead;
	}
	return 0;
}

struct piece {
	uint64_t at;	   /* in the child */
	uint32_t out, len; /* in the buffer, which is a block at most */
};

static int piece_cmp(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

/* All pieces of [@off, @off + @len), by their place in the child. */
static struct piece *pieces_sorted(const struct cfs_gather *box, uint64_t off,
				   uint64_t len, size_t *n_out)
{
	size_t n = 0, max = (size_t)(len / box->run + 2);
	struct piece *pieces = malloc(max * sizeof(*pieces));
	struct walk w;

	if (!pieces)
		return NULL;
	for (walk_start(&w, box, off, len); w.left; walk_next(&w))
		pieces[n++] = (struct piece){.at = piece_at(&w),
					     .out = (uint32_t)(len - w.left),
					     .len = (uint32_t)piece_len(&w)};
	qsort(pieces, n, sizeof(*pieces), piece_cmp);
	*n_out = n;
	return pieces;
}

/* How many of @pieces one window holds, dense enough to pay; and its end. */
static size_t window_pieces(const struct piece *pieces, size_t n,
			    uint64_t *end_out)
{
	uint64_t start = pieces[0].at, end = start + pieces[0].len;
	uint64_t wanted = pieces[0].len;
	size_t i;

	for (i = 1; i < n; i++) {
		uint64_t to = CFS_MAX(end, pieces[i].at + pieces[i].len);

		wanted += pieces[i].len;
		if (to - start > WINDOW_MAX || pieces[i].at > end + GAP_BYTES ||
		    to - start > wanted * (GAP_MAX + 1))
			break;
		end = to;
	}
	*end_out = end;
	return i;
}

static int gather_sorted(struct cfs_eval *ev, const struct cfs_expr *expr,
			 uint64_t off, uint8_t *buf, uint64_t len)
{
	_cleanup_(cfs_freep) uint8_t *window = malloc(WINDOW_MAX);
	_cleanup_(cfs_freep) struct piece *pieces = NULL;
	size_t n, in_window;

	pieces = pieces_sorted(expr->box, off, len, &n);
	if (!pieces || !window)
		return -ENOMEM;
	for (size_t i = 0; i < n; i += in_window) {
		uint64_t start = pieces[i].at, end;
		int r;

		in_window = window_pieces(pieces + i, n - i, &end);
		r = cfs_eval_read(ev, expr->children[0], start, window,
				  end - start, true);
		if (r < 0)
			return r;
		for (size_t k = i; k < i + in_window; k++)
			memcpy(buf + pieces[k].out,
			       window + (pieces[k].at - start), pieces[k].len);
	}
	return 0;
}

static bool is_in_order(const struct cfs_gather *box)
{
	for (uint32_t i = 1; i < box->ndim; i++)
		if (box->stride[i] > box->stride[i - 1])
			return false;
	return true;
}

int cfs_eval_gather(struct cfs_eval *ev, const struct cfs_expr *expr,
		    uint64_t off, uint8_t *buf, uint64_t len)
{
	if (expr->box->run >= LONG_RUN || is_in_order(expr->box))
		return gather_in_order(ev, expr, off, buf, len);
	return gather_sorted(ev, expr, off, buf, len);
}

void cfs_eval_gather_span(const struct cfs_expr *expr, uint64_t off,
			  uint64_t len, uint64_t *start_out, uint64_t *end_out)
{
	struct walk w;

	walk_start(&w, expr->box, off, len);
	*start_out = piece_at(&w);
	walk_start(&w, expr->box, off + len - 1, 1);
	*end_out = piece_at(&w) + 1;
}

static const struct cfs_gather *box_of(const struct cfs_map *map,
				       uint32_t index)
{
	const struct cfs_seg *seg = &map->segs[index];

	return seg->kind == CFS_SEG_GATHER ? map->exprs[seg->ref]->box : NULL;
}

uint64_t cfs_map_gather_run(const struct cfs_map *map, uint32_t index)
{
	const struct cfs_gather *box = box_of(map, index);

	return box ? box->run : 0;
}

int cfs_map_gather_each(const struct cfs_map *map, uint32_t index,
			int (*fn)(void *arg, uint64_t child_off, uint64_t len),
			void *arg)
{
	const struct cfs_gather *box = box_of(map, index);
	struct walk w;
	int r = 0;

	if (!box)
		return -EINVAL;
	walk_start(&w, box, map->segs[index].pos, cfs_map_seg_len(map, index));
	for (; r == 0 && w.left; walk_next(&w))
		r = fn(arg, piece_at(&w), piece_len(&w));
	return r;
}
