#include "fs/container/pickle_plan.h"

#include <errno.h>

#include "store/util/error.h"
#include "store/util/grow.h"

struct frame {
	const struct cfs_node *node;
	size_t number, next;
};

struct walk {
	struct cfs_pickle_plan *plan;
	const struct cfs_pickle_persid_ops *persid;
	struct frame *stack;
	size_t n, cap;
};

void cfs_pickle_plan_free(struct cfs_pickle_plan *plan)
{
	cfs_u64map_free(&plan->numbers);
	free(plan->nodes);
}

/* Python never memoises these, and two of them are as good as one. */
static bool is_atom(const struct cfs_node *node)
{
	switch (node->kind) {
	case CFS_NODE_NONE:
	case CFS_NODE_BOOL:
	case CFS_NODE_INT:
	case CFS_NODE_BIGINT:
	case CFS_NODE_FLOAT:
		return true;
	case CFS_NODE_TUPLE:
		return !node->n;
	default:
		return false;
	}
}

struct cfs_pickle_plan_node *
cfs_pickle_plan_find(const struct cfs_pickle_plan *plan,
		     const struct cfs_node *node)
{
	const uint64_t *at =
		is_atom(node)
			? NULL
			: cfs_u64map_find(&plan->numbers, cfs_u64map_of(node));

	return at ? &plan->nodes[*at - 1] : NULL;
}

static int add_node(struct cfs_pickle_plan *plan, const struct cfs_node *node)
{
	if (!CFS_GROW(plan->nodes, plan->n, plan->cap))
		return -ENOMEM;
	plan->nodes[plan->n++] = (struct cfs_pickle_plan_node){.refs = 1};
	return cfs_u64map_put(&plan->numbers, cfs_u64map_of(node), plan->n)
		       ? 0
		       : -ENOMEM;
}

static int push(struct walk *w, const struct cfs_node *node)
{
	const size_t number = w->plan->n - 1;

	if (!CFS_GROW(w->stack, w->n, w->cap))
		return -ENOMEM;
	w->stack[w->n++] = (struct frame){node, number, 0};
	w->plan->nodes[number].on_path = true;
	return 0;
}

static int visit(struct walk *w, const struct cfs_node *node)
{
	struct cfs_pickle_plan_node *known;
	struct cfs_node *id = NULL;
	int r;

	if (is_atom(node))
		return 0;
	known = cfs_pickle_plan_find(w->plan, node);
	if (known) {
		known->refs = 2;
		if (known->on_path)
			w->plan->cyclic = true;
		return 0;
	}
	r = add_node(w->plan, node);
	if (r < 0)
		return r;
	if (node->kind == CFS_NODE_PERSID) {
		id = node->u.persid.id;
		if (w->persid) {
			r = w->persid->id(w->persid->arg, node, &id);
			if (r < 0)
				return r;
		}
		w->plan->nodes[w->plan->n - 1].id = id;
	}
	return cfs_node_slots(node) ? push(w, node) : 0;
}

static int walk(struct walk *w, const struct cfs_node *root)
{
	int r = visit(w, root);

	while (!r && w->n) {
		struct frame *f = &w->stack[w->n - 1];
		const struct cfs_node *child;

		if (f->next == cfs_node_slots(f->node)) {
			w->plan->nodes[f->number].on_path = false;
			w->n--;
			continue;
		}
		child = f->node->kind == CFS_NODE_PERSID
				? w->plan->nodes[f->number].id
				: cfs_node_slot(f->node, f->next);
		f->next++;
		if (child)
			r = visit(w, child);
	}
	return r;
}

int cfs_pickle_plan(struct cfs_pickle_plan *plan, const struct cfs_node *root,
		    const struct cfs_pickle_persid_ops *persid,
		    struct cfs_error *err)
{
	struct walk w = {.plan = plan, .persid = persid};
	int r = walk(&w, root);

	free(w.stack);
	return r == -ENOMEM ? cfs_fail(err, r, "pickle: out of memory") : r;
}
