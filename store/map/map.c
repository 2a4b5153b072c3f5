/* Building and looking up maps: map.h. */
#include "store/map/map_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/checked.h"

struct cfs_map *cfs_map_new(struct cfs_filetab *tab)
{
	struct cfs_map *map = calloc(1, sizeof(*map));

	if (!map)
		return NULL;
	atomic_init(&map->refs, 1);
	map->tab = cfs_filetab_ref(tab);
	return map;
}

struct cfs_map *cfs_map_ref(struct cfs_map *map)
{
	/* relaxed: whoever takes a reference holds one already */
	(void)atomic_fetch_add_explicit(&map->refs, 1, memory_order_relaxed);
	return map;
}

void cfs_map_unref(struct cfs_map *map)
{
	/* acq_rel: the last one must see what the others did */
	if (!map ||
	    atomic_fetch_sub_explicit(&map->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < map->n_exprs; i++)
		cfs_expr_unref(map->exprs[i]);
	free(map->exprs);
	free(map->segs);
	free(map->literals);
	free(map->files);
	cfs_filetab_unref(map->tab);
	free(map);
}

void cfs_map_unrefp(struct cfs_map **map)
{
	cfs_map_unref(*map);
}

int cfs_map_reserve(void *array, uint32_t *cap, uint64_t need, size_t item)
{
	uint64_t want = *cap;
	void *old, *grown;

	if (need <= *cap)
		return 0;
	if (need > UINT32_MAX)
		return -EOVERFLOW;
	while (want < need)
		want = want ? want * 2 : 2;
	want = CFS_MIN(want, (uint64_t)UINT32_MAX);
	memcpy(&old, array, sizeof(old));
	grown = realloc(old, (size_t)want * item);
	if (!grown)
		return -ENOMEM;
	memcpy(array, &grown, sizeof(grown));
	*cap = (uint32_t)want;
	return 0;
}

static struct cfs_seg *last_seg(struct cfs_map *map)
{
	return map->n_segs ? &map->segs[map->n_segs - 1] : NULL;
}

uint64_t cfs_map_seg_len(const struct cfs_map *map, uint32_t index)
{
	uint64_t end =
		index + 1 < map->n_segs ? map->segs[index + 1].off : map->size;

	return end - map->segs[index].off;
}

/* Makes the map @len longer: by the last segment if that goes on, or anew. */
static int append(struct cfs_map *map, enum cfs_segment_kind kind, uint32_t ref,
		  uint64_t pos, uint64_t len)
{
	struct cfs_seg *last = last_seg(map);
	int r;

	assert(!map->sealed);
	if (len > CFS_MAP_SIZE_MAX - map->size)
		return -EOVERFLOW;
	if (last && last->kind == kind && last->ref == ref &&
	    (kind == CFS_SEG_ZERO ||
	     last->pos + (map->size - last->off) == pos)) {
		map->size += len;
		return 0;
	}
	r = cfs_map_reserve(&map->segs, &map->cap_segs,
			    (uint64_t)map->n_segs + 1, sizeof(*map->segs));
	if (r < 0)
		return r;
	assert(map->segs);
	map->segs[map->n_segs++] = (struct cfs_seg){
		.off = map->size, .pos = pos, .ref = ref, .kind = kind};
	map->size += len;
	return 0;
}

static int literals_reserve(struct cfs_map *map, size_t more)
{
	size_t need, cap;
	uint8_t *grown;

	if (more > SIZE_MAX / 4 - map->n_literals)
		return -EOVERFLOW;
	need = map->n_literals + more;
	if (need <= map->cap_literals)
		return 0;
	cap = CFS_MAX(need, map->cap_literals * 2);
	grown = realloc(map->literals, cap);
	if (!grown)
		return -ENOMEM;
	map->literals = grown;
	map->cap_literals = cap;
	return 0;
}

int cfs_map_add_literal(struct cfs_map *map, const void *data, size_t len)
{
	int r;

	if (!len)
		return 0;
	r = literals_reserve(map, len);
	if (r < 0)
		return r;
	memcpy(map->literals + map->n_literals, data, len);
	r = append(map, CFS_SEG_LITERAL, 0, map->n_literals, len);
	if (r < 0)
		return r;
	map->n_literals += len;
	return 0;
}

int cfs_map_add_zero(struct cfs_map *map, uint64_t len)
{
	return len ? append(map, CFS_SEG_ZERO, 0, 0, len) : 0;
}

static int use_file(struct cfs_map *map, uint32_t file)
{
	uint32_t lo = 0, hi = map->n_files;
	int r;

	if (hi && map->files[hi - 1] < file)
		lo = hi; /* the usual order */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (map->files[mid] < file)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < map->n_files && map->files[lo] == file)
		return 0;
	r = cfs_map_reserve(&map->files, &map->cap_files,
			    (uint64_t)map->n_files + 1, sizeof(*map->files));
	if (r < 0)
		return r;
	memmove(map->files + lo + 1, map->files + lo,
		(map->n_files - lo) * sizeof(*map->files));
	map->files[lo] = file;
	map->n_files++;
	return 0;
}

