/*
 * Pickle streams as trees: decoded without executing or importing anything,
 * edited by building new nodes around old ones, written back.
 *
 * Nodes live in the document's arena and are immutable once shared.  A new
 * document may refer to nodes of others as long as those documents live: that
 * is how a state is edited (a new dict, the old values).  One node referred to
 * twice is one Python object referred to twice (memo), also through cycles.
 */
#ifndef CFS_CONTAINER_PICKLE_H
#define CFS_CONTAINER_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_error;
struct cfs_pickle; /* a document: owns an arena of nodes */

enum cfs_node_kind {
	CFS_NODE_NONE = 1,
	CFS_NODE_BOOL,
	CFS_NODE_INT,	 /* fits int64 */
	CFS_NODE_BIGINT, /* two's complement, little-endian, in str */
	CFS_NODE_FLOAT,
	CFS_NODE_STR,	/* UTF-8 (surrogates allowed), may hold NULs */
	CFS_NODE_BYTES, /* also Python 2 strings that are no UTF-8; those that
			   are become STR, as torch.load makes them */
	CFS_NODE_BYTEARRAY,
	CFS_NODE_LIST,
	CFS_NODE_TUPLE,
	CFS_NODE_DICT, /* items: key, value, key, value, … */
	CFS_NODE_SET,
	CFS_NODE_FROZENSET,
	CFS_NODE_GLOBAL, /* a name, never resolved */
	CFS_NODE_PERSID, /* persistent id: a torch storage */
	CFS_NODE_OBJECT, /* REDUCE, NEWOBJ, NEWOBJ_EX and what followed */
};

enum cfs_call_kind {
	CFS_CALL_REDUCE = 1,
	CFS_CALL_NEWOBJ,
	CFS_CALL_NEWOBJ_EX
};

/* What a pickle did to an object after making it, in its order. */
enum cfs_op_kind {
	CFS_OP_APPEND = 1, /* a */
	CFS_OP_SETITEM,	   /* a: key, b: value */
	CFS_OP_ADD,	   /* a: set element */
	CFS_OP_BUILD,	   /* a: state */
};

struct cfs_node;

struct cfs_node_op {
	enum cfs_op_kind kind;
	struct cfs_node *a, *b;
};

struct cfs_node_object {
	enum cfs_call_kind call;
	struct cfs_node *fn, *args, *kwargs; /* kwargs: NEWOBJ_EX only */
	uint32_t n_ops, cap_ops;
	struct cfs_node_op *ops;
	/* Where the run of APPENDs and that of SETITEMs start, and how long
	 * they are; scattered: not in one run each, so neither map nor list */
	uint32_t append_at, n_append, setitem_at, n_setitem;
	bool scattered;
};

struct cfs_node {
	enum cfs_node_kind kind;
	uint32_t n, cap; /* LIST, TUPLE, SET, FROZENSET: items; DICT: pairs */
	uint32_t height; /* decode's scratch */
	union {
		bool boolean;
		int64_t integer;
		double real;
		struct {
			const char *data; /* NUL behind it for convenience */
			size_t len;
		} str;
		struct cfs_node **items;
		struct {
			const char *module, *name;
		} global;
		struct {
			struct cfs_node *id;
			/* set by torch_read/torch_write, NULL otherwise */
			const struct cfs_torch_storage *storage;
		} persid;
		struct cfs_node_object *object;
	} u;
};

/* What a decoder accepts; a stream beyond is -E2BIG. */
struct cfs_pickle_limits {
	size_t memory_bytes; /* of nodes, default 1 GiB */
	uint32_t depth;	     /* nesting of the tree, default 1000 */
};

struct cfs_pickle *cfs_pickle_new(const struct cfs_pickle_limits *limits);
void cfs_pickle_free(struct cfs_pickle *doc);
void cfs_pickle_freep(struct cfs_pickle **doc);
size_t cfs_pickle_memory_bytes(const struct cfs_pickle *doc);

