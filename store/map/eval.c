/*
 * What the bytes of a map are.  Plain segments go straight into the caller's
 * buffer; computed ones are made in blocks, which the cache may keep.
 */
#include "store/map/eval_internal.h"

#include <errno.h>
#include <string.h>

#define BLOCK_BYTES	 ((uint64_t)256 << 10)
#define BATCH_BYTES	 ((uint64_t)128 << 10) /* of input; fits the L2 cache */
#define DIRECT_RUN_BYTES 4096
#define ADVISE_MIN_BYTES ((uint64_t)16 << 10)

static struct cfs_file *file_of(const struct cfs_eval_files *files,
				uint32_t index)
{
	return files->files[index - files->first];
}

int cfs_eval_check(struct cfs_eval *ev)
{
	for (unsigned i = 0; i < ev->n_touched; i++) {
		int r = cfs_filepool_check(ev->touched[i]);

		if (r < 0)
			return r;
	}
	ev->n_touched = 0;
	return 0;
}

static int touch(struct cfs_eval *ev, struct cfs_file *file)
{
	for (unsigned i = ev->n_touched; i-- > 0;)
		if (ev->touched[i] == file)
			return 0;
	if (ev->n_touched == CFS_ARRAY_SIZE(ev->touched)) {
		int r = cfs_eval_check(ev);

		if (r < 0)
			return r;
	}
	ev->touched[ev->n_touched++] = file;
	return 0;
}

static int read_range(struct cfs_eval *ev, uint32_t index, uint64_t off,
		      uint8_t *buf, uint64_t len)
{
	struct cfs_file *file = file_of(ev->files, index);
	int r;

	r = touch(ev, file);
	return r < 0 ? r : cfs_filepool_pread(file, buf, (size_t)len, off);
}

/* Whole elements [@first, @first + @n). */
static int cast_elements(struct cfs_eval *ev, const struct cfs_expr *expr,
			 uint64_t first, uint64_t n, uint8_t *buf)
{
	uint64_t in = cfs_dtype_size(expr->from),
		 out = cfs_dtype_size(expr->to);
	uint64_t batch = CFS_MIN(n, BATCH_BYTES / in);
	_cleanup_(cfs_freep) uint8_t *raw = malloc((size_t)(batch * in));

	if (!raw)
		return -ENOMEM;
	for (uint64_t i = 0, m; i < n; i += m) {
		int r;

		m = CFS_MIN(batch, n - i);
		r = cfs_eval_read(ev, expr->children[0], (first + i) * in, raw,
				  m * in, false);
		if (r < 0)
			return r;
		cfs_dtype_cast(expr->from, raw, expr->to, buf + i * out, m);
	}
	return 0;
}

struct sums {
	uint8_t *raw;
	double *term, *sum;
};

static void sums_fini(struct sums *s)
{
	free(s->raw);
	free(s->term);
	free(s->sum);
}

static int sum_batch(struct cfs_eval *ev, const struct cfs_expr *expr,
		     uint64_t first, uint64_t n, const struct sums *s)
{
	uint64_t in = cfs_dtype_size(expr->from);

	for (uint32_t k = 0; k < expr->n_children; k++) {
		double weight = expr->weights[k];
		int r;

		r = cfs_eval_read(ev, expr->children[k], first * in, s->raw,
				  n * in, false);
		if (r < 0)
			return r;
		cfs_dtype_cast(expr->from, s->raw, CFS_F64, s->term, n);
		/* not 0 + …: a sum of negative zeros is one */
		for (uint64_t i = 0; i < n; i++)
			s->sum[i] = k ? s->sum[i] + weight * s->term[i]
				      : weight * s->term[i];
	}
	return 0;
}

static int linear_elements(struct cfs_eval *ev, const struct cfs_expr *expr,
			   uint64_t first, uint64_t n, uint8_t *buf)
{
	_cleanup_(sums_fini) struct sums s = {NULL, NULL, NULL};
	uint64_t out = cfs_dtype_size(expr->to);
	uint64_t batch = CFS_MIN(n, BATCH_BYTES / sizeof(double));

	s.raw = malloc((size_t)batch * cfs_dtype_size(expr->from));
	s.term = malloc((size_t)batch * sizeof(double));
	s.sum = malloc((size_t)batch * sizeof(double));
	if (!s.raw || !s.term || !s.sum)
		return -ENOMEM;
	for (uint64_t i = 0, m; i < n; i += m) {
		int r;

		m = CFS_MIN(batch, n - i);
		r = sum_batch(ev, expr, first + i, m, &s);
		if (r < 0)
			return r;
		cfs_dtype_cast(CFS_F64, s.sum, expr->to, buf + i * out, m);
	}
	return 0;
}

/* @off and @len in whole elements of a cast or linear. */
static int compute_elements(struct cfs_eval *ev, const struct cfs_expr *expr,
			    uint64_t off, uint8_t *buf, uint64_t len)
{
	uint64_t out = cfs_dtype_size(expr->to);

	if (expr->kind == CFS_SEG_CAST)
		return cast_elements(ev, expr, off / out, len / out, buf);
	return linear_elements(ev, expr, off / out, len / out, buf);
}

