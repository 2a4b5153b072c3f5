/* Walks pickle trees; a hostile one (cycles, shared bushes) ends in limits. */
#include "fs/cli/nodes.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/cli/text.h"
#include "fs/container/pickle.h"
#include "fs/container/torchfile.h"
#include "store/util/buf.h"

#define DEPTH_MAX 200
#define VISIT_MAX 10000000u
#define KEY_MAX	  200

static void put_key(struct cfs_buf *out, const struct cfs_node *key)
{
	if (key->kind == CFS_NODE_STR)
		cfs_text_safe(out, key->u.str.data,
			      CFS_MIN(key->u.str.len, KEY_MAX));
	else
		(void)cfs_nodes_repr(key, KEY_MAX, out);
}

static const struct cfs_node *pair_value(const struct cfs_node *map, size_t i,
					 struct cfs_buf *label)
{
	struct cfs_node *key, *value;

	cfs_map_node_pair(map, (uint32_t)i, &key, &value);
	put_key(label, key);
	return value;
}

/* The dict of attributes in an object's state: itself, or a (dict, slots). */
static const struct cfs_node *state_dict(const struct cfs_node *state)
{
	if (state->kind == CFS_NODE_TUPLE && state->n == 2 &&
	    state->u.items[0]->kind == CFS_NODE_DICT)
		return state->u.items[0];
	return state->kind == CFS_NODE_DICT ? state : NULL;
}

static size_t op_count(const struct cfs_node_op *op)
{
	const struct cfs_node *dict;

	if (op->kind != CFS_OP_BUILD)
		return 1;
	dict = state_dict(op->a);
	return dict ? dict->n : 1;
}

static const struct cfs_node *op_child(const struct cfs_node_op *op, size_t i,
				       size_t index, struct cfs_buf *label)
{
	const struct cfs_node *dict;

	switch (op->kind) {
	case CFS_OP_SETITEM:
		put_key(label, op->a);
		return op->b;
	case CFS_OP_BUILD:
		dict = state_dict(op->a);
		if (dict)
			return pair_value(dict, i, label);
		cfs_buf_put_str(label, "state");
		return op->a;
	case CFS_OP_APPEND:
	case CFS_OP_ADD:
		break;
	}
	cfs_buf_printf(label, "%zu", index);
	return op->a;
}

static const struct cfs_node *object_child(const struct cfs_node *node,
					   size_t i, struct cfs_buf *label)
{
	const struct cfs_node_object *o = node->u.object;
	size_t index = i;
	uint32_t k;

	for (k = 0; k < o->n_ops; k++) {
		size_t n = op_count(&o->ops[k]);

		if (i < n)
			return op_child(&o->ops[k], i, index, label);
		i -= n;
	}
	return NULL;
}

const struct cfs_node *cfs_nodes_child(const struct cfs_node *node, size_t i,
				       struct cfs_buf *label)
{
	switch (node->kind) {
	case CFS_NODE_LIST:
	case CFS_NODE_TUPLE:
	case CFS_NODE_SET:
	case CFS_NODE_FROZENSET:
		if (i >= node->n)
			return NULL;
		cfs_buf_printf(label, "%zu", i);
		return node->u.items[i];
	case CFS_NODE_DICT:
		return i < node->n ? pair_value(node, i, label) : NULL;
	case CFS_NODE_OBJECT:
		if (cfs_torch_is_tensor(node))
			return NULL;
		return object_child(node, i, label);
	default:
		return NULL;
	}
}

/* ---- values in words ---- */

struct repr {
	struct cfs_buf *out;
	size_t end; /* of @out: nothing more is begun beyond */
	int depth;
	bool cut;
};

static void repr_node(struct repr *p, const struct cfs_node *node);

static bool full(struct repr *p)
{
	if (p->out->failed || p->out->len < p->end)
		return p->out->failed;
	p->cut = true;
	return true;
}

static void repr_text(struct repr *p, const struct cfs_node *node)
{
	size_t room = p->end > p->out->len ? p->end - p->out->len : 0;
	size_t len = CFS_MIN(node->u.str.len, room);

	if (node->kind != CFS_NODE_STR)
		cfs_buf_put_str(p->out, "b");
	cfs_buf_put_str(p->out, "'");
	cfs_text_safe(p->out, node->u.str.data, len);
	cfs_buf_put_str(p->out, len < node->u.str.len ? "…'" : "'");
	p->cut |= len < node->u.str.len;
}

static void repr_items(struct repr *p, const struct cfs_node *node,
		       const char *open, const char *close)
{
	uint32_t i;

	cfs_buf_put_str(p->out, open);
	for (i = 0; i < node->n; i++) {
		if (i)
			cfs_buf_put_str(p->out, ", ");
		if (full(p)) {
			cfs_buf_put_str(p->out, "…");
			break;
		}
		repr_node(p, node->u.items[i]);
	}
	cfs_buf_put_str(p->out, close);
}

static void repr_pairs(struct repr *p, const struct cfs_node *map)
{
	uint32_t i, n = cfs_map_node_count(map);
	struct cfs_node *key, *value;

	cfs_buf_put_str(p->out, "{");
	for (i = 0; i < n; i++) {
		cfs_map_node_pair(map, i, &key, &value);
		if (i)
			cfs_buf_put_str(p->out, ", ");
		if (full(p)) {
			cfs_buf_put_str(p->out, "…");
			break;
		}
		repr_node(p, key);
		cfs_buf_put_str(p->out, ": ");
		repr_node(p, value);
	}
	cfs_buf_put_str(p->out, "}");
}