/**
 * cfs_pickle_decode - one pickle, protocols 0 to 5
 * @consumed_out: bytes up to and including STOP; may be NULL
 *
 * Adds nodes to @doc.  -EBADMSG (malformed, with offset and opcode in @err),
 * -E2BIG (limits), -ENOTSUP (EXT codes, out-of-band buffers), -ENOMEM.
 */
CFS_MUST_CHECK int cfs_pickle_decode(struct cfs_pickle *doc, const void *data,
				     size_t len, struct cfs_node **root_out,
				     size_t *consumed_out,
				     struct cfs_error *err);

/* Names a persistent id's new key while encoding; see torch_write. */
struct cfs_pickle_persid_ops {
	/* The id object to write for @persid (nodes made in any document). */
	int (*id)(void *arg, const struct cfs_node *persid,
		  struct cfs_node **id_out);
	void *arg;
};

/**
 * cfs_pickle_encode - protocol 2, as torch.save writes it
 * @persid: NULL writes ids as they are
 *
 * Memoises what is referred to more than once (by node identity), batches
 * items by 1000, handles cycles and recursive tuples.  Equal trees give equal
 * bytes.  BYTES and the like become what protocol 2 of CPython writes.
 */
CFS_MUST_CHECK int cfs_pickle_encode(const struct cfs_node *root,
				     const struct cfs_pickle_persid_ops *persid,
				     struct cfs_buf *out,
				     struct cfs_error *err);

/*
 * Making nodes.  NULL when out of memory; a NULL child makes the parent NULL
 * and a NULL parent makes adding a no-op, so a whole tree is checked once, at
 * its root, with cfs_pickle_failed() (any allocation of @doc failed).
 */
bool cfs_pickle_failed(const struct cfs_pickle *doc);
struct cfs_node *cfs_node_none(struct cfs_pickle *doc);
struct cfs_node *cfs_node_bool(struct cfs_pickle *doc, bool v);
struct cfs_node *cfs_node_int(struct cfs_pickle *doc, int64_t v);
struct cfs_node *cfs_node_float(struct cfs_pickle *doc, double v);
struct cfs_node *cfs_node_str(struct cfs_pickle *doc, const char *s);
struct cfs_node *cfs_node_strn(struct cfs_pickle *doc, const char *s,
			       size_t len);
struct cfs_node *cfs_node_list(struct cfs_pickle *doc);
struct cfs_node *cfs_node_dict(struct cfs_pickle *doc);
struct cfs_node *cfs_node_tuple(struct cfs_pickle *doc,
				struct cfs_node *const *items, uint32_t n);
/* Interned: one node a document and name. */
struct cfs_node *cfs_node_global(struct cfs_pickle *doc, const char *module,
				 const char *name);
struct cfs_node *cfs_node_persid(struct cfs_pickle *doc, struct cfs_node *id,
				 const struct cfs_torch_storage *storage);
/* module.name(*args): REDUCE; args is a TUPLE. */
struct cfs_node *cfs_node_call(struct cfs_pickle *doc, const char *module,
			       const char *name, struct cfs_node *args);
/* cls.__new__(cls, *args): NEWOBJ. */
struct cfs_node *cfs_node_newobj(struct cfs_pickle *doc, const char *module,
				 const char *name, struct cfs_node *args);
/* collections.OrderedDict(), to be filled with cfs_node_set(). */
struct cfs_node *cfs_node_ordereddict(struct cfs_pickle *doc);
void cfs_node_append(struct cfs_pickle *doc, struct cfs_node *list,
		     struct cfs_node *item);
/* Appends a pair to a DICT or an OBJECT; the key is not looked for. */
void cfs_node_set(struct cfs_pickle *doc, struct cfs_node *map,
		  struct cfs_node *key, struct cfs_node *value);
void cfs_node_set_str(struct cfs_pickle *doc, struct cfs_node *map,
		      const char *key, struct cfs_node *value);
