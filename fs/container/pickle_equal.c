/*
 * Are two trees equal?  Nodes already found to have to be equal are joined
 * into classes (union-find); a pair within one class is not looked at again.
 * At most as many joins as nodes can happen, so cycles and shared nodes cost
 * no more than the nodes there are.
 */
#include <string.h>

#include "fs/container/pickle_internal.h"

#include "store/util/grow.h"

struct pair {
	const struct cfs_node *a, *b;
};

struct comparison {
	struct cfs_u64map parent; /* node -> node nearer to its class's head */
	struct pair *stack;
	size_t n, cap;
};

static bool push(struct comparison *c, const struct cfs_node *a,
		 const struct cfs_node *b)
{
	if (a == b)
		return true;
	if (!a || !b)
		return false;
	if (!CFS_GROW(c->stack, c->n, c->cap))
		return false;
	c->stack[c->n++] = (struct pair){a, b};
	return true;
}

static uint64_t head(const struct comparison *c, uint64_t node)
{
	uint64_t *at, *up;

	while ((at = cfs_u64map_find(&c->parent, node))) {
		up = cfs_u64map_find(&c->parent, *at);
		if (up)
			*at = *up; /* halves the way for the next time */
		node = *at;
	}
	return node;
}

/* 1: were in one class, 0: are now, -1: out of memory */
static int join(struct comparison *c, const struct pair *p)
{
	const uint64_t a = head(c, cfs_u64map_of(p->a));
	const uint64_t b = head(c, cfs_u64map_of(p->b));

	if (a == b)
		return 1;
	return cfs_u64map_put(&c->parent, a, b) ? 0 : -1;
}

static bool same_real(double a, double b)
{
	uint64_t x, y;

	memcpy(&x, &a, sizeof(x));
	memcpy(&y, &b, sizeof(y));
	return x == y || (a != a && b != b);
}

static bool same_object(const struct cfs_node_object *a,
			const struct cfs_node_object *b)
{
	if (a->call != b->call || a->n_ops != b->n_ops)
		return false;
	for (uint32_t i = 0; i < a->n_ops; i++) {
		if (a->ops[i].kind != b->ops[i].kind)
			return false;
	}
	return true;
}

/* Everything but the children. */
static bool same_shell(const struct cfs_node *a, const struct cfs_node *b)
{
	if (a->kind != b->kind)
		return false;
	switch (a->kind) {
	case CFS_NODE_NONE:
	case CFS_NODE_PERSID:
		return true;
	case CFS_NODE_BOOL:
		return a->u.boolean == b->u.boolean;
	case CFS_NODE_INT:
		return a->u.integer == b->u.integer;
	case CFS_NODE_FLOAT:
		return same_real(a->u.real, b->u.real);
	case CFS_NODE_STR:
	case CFS_NODE_BYTES:
	case CFS_NODE_BYTEARRAY:
	case CFS_NODE_BIGINT:
		return a->u.str.len == b->u.str.len &&
		       !memcmp(a->u.str.data, b->u.str.data, a->u.str.len);
	case CFS_NODE_GLOBAL:
		return cfs_node_is_global(a, b->u.global.module,
					  b->u.global.name);
	case CFS_NODE_OBJECT:
		return same_object(a->u.object, b->u.object);
	case CFS_NODE_LIST:
	case CFS_NODE_TUPLE:
	case CFS_NODE_DICT:
	case CFS_NODE_SET:
	case CFS_NODE_FROZENSET:
		break;
	}
	return a->n == b->n;
}

static bool step(struct comparison *c, const struct pair *p)
{
	const struct cfs_node *a = p->a, *b = p->b;
	int r;

	if (!same_shell(a, b))
		return false;
	if (!cfs_node_slots(a))
		return true;
	if (a->kind == CFS_NODE_PERSID &&
	    (a->u.persid.storage || b->u.persid.storage))
		return a->u.persid.storage == b->u.persid.storage;
	r = join(c, p);
	if (r)
		return r > 0;
	for (size_t i = 0; i < cfs_node_slots(a); i++) {
		if (!push(c, cfs_node_slot(a, i), cfs_node_slot(b, i)))
			return false;
	}
	return true;
}

bool cfs_node_equal(const struct cfs_node *a, const struct cfs_node *b)
{
	struct comparison c = {.parent = CFS_U64MAP_INIT};
	bool equal = push(&c, a, b);

	while (equal && c.n) {
		const struct pair p = c.stack[--c.n];

		equal = step(&c, &p);
	}
	cfs_u64map_free(&c.parent);
	free(c.stack);
	return equal;
}