static void repr_tensor(struct repr *p, const struct cfs_node *node)
{
	struct cfs_torch_tensor t;

	if (cfs_torch_tensor_get(node, &t) < 0)
		cfs_buf_put_str(p->out, "tensor (of a kind not read here)");
	else
		cfs_buf_printf(p->out, "tensor %s %s", cfs_dtype_name(t.dtype),
			       cfs_text_shape(t.ndim, t.shape).s);
}

static void repr_object(struct repr *p, const struct cfs_node *node)
{
	const struct cfs_node_object *o = node->u.object;
	const struct cfs_node *fn = o->fn;
	uint32_t i;

	if (fn && fn->kind == CFS_NODE_GLOBAL)
		cfs_buf_put_str(p->out, fn->u.global.name);
	else
		cfs_buf_put_str(p->out, "object");
	cfs_buf_put_str(p->out, "(");
	for (i = 0; o->args && o->args->kind == CFS_NODE_TUPLE &&
		    i < o->args->n && !full(p);
	     i++) {
		if (i)
			cfs_buf_put_str(p->out, ", ");
		repr_node(p, o->args->u.items[i]);
	}
	if (o->n_ops) {
		p->cut = true;
		cfs_buf_put_str(p->out, "…");
	}
	cfs_buf_put_str(p->out, ")");
}

static void repr_scalar(struct repr *p, const struct cfs_node *node)
{
	switch (node->kind) {
	case CFS_NODE_NONE:
		cfs_buf_put_str(p->out, "None");
		break;
	case CFS_NODE_BOOL:
		cfs_buf_put_str(p->out, node->u.boolean ? "True" : "False");
		break;
	case CFS_NODE_INT:
		cfs_buf_printf(p->out, "%" PRId64, node->u.integer);
		break;
	case CFS_NODE_BIGINT:
		cfs_buf_printf(p->out, "int of %zu bytes", node->u.str.len);
		break;
	case CFS_NODE_FLOAT:
		cfs_buf_put_str(p->out, cfs_text_real(node->u.real).s);
		break;
	case CFS_NODE_GLOBAL:
		cfs_buf_printf(p->out, "%s.%s", node->u.global.module,
			       node->u.global.name);
		break;
	case CFS_NODE_PERSID:
		cfs_buf_put_str(p->out, "storage");
		break;
	default:
		repr_text(p, node);
		break;
	}
}

static void repr_node(struct repr *p, const struct cfs_node *node)
{
	if (!node || p->depth >= DEPTH_MAX || full(p)) {
		cfs_buf_put_str(p->out, "…");
		p->cut = true;
		return;
	}
	p->depth++;
	switch (node->kind) {
	case CFS_NODE_LIST:
		repr_items(p, node, "[", "]");
		break;
	case CFS_NODE_TUPLE:
		repr_items(p, node, "(", node->n == 1 ? ",)" : ")");
		break;
	case CFS_NODE_SET:
	case CFS_NODE_FROZENSET:
		repr_items(p, node, "{", "}");
		break;
	case CFS_NODE_DICT:
		repr_pairs(p, node);
		break;
	case CFS_NODE_OBJECT:
		if (cfs_torch_is_tensor(node))
			repr_tensor(p, node);
		else if (cfs_node_is_map(node))
			repr_pairs(p, node);
		else
			repr_object(p, node);
		break;
	default:
		repr_scalar(p, node);
		break;
	}
	p->depth--;
}

bool cfs_nodes_repr(const struct cfs_node *node, size_t max,
		    struct cfs_buf *out)
{
	struct repr p = {.out = out, .end = out->len + max};

	repr_node(&p, node);
	return !p.cut;
}

/* ---- walking ---- */

struct walk {
	bool (*fold)(const struct cfs_node *node);
	cfs_nodes_fn *fn;
	void *arg;
	struct cfs_buf path; /* all zeros is an empty one */
	const struct cfs_node *above[DEPTH_MAX];
	uint32_t depth, visits;
};

static bool is_above(const struct walk *w, const struct cfs_node *node)
{
	uint32_t i;

	for (i = 0; i < w->depth; i++)
		if (w->above[i] == node)
			return true;
	return false;
}

static int report(struct walk *w, const struct cfs_node *node)
{
	const char *path = cfs_buf_str(&w->path);

	return w->path.failed ? -ENOMEM : w->fn(w->arg, path, node);
}

static int visit(struct walk *w, const struct cfs_node *node)
{
	const struct cfs_node *child;
	size_t i, len = w->path.len;
	int r = 0;

	if (++w->visits > VISIT_MAX)
		return -E2BIG;
	if (w->depth == DEPTH_MAX || is_above(w, node))
		return 0;
	if (w->fold && w->fold(node))
		return report(w, node);
	w->above[w->depth++] = node;
	for (i = 0; r == 0; i++) {
		if (len)
			cfs_buf_put_str(&w->path, "/");
		child = cfs_nodes_child(node, i, &w->path);
		if (!child)
			break;
		r = visit(w, child);
		w->path.len = len;
	}
	w->path.len = len;
	w->depth--;
	if (r == 0 && i == 0)
		r = report(w, node);
	return r;
}

int cfs_nodes_walk(const struct cfs_node *root,
		   bool (*fold)(const struct cfs_node *node), cfs_nodes_fn *fn,
		   void *arg)
{
	struct walk w = {.fold = fold, .fn = fn, .arg = arg};
	int r;

	r = visit(&w, root);
	cfs_buf_free(&w.path);
	return r;
}
