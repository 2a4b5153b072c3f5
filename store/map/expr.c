/* What computed segments are computed from: checked once, then immutable. */
#include "store/map/map_internal.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "store/util/checked.h"

static atomic_uint_fast64_t next_id = 1;

struct cfs_expr *cfs_expr_ref(struct cfs_expr *expr)
{
	/* relaxed: whoever takes a reference holds one already */
	(void)atomic_fetch_add_explicit(&expr->refs, 1, memory_order_relaxed);
	return expr;
}

void cfs_expr_unref(struct cfs_expr *expr)
{
	/* acq_rel: the last one must see what the others did */
	if (!expr || atomic_fetch_sub_explicit(&expr->refs, 1,
					       memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < expr->n_children; i++)
		cfs_map_unref(expr->children[i]);
	free(expr->children);
	free(expr->weights);
	free(expr->box);
	free(expr);
}

void cfs_expr_unrefp(struct cfs_expr **expr)
{
	cfs_expr_unref(*expr);
}

static int children_check(struct cfs_map *const *children, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		cfs_map_seal(children[i]);
		if (children[i]->depth >= CFS_MAP_DEPTH_MAX ||
		    children[i]->tab != children[0]->tab ||
		    children[i]->size != children[0]->size)
			return -EINVAL;
	}
	return 0;
}

static int expr_new(enum cfs_segment_kind kind, struct cfs_map *const *children,
		    uint32_t n, uint64_t len, struct cfs_expr **expr_out)
{
	_cleanup_(cfs_expr_unrefp) struct cfs_expr *expr = NULL;
	int r;

	r = children_check(children, n);
	if (r < 0)
		return r;
	expr = calloc(1, sizeof(*expr));
	if (!expr)
		return -ENOMEM;
	atomic_init(&expr->refs, 1);
	expr->children = calloc(n, sizeof(struct cfs_map *));
	if (!expr->children)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		expr->children[i] = cfs_map_ref(children[i]);
	expr->n_children = n;
	expr->kind = kind;
	expr->len = len;
	/* relaxed: only that no two are equal */
	expr->id = atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
	*expr_out = cfs_steal(expr);
	return 0;
}

/* Bytes that @in bytes of @from take as @to. */
static int cast_len(uint64_t in, enum cfs_dtype from, enum cfs_dtype to,
		    uint64_t *len_out)
{
	if (!cfs_dtype_is_float(from) || !cfs_dtype_is_float(to) ||
	    in % cfs_dtype_size(from))
		return -EINVAL;
	if (!cfs_mul_u64(in / cfs_dtype_size(from), cfs_dtype_size(to),
			 len_out) ||
	    *len_out > CFS_MAP_SIZE_MAX)
		return -EOVERFLOW;
	return 0;
}

int cfs_expr_cast(struct cfs_map *child, enum cfs_dtype from, enum cfs_dtype to,
		  struct cfs_expr **expr_out)
{
	uint64_t len;
	int r;

	r = cast_len(child->size, from, to, &len);
	if (r < 0)
		return r;
	r = expr_new(CFS_SEG_CAST, &child, 1, len, expr_out);
	if (r < 0)
		return r;
	(*expr_out)->from = from;
	(*expr_out)->to = to;
	return 0;
}

int cfs_expr_linear(struct cfs_map *const *children, const double *weights,
		    uint32_t n, enum cfs_dtype from, enum cfs_dtype to,
		    struct cfs_expr **expr_out)
{
	_cleanup_(cfs_expr_unrefp) struct cfs_expr *expr = NULL;
	uint64_t len;
	int r;

	if (!n)
		return -EINVAL;
	for (uint32_t i = 0; i < n; i++)
		if (!isfinite(weights[i]))
			return -EINVAL;
	r = cast_len(children[0]->size, from, to, &len);
	if (r < 0)
		return r;
	r = expr_new(CFS_SEG_LINEAR, children, n, len, &expr);
	if (r < 0)
		return r;
	expr->weights = malloc(n * sizeof(*weights));
	if (!expr->weights)
		return -ENOMEM;
	memcpy(expr->weights, weights, n * sizeof(*weights));
	expr->from = from;
	expr->to = to;
	*expr_out = cfs_steal(expr);
	return 0;
}

static void box_drop(struct cfs_gather *box, uint32_t dim)
{
	for (uint32_t i = dim; i + 1 < box->ndim; i++) {
		box->shape[i] = box->shape[i + 1];
		box->stride[i] = box->stride[i + 1];
	}
	box->ndim--;
}

/* No overflow can happen here: all sums lie inside the child by now. */
static void box_simplify(struct cfs_gather *box)
{
	uint32_t i;

	for (i = box->ndim; i-- > 0;)
		if (box->shape[i] == 1)
			box_drop(box, i);
	while (box->ndim && box->stride[box->ndim - 1] == box->run) {
		box->run *= box->shape[box->ndim - 1];
		box->ndim--;
	}
	for (i = box->ndim; i-- > 1;) {
		uint64_t inner;

		if (!cfs_mul_u64(box->stride[i], box->shape[i], &inner) ||
		    box->stride[i - 1] != inner ||
		    !cfs_mul_u64(box->shape[i - 1], box->shape[i], &inner))
			continue;
		box->shape[i] = inner;
		box_drop(box, i - 1);
	}
}

int cfs_expr_box(struct cfs_gather *box, uint64_t child_size, uint64_t *len_out)
{
	uint64_t len = box->run, end, reach;

	for (uint32_t i = 0; i < box->ndim; i++)
		if (!box->shape[i])
			len = 0;
	if (!len) {
		*len_out = 0;
		return 0;
	}
	if (!cfs_add_u64(box->base, box->run, &end))
		return -EINVAL;
	for (uint32_t i = 0; i < box->ndim; i++) {
		if (!cfs_mul_u64(len, box->shape[i], &len) ||
		    len > CFS_MAP_SIZE_MAX)
			return -EOVERFLOW;
		if (!cfs_mul_u64(box->shape[i] - 1, box->stride[i], &reach) ||
		    !cfs_add_u64(end, reach, &end))
			return -EINVAL;
	}
	if (end > child_size)
		return -EINVAL;
	box_simplify(box);
	*len_out = len;
	return 0;
}

int cfs_expr_gather(struct cfs_map *child, const struct cfs_gather *box,
		    uint64_t len, struct cfs_expr **expr_out)
{
	_cleanup_(cfs_expr_unrefp) struct cfs_expr *expr = NULL;
	int r;

	r = expr_new(CFS_SEG_GATHER, &child, 1, len, &expr);
	if (r < 0)
		return r;
	expr->box = malloc(sizeof(*box));
	if (!expr->box)
		return -ENOMEM;
	*expr->box = *box;
	*expr_out = cfs_steal(expr);
	return 0;
}

size_t cfs_expr_memory_bytes(const struct cfs_expr *expr)
{
	size_t n = sizeof(*expr) + expr->n_children * sizeof(struct cfs_map *);

	if (expr->box)
		n += sizeof(*expr->box);
	if (expr->weights)
		n += expr->n_children * sizeof(*expr->weights);
	for (uint32_t i = 0; i < expr->n_children; i++)
		n += cfs_map_memory_bytes(expr->children[i]);
	return n;
}
