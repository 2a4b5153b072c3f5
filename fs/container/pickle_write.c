/*
 * Encoding in protocol 2, as torch.save does it.
 *
 * An explicit stack of open nodes instead of recursion.  What is referred to
 * once is not memoised, which every unpickler accepts; a tree with a cycle is
 * memoised throughout, as CPython always does.
 *
 * A cycle through tuples or call arguments cannot be written in one piece: the
 * node is met again while it is still being made.  As in CPython it is then
 * made a second time, inside; that copy reaches the memo first, and the outer
 * one is thrown away for it.
 */
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_internal.h"
#include "fs/container/pickle_plan.h"
#include "fs/container/pickle_put.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/grow.h"

/* Slots of an OBJECT before its ops: fn, args, kwargs. */
#define CALL_SLOTS 3

struct frame {
	const struct cfs_node *node;
	struct cfs_pickle_plan_node *plan; /* does not move any more */
	size_t next;			   /* slot to write */
	size_t batch_end; /* slot behind the open batch; 0: none is open */
	bool many;	  /* … and it has a MARK */
};

struct writer {
	struct cfs_pickle_plan plan;
	struct cfs_buf *out;
	struct cfs_error *err;
	struct frame *stack;
	size_t n, cap;
	uint32_t n_memo;
};

static int push(struct writer *w, const struct cfs_node *node,
		struct cfs_pickle_plan_node *plan)
{
	if (!CFS_GROW(w->stack, w->n, w->cap))
		return -ENOMEM;
	w->stack[w->n++] = (struct frame){.node = node, .plan = plan};
	return 0;
}

static void memo_put(struct writer *w, struct cfs_pickle_plan_node *plan)
{
	if (!plan || plan->memo || (plan->refs < 2 && !w->plan.cyclic))
		return;
	cfs_pickle_put_memo(w->out, w->n_memo);
	plan->memo = ++w->n_memo;
}

/* Writes what stands before the slots of a node that has some. */
static void open_node(struct writer *w, struct frame *f)
{
	switch (f->node->kind) {
	case CFS_NODE_LIST:
		cfs_buf_put_u8(w->out, ']');
		memo_put(w, f->plan);
		break;
	case CFS_NODE_DICT:
		cfs_buf_put_u8(w->out, '}');
		memo_put(w, f->plan);
		break;
	case CFS_NODE_TUPLE:
		if (f->node->n > 3)
			cfs_buf_put_u8(w->out, '(');
		break;
	case CFS_NODE_SET:
		cfs_buf_put_str(w->out, "c__builtin__\nset\n]");
		break;
	case CFS_NODE_FROZENSET:
		cfs_buf_put_str(w->out, "c__builtin__\nfrozenset\n]");
		break;
	case CFS_NODE_OBJECT:
		if (f->node->u.object->call == CFS_CALL_NEWOBJ_EX)
			cfs_buf_put_str(w->out, "ccopy_reg\n__newobj_ex__\n");
		break;
	default:
		break;
	}
}

/* Throws @n values away and fetches what the inner copy left in the memo. */
static void discard(struct writer *w, const struct frame *f, unsigned n)
{
	while (n--)
		cfs_buf_put_u8(w->out, '0');
	cfs_pickle_put_get(w->out, f->plan->memo - 1);
}

static void close_tuple(struct writer *w, const struct frame *f)
{
	const uint32_t n = f->node->n;

	if (f->plan->memo) {
		if (n > 3)
			cfs_buf_put_u8(w->out, '1');
		discard(w, f, n > 3 ? 0 : n);
		return;
	}
	cfs_buf_put_u8(w->out, n > 3 ? 't' : (uint8_t)(0x84 + n));
	memo_put(w, f->plan);
}

/* Writes what stands behind the last slot. */
static void close_node(struct writer *w, const struct frame *f)
{
	switch (f->node->kind) {
	case CFS_NODE_TUPLE:
		close_tuple(w, f);
		break;
	case CFS_NODE_SET:
	case CFS_NODE_FROZENSET:
		if (f->plan->memo) {
			discard(w, f, 2);
			break;
		}
		cfs_buf_put_str(w->out, "\x85R");
		memo_put(w, f->plan);
		break;
	case CFS_NODE_PERSID:
		cfs_buf_put_u8(w->out, 'Q');
		break;
	default:
		break;
	}
}

/* All slots of an OBJECT's call are written; false: an inner copy was it. */
static bool close_call(struct writer *w, struct frame *f)
{
	const enum cfs_call_kind call = f->node->u.object->call;

	if (f->plan->memo) {
		discard(w, f, call == CFS_CALL_NEWOBJ_EX ? 4 : 2);
		return false;
	}
	if (call == CFS_CALL_NEWOBJ_EX)
		cfs_buf_put_str(w->out, "\x87R");
	else
		cfs_buf_put_u8(w->out, call == CFS_CALL_NEWOBJ ? 0x81 : 'R');
	memo_put(w, f->plan);
	return true;
}

