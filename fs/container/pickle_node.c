/* Documents, and making their nodes. */
#include "fs/container/pickle.h"

#include <assert.h>
#include <string.h>

#include "fs/container/pickle_internal.h"
#include "store/util/arena.h"
#include "store/util/hash.h"

#define MEMORY_DEFAULT ((size_t)1 << 30)
#define DEPTH_DEFAULT  1000

struct cfs_pickle *cfs_pickle_new(const struct cfs_pickle_limits *limits)
{
	struct cfs_pickle *doc = calloc(1, sizeof(*doc));

	if (!doc)
		return NULL;
	if (limits)
		doc->limits = *limits;
	if (!doc->limits.memory_bytes)
		doc->limits.memory_bytes = MEMORY_DEFAULT;
	if (!doc->limits.depth)
		doc->limits.depth = DEPTH_DEFAULT;
	doc->arena = cfs_arena_new(doc->limits.memory_bytes);
	if (!doc->arena) {
		free(doc);
		return NULL;
	}
	return doc;
}

void cfs_pickle_free(struct cfs_pickle *doc)
{
	if (!doc)
		return;
	cfs_u64map_free(&doc->globals);
	cfs_arena_free(doc->arena);
	free(doc->persids);
	free(doc);
}

void cfs_pickle_freep(struct cfs_pickle **doc)
{
	cfs_pickle_free(*doc);
}

size_t cfs_pickle_memory_bytes(const struct cfs_pickle *doc)
{
	return cfs_arena_used(doc->arena) + sizeof(*doc) +
	       cfs_u64map_bytes(&doc->globals) +
	       doc->cap_persids * sizeof(struct cfs_node *);
}

bool cfs_pickle_failed(const struct cfs_pickle *doc)
{
	return doc->failed;
}

static void note_failure(struct cfs_pickle *doc, size_t size)
{
	/* the arena rounds up by less than this */
	const size_t slack = 64;

	doc->failed = true;
	if (size > doc->limits.memory_bytes ||
	    cfs_arena_used(doc->arena) + size + slack >
		    doc->limits.memory_bytes)
		doc->over = true;
}

void *cfs_pickle_alloc(struct cfs_pickle *doc, size_t size)
{
	void *p = cfs_arena_alloc(doc->arena, size);

	if (!p)
		note_failure(doc, size);
	return p;
}

static char *copy_text(struct cfs_pickle *doc, const char *s, size_t len)
{
	char *p = cfs_arena_strndup(doc->arena, s, len);

	if (!p)
		note_failure(doc, len + 1);
	return p;
}

struct cfs_node *cfs_node_new(struct cfs_pickle *doc, enum cfs_node_kind kind)
{
	struct cfs_node *node = cfs_pickle_alloc(doc, sizeof(*node));

	if (node)
		node->kind = kind;
	return node;
}

struct cfs_node *cfs_node_none(struct cfs_pickle *doc)
{
	if (!doc->none)
		doc->none = cfs_node_new(doc, CFS_NODE_NONE);
	return doc->none;
}

struct cfs_node *cfs_node_bool(struct cfs_pickle *doc, bool v)
{
	struct cfs_node **place = v ? &doc->yes : &doc->no;

	if (!*place) {
		*place = cfs_node_new(doc, CFS_NODE_BOOL);
		if (*place)
			(*place)->u.boolean = v;
	}
	return *place;
}

struct cfs_node *cfs_node_int(struct cfs_pickle *doc, int64_t v)
{
	const bool is_small = v >= 0 && v < CFS_PICKLE_SMALL_INTS;
	struct cfs_node *node;

	if (is_small && doc->small[v])
		return doc->small[v];
	node = cfs_node_new(doc, CFS_NODE_INT);
	if (node)
		node->u.integer = v;
	if (is_small)
		doc->small[v] = node;
	return node;
}

struct cfs_node *cfs_node_float(struct cfs_pickle *doc, double v)
{
	struct cfs_node *node = cfs_node_new(doc, CFS_NODE_FLOAT);

	if (node)
		node->u.real = v;
	return node;
}

struct cfs_node *cfs_node_bytes(struct cfs_pickle *doc, enum cfs_node_kind kind,
				const void *data, size_t len)
{
	struct cfs_node *node = cfs_node_new(doc, kind);
	char *copy = node ? copy_text(doc, data, len) : NULL;

	if (!copy)
		return NULL;
	node->u.str.data = copy;
	node->u.str.len = len;
	return node;
}

