/* Copies of nodes, and changing them before anybody else sees them. */
#include <string.h>

#include "fs/container/pickle_internal.h"

static bool copy_object(struct cfs_pickle *doc, struct cfs_node *copy,
			const struct cfs_node_object *from)
{
	struct cfs_node_object *o = cfs_pickle_alloc(doc, sizeof(*o));

	if (!o)
		return false;
	*o = *from;
	o->ops = NULL;
	o->cap_ops = o->n_ops;
	if (o->n_ops) {
		o->ops = cfs_pickle_alloc(doc,
					  (size_t)o->n_ops * sizeof(*o->ops));
		if (!o->ops)
			return false;
		memcpy(o->ops, from->ops, (size_t)o->n_ops * sizeof(*o->ops));
	}
	copy->u.object = o;
	return true;
}

struct cfs_node *cfs_node_copy(struct cfs_pickle *doc,
			       const struct cfs_node *node)
{
	struct cfs_node *copy;
	size_t n;

	copy = node ? cfs_node_new(doc, node->kind) : NULL;
	if (!copy) {
		doc->failed = true;
		return NULL;
	}
	*copy = *node;
	if (node->kind == CFS_NODE_OBJECT)
		return copy_object(doc, copy, node->u.object) ? copy : NULL;
	if (node->kind == CFS_NODE_PERSID || !cfs_node_slots(node))
		return copy;
	n = cfs_node_slots(node) * sizeof(struct cfs_node *);
	copy->u.items = cfs_pickle_alloc(doc, n);
	copy->cap = copy->n;
	if (!copy->u.items)
		return NULL;
	memcpy(copy->u.items, node->u.items, n);
	return copy;
}

static bool key_is(const struct cfs_node *node, const char *key, size_t len)
{
	return node->kind == CFS_NODE_STR && node->u.str.len == len &&
	       !memcmp(node->u.str.data, key, len);
}

void cfs_node_replace(struct cfs_pickle *doc, struct cfs_node *map,
		      const char *key, struct cfs_node *value)
{
	const size_t len = strlen(key);

	if (!map || !value) {
		doc->failed = true;
		return;
	}
	if (map->kind == CFS_NODE_DICT) {
		for (size_t i = map->n; i-- > 0;) {
			if (key_is(map->u.items[i * 2], key, len)) {
				map->u.items[i * 2 + 1] = value;
				return;
			}
		}
	} else if (map->kind == CFS_NODE_OBJECT) {
		for (uint32_t i = map->u.object->n_ops; i-- > 0;) {
			struct cfs_node_op *op = &map->u.object->ops[i];

			if (op->kind == CFS_OP_SETITEM &&
			    key_is(op->a, key, len)) {
				op->b = value;
				return;
			}
		}
	}
	cfs_node_set_str(doc, map, key, value);
}

void cfs_node_replace_state(struct cfs_node *object, struct cfs_node *state)
{
	if (!object || !state || object->kind != CFS_NODE_OBJECT)
		return;
	for (uint32_t i = object->u.object->n_ops; i-- > 0;)
		if (object->u.object->ops[i].kind == CFS_OP_BUILD) {
			object->u.object->ops[i].a = state;
			return;
		}
}

static void remove_op(struct cfs_node_object *o, const char *key, size_t len)
{
	uint32_t n = o->n_ops;

	o->n_ops = o->n_append = o->n_setitem = 0;
	o->scattered = false;
	for (uint32_t i = 0; i < n; i++) {
		if (o->ops[i].kind == CFS_OP_SETITEM &&
		    key_is(o->ops[i].a, key, len))
			continue;
		o->ops[o->n_ops] = o->ops[i];
		cfs_node_note_op(o, o->n_ops++);
	}
}

void cfs_node_remove(struct cfs_node *map, const char *key)
{
	const size_t len = strlen(key);
	uint32_t n = 0;

	if (!map)
		return;
	if (map->kind == CFS_NODE_OBJECT)
		remove_op(map->u.object, key, len);
	if (map->kind != CFS_NODE_DICT)
		return;
	for (uint32_t i = 0; i < map->n; i++) {
		if (key_is(map->u.items[(size_t)i * 2], key, len))
			continue;
		memmove(&map->u.items[(size_t)n * 2],
			&map->u.items[(size_t)i * 2],
			2 * sizeof(struct cfs_node *));
		n++;
	}
	map->n = n;
}