/* How many slots one item takes, and how many items stand in a row. */
static size_t run_of(const struct cfs_node *node, size_t slot, size_t *step)
{
	const struct cfs_node_object *o;
	size_t n = 0, at;

	*step = node->kind == CFS_NODE_DICT ? 2 : 1;
	if (node->kind != CFS_NODE_OBJECT)
		return (cfs_node_slots(node) - slot) / *step;
	*step = 2;
	o = node->u.object;
	at = (slot - CALL_SLOTS) / 2;
	while (n < CFS_PICKLE_BATCH && at + n < o->n_ops &&
	       o->ops[at + n].kind == o->ops[at].kind)
		n++;
	return n;
}

static enum cfs_op_kind op_of(const struct cfs_node *node, size_t slot)
{
	if (node->kind == CFS_NODE_DICT)
		return CFS_OP_SETITEM;
	if (node->kind != CFS_NODE_OBJECT)
		return CFS_OP_APPEND;
	return node->u.object->ops[(slot - CALL_SLOTS) / 2].kind;
}

static bool has_batches(const struct frame *f)
{
	switch (f->node->kind) {
	case CFS_NODE_LIST:
	case CFS_NODE_DICT:
	case CFS_NODE_SET:
	case CFS_NODE_FROZENSET:
		return true;
	case CFS_NODE_OBJECT:
		return f->next >= CALL_SLOTS;
	default:
		return false;
	}
}

static void open_batch(struct writer *w, struct frame *f)
{
	const enum cfs_op_kind kind = op_of(f->node, f->next);
	size_t step, n = run_of(f->node, f->next, &step);

	if (kind == CFS_OP_BUILD)
		n = 1;
	n = CFS_MIN(n, (size_t)CFS_PICKLE_BATCH);
	/* there is no opcode for a single element of a set */
	f->many = n > 1 || kind == CFS_OP_ADD;
	f->batch_end = f->next + n * step;
	if (f->many)
		cfs_buf_put_u8(w->out, '(');
}

static void close_batch(struct writer *w, struct frame *f)
{
	uint8_t op = 0x90;

	switch (op_of(f->node, f->batch_end - 1)) {
	case CFS_OP_APPEND:
		op = f->many ? 'e' : 'a';
		break;
	case CFS_OP_SETITEM:
		op = f->many ? 'u' : 's';
		break;
	case CFS_OP_BUILD:
		op = 'b';
		break;
	case CFS_OP_ADD:
		break;
	}
	cfs_buf_put_u8(w->out, op);
	f->batch_end = 0;
}

/* A value: at once, or as a new frame. */
static int enter(struct writer *w, const struct cfs_node *node)
{
	struct cfs_pickle_plan_node *plan;
	int r;

	if (!node)
		return 0;
	plan = cfs_pickle_plan_find(&w->plan, node);
	if (plan && plan->memo) {
		cfs_pickle_put_get(w->out, plan->memo - 1);
		return 0;
	}
	if (!plan ||
	    (!cfs_node_slots(node) && node->kind != CFS_NODE_LIST &&
	     node->kind != CFS_NODE_DICT && node->kind != CFS_NODE_SET &&
	     node->kind != CFS_NODE_FROZENSET)) {
		r = cfs_pickle_put_leaf(w->out, node, w->err);
		if (!r)
			memo_put(w, plan);
		return r;
	}
	if (plan->open == 2)
		return cfs_fail(w->err, -ENOTSUP,
				"pickle: a cycle through sets or arguments "
				"only, which protocol 2 cannot write");
	plan->open++;
	r = push(w, node, plan);
	if (!r)
		open_node(w, &w->stack[w->n - 1]);
	return r;
}

static int leave(struct writer *w)
{
	struct frame *f = &w->stack[w->n - 1];

	close_node(w, f);
	f->plan->open--;
	w->n--;
	return 0;
}

static int step(struct writer *w)
{
	struct frame *f = &w->stack[w->n - 1];
	const struct cfs_node *node = f->node;

	if (f->batch_end && f->next == f->batch_end)
		close_batch(w, f);
	if (node->kind == CFS_NODE_OBJECT && f->next == CALL_SLOTS &&
	    !f->batch_end && !close_call(w, f))
		return leave(w);
	if (f->next >= cfs_node_slots(node))
		return leave(w);
	if (!f->batch_end && has_batches(f))
		open_batch(w, f);
	f->next++;
	return enter(w, node->kind == CFS_NODE_PERSID
				? f->plan->id
				: cfs_node_slot(node, f->next - 1));
}

static int write_tree(struct writer *w, const struct cfs_node *root)
{
	int r;

	cfs_buf_put(w->out, "\x80\x02", 2);
	r = enter(w, root);
	while (!r && w->n) {
		r = step(w);
		if (w->out->failed)
			r = -ENOMEM;
	}
	cfs_buf_put_u8(w->out, '.');
	return !r && w->out->failed ? -ENOMEM : r;
}

int cfs_pickle_encode(const struct cfs_node *root,
		      const struct cfs_pickle_persid_ops *persid,
		      struct cfs_buf *out, struct cfs_error *err)
{
	struct writer w = {
		.plan = CFS_PICKLE_PLAN_INIT, .out = out, .err = err};
	int r;

	r = cfs_pickle_plan(&w.plan, root, persid, err);
	if (!r)
		r = write_tree(&w, root);
	cfs_pickle_plan_free(&w.plan);
	free(w.stack);
	return r == -ENOMEM ? cfs_fail(err, r, "pickle: out of memory") : r;
}