/* Any bytes: elements cut by the ends are computed whole, aside. */
static int compute(struct cfs_eval *ev, const struct cfs_expr *expr,
		   uint64_t off, uint8_t *buf, uint64_t len)
{
	_cleanup_(cfs_freep) uint8_t *whole = NULL;
	uint64_t out, lo, hi;
	int r;

	if (expr->kind == CFS_SEG_GATHER)
		return cfs_eval_gather(ev, expr, off, buf, len);
	out = cfs_dtype_size(expr->to);
	lo = off / out * out;
	hi = (off + len + out - 1) / out * out;
	if (lo == off && hi == off + len)
		return compute_elements(ev, expr, off, buf, len);
	whole = malloc((size_t)(hi - lo));
	if (!whole)
		return -ENOMEM;
	r = compute_elements(ev, expr, lo, whole, hi - lo);
	if (r < 0)
		return r;
	memcpy(buf, whole + (off - lo), (size_t)len);
	return 0;
}

struct block_arg {
	const struct cfs_eval *ev;
	const struct cfs_expr *expr;
	uint64_t off;
};

/* A block is checked before anybody can see it, so it has a list of its own. */
static int compute_block(void *arg, uint8_t *data, size_t len)
{
	const struct block_arg *a = arg;
	struct cfs_eval ev = {.files = a->ev->files, .cache = a->ev->cache};
	int r;

	r = compute(&ev, a->expr, a->off, data, len);
	return r < 0 ? r : cfs_eval_check(&ev);
}

static int read_block(struct cfs_eval *ev, const struct cfs_expr *expr,
		      uint64_t index, uint64_t skip, uint8_t *buf, uint64_t len)
{
	struct block_arg a = {ev, expr, index * BLOCK_BYTES};
	uint64_t size = CFS_MIN(expr->len - a.off, BLOCK_BYTES);
	struct cfs_block *block;
	int r;

	r = cfs_blockcache_get(ev->cache, expr->id, index, (size_t)size,
			       compute_block, &a, &block);
	if (r < 0)
		return r;
	memcpy(buf, cfs_blockcache_data(block) + skip, (size_t)len);
	cfs_blockcache_put(ev->cache, block);
	return 0;
}

/*
 * Worth keeping?  Long runs are not: they cost what a range costs, and what
 * they are taken from is in the kernel's cache or in ours.
 */
static bool cacheable(const struct cfs_expr *expr)
{
	return expr->kind != CFS_SEG_GATHER ||
	       expr->box->run < DIRECT_RUN_BYTES;
}

/* In steps of a block either way: that bounds the memory in use. */
static int read_expr(struct cfs_eval *ev, const struct cfs_expr *expr,
		     uint64_t off, uint8_t *buf, uint64_t len, bool cached)
{
	cached = cached && ev->cache && cacheable(expr);
	while (len) {
		uint64_t index = off / BLOCK_BYTES, skip = off % BLOCK_BYTES;
		uint64_t n = CFS_MIN(len, BLOCK_BYTES - skip);
		int r;

		if (cached)
			r = read_block(ev, expr, index, skip, buf, n);
		else
			r = compute(ev, expr, off, buf, n);
		if (r < 0)
			return r;
		off += n;
		buf += n;
		len -= n;
	}
	return 0;
}

int cfs_eval_read(struct cfs_eval *ev, const struct cfs_map *map, uint64_t off,
		  uint8_t *buf, uint64_t len, bool cached)
{
	for (uint32_t i = len ? cfs_map_find(map, off) : 0; len; i++) {
		const struct cfs_seg *seg = &map->segs[i];
		uint64_t skip = off - seg->off, pos = seg->pos + skip;
		uint64_t n = CFS_MIN(len, cfs_map_seg_len(map, i) - skip);
		int r = 0;

		if (seg->kind == CFS_SEG_LITERAL)
			memcpy(buf, map->literals + pos, (size_t)n);
		else if (seg->kind == CFS_SEG_ZERO)
			memset(buf, 0, (size_t)n);
		else if (seg->kind == CFS_SEG_RANGE)
			r = read_range(ev, seg->ref, pos, buf, n);
		else
			r = read_expr(ev, map->exprs[seg->ref], pos, buf, n,
				      cached);
		if (r < 0)
			return r;
		off += n;
		buf += n;
		len -= n;
	}
	return 0;
}

static void advise_range(struct cfs_file *file, uint64_t off, uint64_t len)
{
	file->ops->advise(file, off, len);
}

static void advise_expr(const struct cfs_eval_files *files,
			const struct cfs_expr *expr, uint64_t off, uint64_t len)
{
	uint64_t start, end;

	if (expr->kind == CFS_SEG_GATHER) {
		cfs_eval_gather_span(expr, off, len, &start, &end);
		if (end <= start || (end - start) / 4 > len)
			return; /* scattered: reading it all would not pay */
	} else {
		uint64_t in = cfs_dtype_size(expr->from);
		uint64_t out = cfs_dtype_size(expr->to);

		start = off / out * in;
		end = (off + len + out - 1) / out * in;
	}
	for (uint32_t i = 0; i < expr->n_children; i++)
		cfs_eval_advise(files, expr->children[i], start, end - start);
}

void cfs_eval_advise(const struct cfs_eval_files *files,
		     const struct cfs_map *map, uint64_t off, uint64_t len)
{
	for (uint32_t i = len ? cfs_map_find(map, off) : 0; len; i++) {
		const struct cfs_seg *seg = &map->segs[i];
		uint64_t skip = off - seg->off, pos = seg->pos + skip;
		uint64_t n = CFS_MIN(len, cfs_map_seg_len(map, i) - skip);

		if (seg->kind == CFS_SEG_RANGE && n >= ADVISE_MIN_BYTES)
			advise_range(file_of(files, seg->ref), pos, n);
		else if (seg->kind >= CFS_SEG_GATHER)
			advise_expr(files, map->exprs[seg->ref], pos, n);
		off += n;
		len -= n;
	}
}