struct cfs_node *cfs_node_strn(struct cfs_pickle *doc, const char *s,
			       size_t len)
{
	return cfs_node_bytes(doc, CFS_NODE_STR, s, len);
}

struct cfs_node *cfs_node_str(struct cfs_pickle *doc, const char *s)
{
	return cfs_node_strn(doc, s, strlen(s));
}

struct cfs_node *cfs_node_list(struct cfs_pickle *doc)
{
	return cfs_node_new(doc, CFS_NODE_LIST);
}

struct cfs_node *cfs_node_dict(struct cfs_pickle *doc)
{
	return cfs_node_new(doc, CFS_NODE_DICT);
}

/* The new capacity of an array that holds @n and must take @more. */
static bool grown(uint32_t n, size_t more, uint32_t cap, uint32_t *cap_out)
{
	const size_t need = (size_t)n + more;

	if (more > UINT32_MAX / 4 || need > UINT32_MAX / 4)
		return false;
	/* the first batch is taken as it comes: most lists have only one */
	*cap_out = (uint32_t)CFS_MAX(need, n ? (size_t)cap * 2 : (size_t)1);
	return true;
}

bool cfs_node_reserve(struct cfs_pickle *doc, struct cfs_node *node,
		      size_t more)
{
	const size_t width = node->kind == CFS_NODE_DICT ? 2 : 1;
	struct cfs_node **items;
	uint32_t cap;

	if (more <= node->cap - node->n)
		return true;
	if (!grown(node->n, more, node->cap, &cap)) {
		doc->failed = doc->over = true;
		return false;
	}
	items = cfs_pickle_alloc(doc, (size_t)cap * width *
					      sizeof(struct cfs_node *));
	if (!items)
		return false;
	if (node->n)
		memcpy(items, node->u.items,
		       (size_t)node->n * width * sizeof(struct cfs_node *));
	node->u.items = items;
	node->cap = cap;
	return true;
}

struct cfs_node *cfs_node_tuple(struct cfs_pickle *doc,
				struct cfs_node *const *items, uint32_t n)
{
	struct cfs_node *node = cfs_node_new(doc, CFS_NODE_TUPLE);

	if (!node || !cfs_node_reserve(doc, node, n))
		return NULL;
	for (uint32_t i = 0; i < n; i++) {
		if (!items[i]) {
			doc->failed = true;
			return NULL;
		}
		node->u.items[i] = items[i];
	}
	node->n = n;
	return node;
}

struct cfs_node *cfs_node_globaln(struct cfs_pickle *doc, const char *module,
				  size_t module_len, const char *name,
				  size_t name_len)
{
	uint64_t key = cfs_hash64(module, module_len, cfs_u64map_seed());
	struct cfs_node *node;
	uint64_t *at;

	key = cfs_hash64(name, name_len, key) | 1;
	at = cfs_u64map_find(&doc->globals, key);
	if (at) {
		node = (struct cfs_node *)(uintptr_t)*at;
		if (strlen(node->u.global.module) == module_len &&
		    strlen(node->u.global.name) == name_len &&
		    !memcmp(node->u.global.module, module, module_len) &&
		    !memcmp(node->u.global.name, name, name_len))
			return node;
	}
	node = cfs_node_new(doc, CFS_NODE_GLOBAL);
	if (!node)
		return NULL;
	node->u.global.module = copy_text(doc, module, module_len);
	node->u.global.name = copy_text(doc, name, name_len);
	if (!node->u.global.module || !node->u.global.name ||
	    !cfs_u64map_put(&doc->globals, key, (uintptr_t)node)) {
		doc->failed = true;
		return NULL;
	}
	return node;
}

struct cfs_node *cfs_node_global(struct cfs_pickle *doc, const char *module,
				 const char *name)
{
	return cfs_node_globaln(doc, module, strlen(module), name,
				strlen(name));
}

struct cfs_node *cfs_node_persid(struct cfs_pickle *doc, struct cfs_node *id,
				 const struct cfs_torch_storage *storage)
{
	struct cfs_node *node;

	if (!id) {
		doc->failed = true;
		return NULL;
	}
	node = cfs_node_new(doc, CFS_NODE_PERSID);
	if (node) {
		node->u.persid.id = id;
		node->u.persid.storage = storage;
	}
	return node;
}

struct cfs_node *cfs_node_object(struct cfs_pickle *doc,
				 enum cfs_call_kind call, struct cfs_node *fn,
				 struct cfs_node *args, struct cfs_node *kwargs)
{
	struct cfs_node *node = cfs_node_new(doc, CFS_NODE_OBJECT);