int cfs_map_add_range(struct cfs_map *map, uint32_t file, uint64_t off,
		      uint64_t len)
{
	int r;

	if (!len)
		return 0;
	if (off > CFS_MAP_SIZE_MAX || len > CFS_MAP_SIZE_MAX - off)
		return -EOVERFLOW;
	if (file >= cfs_filetab_count(map->tab))
		return -EINVAL;
	r = use_file(map, file);
	return r < 0 ? r : append(map, CFS_SEG_RANGE, file, off, len);
}

/* The index of @expr, which comes in runs: only the last one is compared. */
static int expr_index(struct cfs_map *map, struct cfs_expr *expr,
		      uint32_t *index_out)
{
	int r;

	if (map->n_exprs && map->exprs[map->n_exprs - 1] == expr) {
		*index_out = map->n_exprs - 1;
		return 0;
	}
	r = cfs_map_reserve(&map->exprs, &map->cap_exprs,
			    (uint64_t)map->n_exprs + 1,
			    sizeof(struct cfs_expr *));
	if (r < 0)
		return r;
	*index_out = map->n_exprs;
	map->exprs[map->n_exprs++] = cfs_expr_ref(expr);
	return 0;
}

int cfs_map_add_expr(struct cfs_map *map, struct cfs_expr *expr, uint64_t skip,
		     uint64_t len)
{
	uint32_t index;
	int r;

	assert(cfs_range_ok(skip, len, expr->len));
	if (!len)
		return 0;
	for (uint32_t i = 0; i < expr->n_children; i++) {
		const struct cfs_map *child = expr->children[i];

		if (child->tab != map->tab)
			return -EINVAL;
		map->depth = CFS_MAX(map->depth, child->depth + 1);
		for (uint32_t k = 0; k < child->n_files; k++) {
			r = use_file(map, child->files[k]);
			if (r < 0)
				return r;
		}
	}
	r = expr_index(map, expr, &index);
	return r < 0 ? r : append(map, expr->kind, index, skip, len);
}