void cfs_node_build(struct cfs_pickle *doc, struct cfs_node *object,
		    struct cfs_node *state);
/* A shallow copy in @doc (children shared) of any container or OBJECT. */
struct cfs_node *cfs_node_copy(struct cfs_pickle *doc,
			       const struct cfs_node *node);
/* In a fresh copy: replaces the value of @key, or appends the pair. */
void cfs_node_replace(struct cfs_pickle *doc, struct cfs_node *map,
		      const char *key, struct cfs_node *value);
/* In a fresh copy of an OBJECT: what it is built of. */
void cfs_node_replace_state(struct cfs_node *object, struct cfs_node *state);
/* In a fresh copy: drops @key if present; the order of the rest is kept. */
void cfs_node_remove(struct cfs_node *map, const char *key);

/*
 * Looking.  All accept NULL and the wrong kind, and answer "no".
 * A "mapping" is a DICT or an OBJECT with SETITEM ops (OrderedDict, …).
 */
bool cfs_node_is_map(const struct cfs_node *node);
uint32_t cfs_map_node_count(const struct cfs_node *map);
/* Pair @i < count, in order. */
void cfs_map_node_pair(const struct cfs_node *map, uint32_t i,
		       struct cfs_node **key_out, struct cfs_node **value_out);
/* The last value stored under a string key; NULL if none.  Linear. */
struct cfs_node *cfs_node_get(const struct cfs_node *map, const char *key);
struct cfs_node *cfs_node_get_int(const struct cfs_node *map, int64_t key);
/*
 * The string keys of a big mapping, hashed.  @map may be NULL or no mapping
 * (an empty index) and must not change while the index lives.  Any thread
 * may look up.
 */
struct cfs_node_index;
CFS_MUST_CHECK int cfs_node_index_new(const struct cfs_node *map,
				      struct cfs_node_index **out);
void cfs_node_index_free(struct cfs_node_index *index);
void cfs_node_index_freep(struct cfs_node_index **index);
/* As cfs_node_get(). */
struct cfs_node *cfs_node_index_get(const struct cfs_node_index *index,
				    const char *key);
/* LIST, TUPLE, or an OBJECT with APPEND ops (a list subclass). */
bool cfs_node_is_seq(const struct cfs_node *node);
uint32_t cfs_seq_node_count(const struct cfs_node *seq);
struct cfs_node *cfs_seq_node_item(const struct cfs_node *seq, uint32_t i);
/* INT (or BOOL) / FLOAT-or-INT / STR / BOOL; false otherwise. */
bool cfs_node_as_int(const struct cfs_node *node, int64_t *out);
bool cfs_node_as_u64(const struct cfs_node *node, uint64_t *out);
bool cfs_node_as_real(const struct cfs_node *node, double *out);
const char *cfs_node_as_str(const struct cfs_node *node); /* or NULL */
bool cfs_node_as_bool(const struct cfs_node *node, bool *out);
bool cfs_node_is_none(const struct cfs_node *node);
/* An OBJECT's __dict__: what it was built of last, or NULL. */
struct cfs_node *cfs_node_state(const struct cfs_node *node);
/* builtins and copyreg also match their Python 2 names, both ways. */
bool cfs_node_is_global(const struct cfs_node *node, const char *module,
			const char *name);
/* OBJECT whose fn (or, NEWOBJ, class) is module.name; its args, or NULL. */
struct cfs_node *cfs_node_call_args(const struct cfs_node *node,
				    const char *module, const char *name);
/* A torch.Size, a tuple or a list of ints >= 0 as a shape. */
bool cfs_node_as_shape(const struct cfs_node *node, uint32_t max_ndim,
		       uint32_t *ndim_out, uint64_t *shape_out);
/*
 * Same value: types and order count, sharing does not; persids by storage
 * pointer, or by id where they have none.  Ends on cycles too.  Also false
 * when out of memory.
 */
bool cfs_node_equal(const struct cfs_node *a, const struct cfs_node *b);

#endif