	if (!node)
		return NULL;
	node->u.object = cfs_pickle_alloc(doc, sizeof(*node->u.object));
	if (!node->u.object || !fn || !args) {
		doc->failed = true;
		return NULL;
	}
	node->u.object->call = call;
	node->u.object->fn = fn;
	node->u.object->args = args;
	node->u.object->kwargs = kwargs;
	return node;
}

struct cfs_node *cfs_node_call(struct cfs_pickle *doc, const char *module,
			       const char *name, struct cfs_node *args)
{
	assert(!args || args->kind == CFS_NODE_TUPLE);
	return cfs_node_object(doc, CFS_CALL_REDUCE,
			       cfs_node_global(doc, module, name), args, NULL);
}

struct cfs_node *cfs_node_newobj(struct cfs_pickle *doc, const char *module,
				 const char *name, struct cfs_node *args)
{
	assert(!args || args->kind == CFS_NODE_TUPLE);
	return cfs_node_object(doc, CFS_CALL_NEWOBJ,
			       cfs_node_global(doc, module, name), args, NULL);
}

struct cfs_node *cfs_node_ordereddict(struct cfs_pickle *doc)
{
	return cfs_node_call(doc, "collections", "OrderedDict",
			     cfs_node_tuple(doc, NULL, 0));
}

void cfs_node_note_op(struct cfs_node_object *o, uint32_t at)
{
	const enum cfs_op_kind kind = o->ops[at].kind;
	uint32_t *start, *n;

	if (kind != CFS_OP_APPEND && kind != CFS_OP_SETITEM)
		return;
	start = kind == CFS_OP_APPEND ? &o->append_at : &o->setitem_at;
	n = kind == CFS_OP_APPEND ? &o->n_append : &o->n_setitem;
	if (!*n)
		*start = at;
	else if (*start + *n != at)
		o->scattered = true;
	++*n;
}

bool cfs_node_add_op(struct cfs_pickle *doc, struct cfs_node *node,
		     enum cfs_op_kind kind, struct cfs_node *a,
		     struct cfs_node *b)
{
	struct cfs_node_object *o = node->u.object;
	struct cfs_node_op *ops;
	uint32_t cap;

	if (o->n_ops == o->cap_ops) {
		if (!grown(o->n_ops, 1, o->cap_ops, &cap)) {
			doc->failed = doc->over = true;
			return false;
		}
		ops = cfs_pickle_alloc(doc, (size_t)cap * sizeof(*ops));
		if (!ops)
			return false;
		if (o->n_ops)
			memcpy(ops, o->ops, o->n_ops * sizeof(*ops));
		o->ops = ops;
		o->cap_ops = cap;
	}
	o->ops[o->n_ops] = (struct cfs_node_op){kind, a, b};
	cfs_node_note_op(o, o->n_ops++);
	return true;
}

void cfs_node_append(struct cfs_pickle *doc, struct cfs_node *list,
		     struct cfs_node *item)
{
	if (!list || !item) {
		doc->failed = true;
		return;
	}
	if (list->kind == CFS_NODE_OBJECT) {
		(void)cfs_node_add_op(doc, list, CFS_OP_APPEND, item, NULL);
		return;
	}
	assert(list->kind == CFS_NODE_LIST);
	if (cfs_node_reserve(doc, list, 1))
		list->u.items[list->n++] = item;
}

void cfs_node_set(struct cfs_pickle *doc, struct cfs_node *map,
		  struct cfs_node *key, struct cfs_node *value)
{
	if (!map || !key || !value) {
		doc->failed = true;
		return;
	}
	if (map->kind == CFS_NODE_OBJECT) {
		(void)cfs_node_add_op(doc, map, CFS_OP_SETITEM, key, value);
		return;
	}
	assert(map->kind == CFS_NODE_DICT);
	if (!cfs_node_reserve(doc, map, 1))
		return;
	map->u.items[(size_t)map->n * 2] = key;
	map->u.items[(size_t)map->n * 2 + 1] = value;
	map->n++;
}

void cfs_node_set_str(struct cfs_pickle *doc, struct cfs_node *map,
		      const char *key, struct cfs_node *value)
{
	cfs_node_set(doc, map, cfs_node_str(doc, key), value);
}

void cfs_node_build(struct cfs_pickle *doc, struct cfs_node *object,
		    struct cfs_node *state)
{
	if (!object || !state) {
		doc->failed = true;
		return;
	}
	assert(object->kind == CFS_NODE_OBJECT);
	(void)cfs_node_add_op(doc, object, CFS_OP_BUILD, state, NULL);
}