int cfs_map_add_slice(struct cfs_map *map, const struct cfs_map *src,
		      uint64_t off, uint64_t len)
{
	assert(map != src);
	if (src->tab != map->tab || !cfs_range_ok(off, len, src->size))
		return -EINVAL;
	for (uint32_t i = len ? cfs_map_find(src, off) : 0; len; i++) {
		const struct cfs_seg *seg = &src->segs[i];
		uint64_t skip = off - seg->off, pos = seg->pos + skip;
		uint64_t n = CFS_MIN(len, cfs_map_seg_len(src, i) - skip);
		int r;

		if (seg->kind == CFS_SEG_LITERAL)
			r = cfs_map_add_literal(map, src->literals + pos,
						(size_t)n);
		else if (seg->kind == CFS_SEG_ZERO)
			r = cfs_map_add_zero(map, n);
		else if (seg->kind == CFS_SEG_RANGE)
			r = cfs_map_add_range(map, seg->ref, pos, n);
		else
			r = cfs_map_add_expr(map, src->exprs[seg->ref], pos, n);
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

int cfs_map_add_map(struct cfs_map *map, const struct cfs_map *src)
{
	return cfs_map_add_slice(map, src, 0, src->size);
}

/* Appends the whole of @expr and gives up the caller's reference. */
static int add_whole(struct cfs_map *map, struct cfs_expr *expr)
{
	_cleanup_(cfs_expr_unrefp) struct cfs_expr *n = expr;

	return cfs_map_add_expr(map, n, 0, n->len);
}

int cfs_map_add_cast(struct cfs_map *map, struct cfs_map *child,
		     enum cfs_dtype from, enum cfs_dtype to)
{
	struct cfs_expr *expr;
	int r;

	r = cfs_expr_cast(child, from, to, &expr);
	if (r < 0)
		return r;
	if (from == to || !child->size) {
		cfs_expr_unref(expr); /* was made for its checks */
		return cfs_map_add_map(map, child);
	}
	return add_whole(map, expr);
}

int cfs_map_add_gather(struct cfs_map *map, struct cfs_map *child,
		       uint32_t elem_size, uint32_t ndim, const uint64_t *shape,
		       const uint64_t *stride_bytes, uint64_t base)
{
	struct cfs_gather box = {.base = base, .run = elem_size, .ndim = ndim};
	struct cfs_expr *expr;
	uint64_t len;
	int r;

	if (!elem_size || elem_size > 16 || ndim > CFS_GATHER_DIMS_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < ndim; i++) {
		box.shape[i] = shape[i];
		box.stride[i] = stride_bytes[i];
	}
	cfs_map_seal(child);
	r = cfs_expr_box(&box, child->size, &len);
	if (r < 0 || !len)
		return r;
	if (!box.ndim)
		return cfs_map_add_slice(map, child, box.base, box.run);
	r = cfs_expr_gather(child, &box, len, &expr);
	return r < 0 ? r : add_whole(map, expr);
}

int cfs_map_add_linear(struct cfs_map *map, struct cfs_map *const *children,
		       const double *weights, uint32_t n, enum cfs_dtype from,
		       enum cfs_dtype to)
{
	struct cfs_expr *expr;
	int r;

	if (n == 1 && !(weights[0] < 1) && !(weights[0] > 1))
		return cfs_map_add_cast(map, children[0], from, to);
	r = cfs_expr_linear(children, weights, n, from, to, &expr);
	return r < 0 ? r : add_whole(map, expr);
}

static void shrink(void *array, uint32_t *cap, uint32_t n, size_t item)
{
	void *old, *smaller;

	if (*cap == n || !n)
		return;
	memcpy(&old, array, sizeof(old));
	smaller = realloc(old, n * item);
	if (!smaller)
		return; /* the slack stays */
	memcpy(array, &smaller, sizeof(smaller));
	*cap = n;
}

void cfs_map_seal(struct cfs_map *map)
{
	uint8_t *p;

	if (map->sealed)
		return;
	shrink(&map->segs, &map->cap_segs, map->n_segs, sizeof(*map->segs));
	shrink(&map->exprs, &map->cap_exprs, map->n_exprs,
	       sizeof(struct cfs_expr *));
	shrink(&map->files, &map->cap_files, map->n_files, sizeof(*map->files));
	p = map->n_literals ? realloc(map->literals, map->n_literals) : NULL;
	if (p) {
		map->literals = p;
		map->cap_literals = map->n_literals;
	}
	map->sealed = true;
}

uint64_t cfs_map_size(const struct cfs_map *map)
{
	return map->size;
}

struct cfs_filetab *cfs_map_filetab(const struct cfs_map *map)
{
	return map->tab;
}

size_t cfs_map_memory_bytes(const struct cfs_map *map)
{
	size_t n = sizeof(*map) + map->cap_segs * sizeof(*map->segs) +
		   map->cap_exprs * sizeof(struct cfs_expr *) +
		   map->cap_files * sizeof(*map->files) + map->cap_literals;

	for (uint32_t i = 0; i < map->n_exprs; i++)
		n += cfs_expr_memory_bytes(map->exprs[i]);
	return n;
}

uint32_t cfs_map_count(const struct cfs_map *map)
{
	return map->n_segs;
}

void cfs_map_segment(const struct cfs_map *map, uint32_t index,
		     struct cfs_segment *out)
{
	const struct cfs_seg *seg = &map->segs[index];

	assert(index < map->n_segs);
	*out = (struct cfs_segment){
		.kind = seg->kind,
		.off = seg->off,
		.len = cfs_map_seg_len(map, index),
	};
	if (seg->kind == CFS_SEG_LITERAL) {
		out->literal = map->literals + seg->pos;
	} else if (seg->kind == CFS_SEG_RANGE) {
		out->file = seg->ref;
		out->file_off = seg->pos;
	} else if (seg->kind != CFS_SEG_ZERO) {
		const struct cfs_expr *expr = map->exprs[seg->ref];

		out->child = expr->children[0];
		out->n_children = expr->n_children;
		out->from = expr->from;
		out->to = expr->to;
		out->skip = seg->pos;
	}
}

uint32_t cfs_map_find(const struct cfs_map *map, uint64_t off)
{
	uint32_t lo = 0, hi = map->n_segs;

	assert(off < map->size);
	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (map->segs[mid].off <= off)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

int cfs_map_each_file(const struct cfs_map *map,
		      int (*fn)(void *arg, uint32_t file), void *arg)
{
	for (uint32_t i = 0; i < map->n_files; i++) {
		int r = fn(arg, map->files[i]);

		if (r)
			return r;
	}
	return 0;
}
