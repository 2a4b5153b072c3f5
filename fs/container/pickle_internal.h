/* What the pickle_*.c files and torch_read.c share. */
#ifndef CFS_CONTAINER_PICKLE_INTERNAL_H
#define CFS_CONTAINER_PICKLE_INTERNAL_H

#include "fs/container/pickle.h"
#include "fs/container/u64map.h"

#define CFS_PICKLE_SMALL_INTS 1024 /* 0 to 1023: one node a document */
#define CFS_PICKLE_BATCH      1000 /* items of one APPENDS or SETITEMS */

struct cfs_arena;

struct cfs_pickle {
	struct cfs_arena *arena;
	struct cfs_pickle_limits limits;
	bool failed;
	bool over; /* … because of the limit, not for want of memory */
	struct cfs_node *none, *yes, *no;
	struct cfs_node *small[CFS_PICKLE_SMALL_INTS];
	struct cfs_u64map globals; /* hash of both names -> node */
	/* what decode met, for torch_read to resolve; malloc()ed */
	struct cfs_node **persids;
	size_t n_persids, cap_persids;
};

/* From the arena, zeroed; NULL is remembered by the document. */
void *cfs_pickle_alloc(struct cfs_pickle *doc, size_t size);
/* Op @at is new: keeps the runs by which an object is a list or a mapping. */
void cfs_node_note_op(struct cfs_node_object *o, uint32_t at);
struct cfs_node *cfs_node_new(struct cfs_pickle *doc, enum cfs_node_kind kind);
/* STR, BYTES, BYTEARRAY, BIGINT: a copy of the bytes. */
struct cfs_node *cfs_node_bytes(struct cfs_pickle *doc, enum cfs_node_kind kind,
				const void *data, size_t len);
/* Room for @more items (pairs of a DICT); false: out of memory or 2^32. */
bool cfs_node_reserve(struct cfs_pickle *doc, struct cfs_node *node,
		      size_t more);
bool cfs_node_add_op(struct cfs_pickle *doc, struct cfs_node *node,
		     enum cfs_op_kind kind, struct cfs_node *a,
		     struct cfs_node *b);
struct cfs_node *cfs_node_object(struct cfs_pickle *doc,
				 enum cfs_call_kind call, struct cfs_node *fn,
				 struct cfs_node *args,
				 struct cfs_node *kwargs);
struct cfs_node *cfs_node_globaln(struct cfs_pickle *doc, const char *module,
				  size_t module_len, const char *name,
				  size_t name_len);

/*
 * Children by number, in the order a pickler saves them; a slot may be NULL.
 * OBJECT: fn, args, kwargs, then a and b of each op.
 */
static inline size_t cfs_node_slots(const struct cfs_node *node)
{
	switch (node->kind) {
	case CFS_NODE_LIST:
	case CFS_NODE_TUPLE:
	case CFS_NODE_SET:
	case CFS_NODE_FROZENSET:
		return node->n;
	case CFS_NODE_DICT:
		return (size_t)node->n * 2;
	case CFS_NODE_PERSID:
		return 1;
	case CFS_NODE_OBJECT:
		return 3 + (size_t)node->u.object->n_ops * 2;
	default:
		return 0;
	}
}

static inline struct cfs_node *cfs_node_slot(const struct cfs_node *node,
					     size_t i)
{
	const struct cfs_node_object *o;

	if (node->kind == CFS_NODE_PERSID)
		return node->u.persid.id;
	if (node->kind != CFS_NODE_OBJECT)
		return node->u.items[i];
	o = node->u.object;
	if (i < 3)
		return i == 0 ? o->fn : i == 1 ? o->args : o->kwargs;
	return i % 2 ? o->ops[(i - 3) / 2].a : o->ops[(i - 3) / 2].b;
}

/* -E2BIG when a path from @root is longer than @limit; writes heights. */
CFS_MUST_CHECK int cfs_node_check_depth(struct cfs_node *root, uint32_t limit);

/* As cfs_pickle_decode(), but -ENODATA when the stream ends before STOP. */
CFS_MUST_CHECK int cfs_pickle_decode_more(struct cfs_pickle *doc,
					  const void *data, size_t len,
					  struct cfs_node **root_out,
					  size_t *consumed_out,
					  struct cfs_error *err);

/* Is this UTF-8, surrogates allowed? */
bool cfs_utf8_ok(const void *data, size_t len);

#endif
